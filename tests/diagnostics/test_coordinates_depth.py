"""The checks over the depth: right models pass, planted faults are rejected and named.

At a reduced size: pairs of residual branches of width 16, stacked for a scan, at depths 2 and 8,
with three seeds and two steps. `tests/scaling/depth_exponents.py` measures over more depths.
"""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.diagnostics import (
    CoordinateCheck,
    coordinate_check,
    coordinate_figure,
    gradient_exponents,
    prescribe,
)
from scalex_eqx.diagnostics._coordinates._positions import positions

from ..power.deep import ADAM, DEPTHS, FAULTS, WIDTH, Residual, batch, build, loss
from ._checks import checked


def check(law: Any, tx: Any, **fault: bool) -> CoordinateCheck:
    made = functools.partial(build, law, **fault)
    return checked(made, loss, tx, batch, size="depth", depths=DEPTHS)


@pytest.mark.parametrize(("alpha", "tx"), [(1, ADAM), ("1/2", sx.sgd(0.3))], ids=["adam", "sgd"])
def test_right_models_pass(alpha: Any, tx: Any):
    found = check(sx.mup.deep(alpha), tx)
    assert found.verdict == "passes", str(found)
    assert found.over == "depth"
    assert found.widths == DEPTHS
    names = {row.name for row in found.rows}
    assert {f"one/up/weight/{place}" for place in ("first", "middle", "last")} <= names
    assert "embedding/weight" in names
    assert str(found).startswith("depths 2, 8, 3 seeds, 2 steps: exponents of sizes that grow as L")
    assert coordinate_figure(found).axes[0].get_xlabel() == "depth"
    with pytest.raises(ValueError, match="one over the depth"):
        prescribe(found)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "a factor left out",
            r"gradient that goes, beside the embedding's, as L\^[-+]0\.[0-4]\d instead of L\^-1.00",
        ),
        (
            "the depth counted twice",
            r"gradient that goes, beside the embedding's, as L\^-[12]\.\d\d instead of L\^-1\.00",
        ),
        (
            "the wrong sign of the rate",
            r"moved at first by an amount that goes as L\^\+0\.50 instead of L\^-0\.50",
        ),
        (
            "Adam's rate under SGD",
            r"moved at first by an amount that goes as L\^-\d\.\d\d instead of L\^-[01]\.\d\d",
        ),
        ("no law", r"not L\^-1\.00: under full"),
    ],
)
def test_faults_are_rejected_by_name(name: str, text: str):
    fault = FAULTS[name]
    found = check(fault.law, fault.tx, **fault.options)
    assert found.verdict == "rejected", str(found)
    worst = found.findings[0]
    assert worst.weight.startswith(fault.culprits), str(found)
    assert re.search(text, worst.text), worst.text


def test_gradients_over_the_depth():
    found = gradient_exponents(
        functools.partial(build, sx.mup.deep(1)),
        lambda model, x, _: jax.vmap(model)(x),
        lambda logits, _, y: jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y)),
        batch,
        size="depth",
        depths=(4, 16),
        seeds=(0, 1),
    )
    assert found.over == "depth"
    for name, weight in found.weights.items():
        assert weight.expected == (-1 if name.startswith(("one/", "other/")) else 0)
        assert weight.relative is not None
        # Blocks of order 1/L change the stream by order one: what is left falls as 1/L.
        assert weight.relative.value == pytest.approx(weight.expected, abs=0.3), name


def test_layers_at_one_place_are_compared():
    shallow, deep = (
        [f"blocks/{i}/{j}/w" for i in range(depth) for j in range(2)]
        + [f"stack/w/{i}" for i in range(depth)]
        + ["w2"]
        for depth in (2, 5)
    )
    one, other = positions([shallow, deep])
    assert one.keys() == other.keys()
    assert [other[f"blocks/{place}/1/w"] for place in ("first", "middle", "last")] == [
        "blocks/0/1/w",
        "blocks/2/1/w",
        "blocks/4/1/w",
    ]
    assert [one[f"stack/w/{place}"] for place in ("first", "middle", "last")] == [
        "stack/w/0",
        "stack/w/1",
        "stack/w/1",
    ]
    assert other["w2"] == "w2"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "depth", "widths": (2, 4)}, "widths are given, but size is 'depth'"),
        ({"depths": (2, 4)}, "depths are given, but size is 'width'"),
        ({"size": "depth", "depths": (2,)}, r"depths are \[2\]; expected at least two"),
    ],
)
def test_sizes_of_another_kind(options: Any, message: str):
    with pytest.raises(ValueError, match=message):
        coordinate_check(functools.partial(build, sx.mup.deep(1)), loss, ADAM, batch, **options)


def test_models_of_different_base_depths():
    def own_base(depth: int, key: Any) -> Any:
        return sx.parameterize(
            lambda width, depth: Residual(width, depth, key),
            width=WIDTH,
            base_width=WIDTH,
            depth=depth,
            base_depth=depth // 2,
            parameterization=sx.mup.deep(1),
        )

    with pytest.raises(ValueError, match="the models at depths 2, 8 have different base depths"):
        coordinate_check(own_base, loss, ADAM, batch, size="depth", depths=DEPTHS)
