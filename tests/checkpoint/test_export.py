"""Laws as data: they tell what a tree is to whoever else keeps its arrays."""

import json
from fractions import Fraction
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import scalex_eqx as sx


def make(width: int) -> Any:
    return sx.nn.MLP(2, width, 3, key=jax.random.key(0))


def model(parameterization: Any = sx.mup, **more: Any) -> Any:
    settings: dict[str, Any] = {"width": 24, "base_width": 16, **more}
    return sx.parameterize(make, parameterization=parameterization, **settings)


def state(b2: float = 0.999) -> Any:
    return sx.adam(0.1, b2=b2).init(eqx.filter(model(), eqx.is_inexact_array))


def test_what_is_exported():
    assert sx.export_laws(model()) == {
        "format": "scalex_eqx laws",
        "version": 1,
        "laws": {
            "up/weight": {
                "fan_in": [-1],
                "fan_out": [-2],
                "role": "embedding",
                "std": 2**-0.5,
                "factor_exponent": "0",
                "width_ratio": "3/2",
                "a": "-1/2",
                "b": "1/2",
                "logit_exponent": "1",
                "parameterization": "mup",
            },
            "down/weight": {
                "fan_in": [-1],
                "fan_out": [-2],
                "role": "readout",
                "std": 0.25,
                "factor_exponent": "0",
                "width_ratio": "3/2",
                "a": "1/2",
                "b": "1/2",
                "logit_exponent": "1",
                "parameterization": "mup",
            },
        },
    }


def test_what_is_exported_of_a_rule():
    exported = sx.export_laws(state())
    assert exported["rules"]["0/rule"] == {
        "rule": "scale_by_adam",
        "keeps": ["mu", "nu"],
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-12,
        "eps's law": "scales as the gradient",
    }
    assert exported["rules"]["1/rule"]["rates"] == {"alpha": "1", "omega": "1/2", "u": "1"}
    assert exported["states"]["0"] == {"state": "ScaleByAdamState"}


def test_fields_at_their_defaults_are_left_out():
    """So that a field which is new orphans nothing that was exported before."""
    spec = model().up.weight.spec
    frozen = sx.WeightSpec(
        spec.fan_in, spec.fan_out, spec.std, spec.role, spec.parameterization, Fraction(3, 2),
        frozen=True,
    )  # fmt: skip
    assert "frozen" not in sx.export_laws(model())["laws"]["up/weight"]
    tree = {"w": sx.Weight(jnp.ones((24, 2)), frozen)}
    assert sx.export_laws(tree)["laws"]["w"]["frozen"] is True
    other = {"w": sx.Weight(jnp.ones((24, 2)), spec)}
    # In both directions: one side alone has the field.
    with pytest.raises(ValueError, match="w: frozen is True in the export, None in the tree"):
        sx.check_laws(other, sx.export_laws(tree))
    with pytest.raises(ValueError, match="w: frozen is None in the export, True in the tree"):
        sx.check_laws(tree, sx.export_laws(other))


def test_the_fingerprint_of_laws_stays():
    """Numbers that are in logs and in other people's files."""
    assert sx.fingerprint(model()) == "85e0e9e8484a5e18"
    assert sx.fingerprint(model(sx.ntk, width=32)) == "83527d4c72df2886"


@pytest.mark.parametrize("form", [dict, json.dumps, lambda data: json.dumps(data).encode()])
def test_a_tree_passes_its_own_check(form: Any):
    tree = (model(), state())
    sx.check_laws(tree, form(sx.export_laws(tree)))
    sx.check_laws(eqx.filter_eval_shape(lambda: tree), form(sx.export_laws(tree)))


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (lambda: model(sx.mean_field), "up/weight: a is -1/2 in the export, 0 in the tree"),
        (lambda: model(base_width=8), "up/weight: width_ratio is 3/2 in the export, 3 in the"),
        (lambda: {"up": model().up}, "down/weight: only in the export"),
        (lambda: (model(),), "0/up/weight: only in the tree"),
        (lambda: sx.resolve(model()), "up/weight: only in the export"),
    ],
)
def test_another_law_is_refused(other: Any, difference: str):
    with pytest.raises(ValueError, match="the tree has weights with other scaling laws") as caught:
        sx.check_laws(other(), sx.export_laws(model()))
    assert difference in str(caught.value)


def test_another_rule_is_refused():
    with pytest.raises(ValueError, match=r"0/rule: b2 is 0\.9 in the export, 0\.99 in the tree"):
        sx.check_laws(state(b2=0.99), sx.export_laws(state(b2=0.9)))
    sx.check_laws(state(b2=0.99), sx.export_laws(state(b2=0.9)), accept=["b2"])


@pytest.mark.parametrize(
    ("exported", "message"),
    [
        ("{", "are no JSON"),
        ("[" * 10**5, "are no JSON"),
        ("[]", "have no format 'scalex_eqx laws'"),
        ({"laws": {}}, "have no format"),
        ({"format": "scalex_eqx laws", "version": 2, "laws": {}}, "have version 2; this scalex_eq"),
        ({"format": "scalex_eqx laws", "version": 1, "sizes": {}}, "have the parts sizes; this"),
        ({"format": "scalex_eqx laws", "version": 1, "laws": []}, "malformed at 'laws'"),
        ({"format": "scalex_eqx laws", "version": 1, "laws": {"w": 1}}, "malformed at 'laws'"),
        ({"format": "scalex_eqx laws", "version": 1}, "malformed at 'laws'"),
    ],
)
def test_what_was_not_exported_is_refused(exported: Any, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        sx.check_laws({}, exported)
    assert str(caught.value).endswith("docs/checkpoints.md#laws-that-cannot-be-read")
