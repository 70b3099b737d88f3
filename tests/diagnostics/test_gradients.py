"""Gradient exponents at initialisation, by Table 1 of Everett et al. (2024)."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import scalex_eqx as sx
from scalex_eqx.diagnostics import gradient_exponents

# -g of embedding, hidden and readout.
TABLE = {
    sx.standard: (-0.5, -0.5, 0.0),
    sx.ntk: (-0.5, -1.0, -0.5),
    sx.mup: (-0.5, -1.0, -0.5),
    sx.mean_field: (-1.0, -1.5, -1.0),
}
WIDTHS, SEEDS = (64, 256), range(8)


def builder(parameterization: sx.Parameterization) -> Any:
    def build(width, key):
        def make(width):
            first, second, third = jax.random.split(key, 3)
            return [
                sx.nn.Linear(16, width, key=first),
                sx.nn.Linear(width, width, key=second),
                sx.nn.Readout(width, 8, key=third),
            ]

        return sx.parameterize(make, width=width, base_width=64, parameterization=parameterization)

    return build


def apply(model, x):
    for layer in model[:-1]:
        x = jnp.tanh(jax.vmap(layer)(x))
    return jax.vmap(model[-1])(x)


def batch(key):
    return (jax.random.normal(key, (32, 16)),)


def fixed(output, x):
    """The cotangent is the same at every width."""
    return jnp.sum(
        output * jnp.sin(jnp.arange(output.size, dtype=output.dtype)).reshape(output.shape)
    )


def growing(output, x):
    """The cotangent is the output itself: n^(1/2 - (a + b)) of the readout."""
    return 0.5 * jnp.sum(output**2)


@pytest.mark.parametrize("parameterization", TABLE, ids=lambda p: p.name)
def test_exponents_are_those_of_the_table(parameterization: Any):
    """The standard error of an exponent is up to 0.02, from the scatter of eight seeds."""
    found = gradient_exponents(
        builder(parameterization), apply, fixed, batch, widths=WIDTHS, seeds=SEEDS
    )
    assert found.cotangent.value == pytest.approx(0, abs=1e-5)
    for weight, expected in zip(found.weights.values(), TABLE[parameterization], strict=True):
        assert float(weight.expected) == expected
        assert weight.relative is not None
        assert weight.relative.value == pytest.approx(expected, abs=0.08), weight.name
    by_other_table = TABLE[sx.mean_field if parameterization != sx.mean_field else sx.standard]
    differences = [
        abs(weight.relative.value - other)
        for weight, other in zip(found.weights.values(), by_other_table, strict=True)
        if weight.relative is not None
    ]
    assert max(differences) > 0.4


def test_the_cotangents_own_exponent_is_taken_off():
    found = gradient_exponents(builder(sx.mup), apply, growing, batch, widths=WIDTHS, seeds=SEEDS)
    assert found.cotangent.value == pytest.approx(-0.5, abs=0.1)
    first = next(iter(found.weights.values()))
    assert first.measured is not None and first.relative is not None
    assert first.measured.value == pytest.approx(-1.0, abs=0.15)
    assert first.relative.value == pytest.approx(-0.5, abs=0.15)
    # Four times as wide as the widest, by the exponent measured.
    predicted = found.at(4 * WIDTHS[-1])["0/weight"]
    assert predicted == pytest.approx(first.size * 16**first.measured.value)
    assert "0/weight" in str(found) and found.table().rows[0]["weight"] == "0/weight"


def test_what_rounding_leaves_of_zero_has_no_exponent():
    """A softmax doesn't see a shift of all its logits, as attention doesn't a bias of its keys."""

    def build(width, key):
        def make(width):
            first, second = jax.random.split(key)
            return {
                "in": sx.nn.Linear(16, width, key=first),
                "shift": sx.Weight(jnp.ones(width), sx.WeightSpec((), (-1,))),
                "out": sx.nn.Readout(width, 8, key=second),
            }

        return sx.parameterize(make, width=width, base_width=16, parameterization=sx.standard)

    def shifted(model, x):
        h = jax.vmap(model["in"])(x) + jnp.sum(sx.effective(model["shift"]))
        return jax.vmap(model["out"])(jax.nn.softmax(h))

    found = gradient_exponents(build, shifted, fixed, batch, widths=(16, 32), seeds=(0, 1))
    shift = found.weights["shift"]
    assert (shift.measured, shift.relative, shift.size) == (None, None, 0.0)
    assert "shift" not in found.at(64)
    for name in ("in/weight", "out/weight"):
        assert found.weights[name].measured is not None and found.weights[name].size > 0


def test_inputs_that_are_no_tuple_are_refused():
    bare: Any = lambda key: batch(key)[0]  # noqa: E731
    with pytest.raises(ValueError, match=r"batch\(key\) is a .*; expected the tuple .*\(x,\)"):
        gradient_exponents(builder(sx.mup), apply, fixed, bare, widths=(64, 128), seeds=(0,))


def test_one_width_is_refused():
    with pytest.raises(ValueError, match=r"widths are \[64\]; expected at least two"):
        gradient_exponents(builder(sx.mup), apply, fixed, batch, widths=(64,))
