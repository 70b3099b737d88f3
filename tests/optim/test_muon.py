"""Muon's update against NumPy's singular value decomposition, and against Optax's."""

from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import _muon as optax_muon

import scalex_eqx as sx
from scalex_eqx.ops._orthogonalized import step_coefficients
from scalex_eqx.optim._muon import _rule

RNG = np.random.default_rng(0)
# Rounding of a normalised matrix and of the products of five steps, in entries of size up to 1.
ROUNDING = 2e-5


def spec(
    fan_in: tuple[int, ...] = (-1,), fan_out: tuple[int, ...] = (-2,), **given: Any
) -> sx.WeightSpec:
    given = {
        "role": sx.Role.hidden,
        "parameterization": sx.standard,
        "width_ratio": Fraction(1),
    } | given
    return sx.WeightSpec(fan_in, fan_out, **given)


def drawn(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def update(tx: Any, gradients: list[np.ndarray], one: sx.WeightSpec, dtype: str = "float32"):
    """The updates of a single weight, one for each gradient."""
    params = {"w": sx.Weight(jnp.zeros(gradients[0].shape, dtype), one)}
    state, found = tx.init(params), []
    for g in gradients:
        moved, state = jax.jit(tx.update)({"w": sx.Weight(jnp.asarray(g, dtype), one)}, state)
        found.append(np.asarray(moved["w"].value))
    return found


def orthogonal(x: np.ndarray, method: str = "newton_schulz") -> np.ndarray:
    u, s, v = np.linalg.svd(x.astype(np.float64), full_matrices=False)
    s = s / np.linalg.norm(s)
    for a, b, c in step_coefficients(method, 5):
        s = a * s + b * s**3 + c * s**5
    return (u * s) @ v


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("method", ["newton_schulz", "minimax"])
def test_the_formula(nesterov: bool, method: Any):
    gradients = [drawn(6, 4) for _ in range(3)]
    tx = sx.scale_by_muon(0.9, nesterov=nesterov, method=method)
    mean = np.zeros((6, 4))
    for g, found in zip(gradients, update(tx, gradients, spec()), strict=True):
        mean = 0.9 * mean + 0.1 * g
        ahead = 0.9 * mean + 0.1 * g if nesterov else mean
        # The rows are the outputs.
        expected = np.sqrt(6 / 4) * orthogonal(ahead, method)
        np.testing.assert_allclose(found, expected, atol=ROUNDING)


def test_optax_agrees_where_the_formulas_do():
    """Without Nesterov, whose corrections for the start at zero differ, and with axis 0 as fan-in.

    Optax adds 1e-8 to the norm, and the gradients are of size 1.
    """
    gradients = [drawn(6, 9) for _ in range(3)]
    axes: Any = {"weight_dimension_numbers": {"w": optax_muon.MuonDimensionNumbers()}}
    scales: Any = {"shape": {}, "rms": {"consistent_rms": 0.2}}
    for scale, options in scales.items():
        theirs: Any = optax.chain(
            optax_muon.scale_by_muon(nesterov=False, **axes),
            optax_muon.scale_by_shape(**axes, **options),
        )
        ours = update(sx.scale_by_muon(nesterov=False, scale=scale), gradients, spec((-2,), (-1,)))
        with jax.numpy_dtype_promotion("standard"):
            state = theirs.init({"w": jnp.zeros((6, 9))})
            for g, found in zip(gradients, ours, strict=True):
                expected, state = theirs.update({"w": jnp.asarray(g)}, state)
                np.testing.assert_allclose(found, expected["w"], atol=ROUNDING)


AXES = {
    "out, in": ((6, 4), (-1,), (-2,)),
    "in, out": ((4, 6), (-2,), (-1,)),
    "heads, each, in": ((3, 2, 4), (-1,), (-3, -2)),
    "in, heads, each": ((4, 3, 2), (-3,), (-2, -1)),
    "a convolution": ((6, 2, 2, 1), (-3, -2, -1), (-4,)),
    "each, in, heads": ((2, 4, 3), (-2,), (-3, -1)),
}


@pytest.mark.parametrize("name", AXES)
def test_the_axes_are_the_declared_ones(name: str):
    """As a matrix of outputs and inputs, by `np.einsum`, all of them are one."""
    shape, fan_in, fan_out = AXES[name]
    g = drawn(*shape)
    order = (*sorted(fan_out), *sorted(fan_in))
    matrix = np.transpose(g, [axis + g.ndim for axis in order]).reshape(6, 4)
    [found] = update(sx.scale_by_muon(0.0), [g], spec(fan_in, fan_out))
    found = np.transpose(found, [axis + g.ndim for axis in order]).reshape(6, 4)
    np.testing.assert_allclose(found, np.sqrt(6 / 4) * orthogonal(matrix), atol=ROUNDING)


def test_stacked_weights_are_taken_one_by_one():
    g = drawn(3, 6, 4)
    [stacked] = update(sx.scale_by_muon(0.0), [g], spec())
    each = [update(sx.scale_by_muon(0.0), [one], spec())[0] for one in g]
    np.testing.assert_allclose(stacked, each, atol=ROUNDING)
    as_one = orthogonal(g.reshape(18, 4)).reshape(g.shape)
    assert np.max(np.abs(as_one - stacked)) > 0.1


@pytest.mark.parametrize("exponent", [-100, 100])
def test_the_size_of_the_gradient_does_not_matter(exponent: int):
    gradients = [drawn(4, 6) for _ in range(2)]
    small = [np.ldexp(g, exponent) for g in gradients]
    for found, expected in zip(
        update(sx.scale_by_muon(), small, spec()),
        update(sx.scale_by_muon(), gradients, spec()),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)


def test_zeros_and_what_is_not_finite():
    bad = drawn(2, 4, 6)
    bad[0, 1, 1] = np.inf
    spoilt, after = update(sx.scale_by_muon(), [bad, drawn(2, 4, 6)], spec())
    for found in (spoilt, after):
        assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()
    [zero] = update(sx.scale_by_muon(), [np.zeros((4, 6), np.float32)], spec())
    np.testing.assert_array_equal(zero, 0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_weights(dtype: str):
    """The mean is float32, and so is all that is computed: only the update is rounded."""
    g = np.asarray(jnp.asarray(drawn(4, 6), dtype))
    [found] = update(sx.scale_by_muon(), [g], spec(), dtype)
    assert found.dtype == dtype
    [exact] = update(sx.scale_by_muon(), [g.astype(np.float32)], spec())
    np.testing.assert_array_equal(found, exact.astype(found.dtype))


def test_vmap():
    g = jnp.asarray(drawn(3, 4, 6))
    tx: Any = sx.scale_by_muon()
    params = {"w": sx.Weight(g, spec())}
    moved, state = jax.vmap(lambda p: tx.update(p, tx.init(p)))(params)
    [expected] = update(tx, [np.asarray(g)], spec())
    np.testing.assert_allclose(moved["w"].value, expected, atol=ROUNDING)
    assert state.mean["w"].value.shape == (3, 4, 6)


def factor(scale: Any, shape: tuple[int, int], **given: Any) -> float:
    """What the orthogonal matrix is multiplied with."""
    one = spec(**given)
    g = drawn(*shape)
    [found] = update(sx.scale_by_muon(0.0, scale=scale), [g], one)
    return float(np.linalg.norm(found) / np.linalg.norm(orthogonal(g)))


@pytest.mark.parametrize(
    ("scale", "tall", "wide"),
    [
        ("spectral", np.sqrt(3), np.sqrt(1 / 3)),
        ("rms", 0.2 * np.sqrt(12), 0.2 * np.sqrt(12)),
        ("shape", np.sqrt(3), 1.0),
    ],
)
def test_the_factor_is_that_of_the_base_shape(scale: str, tall: float, wide: float):
    for ratio in (1, 2):
        given = {"width_ratio": Fraction(ratio)}
        assert factor(scale, (12 * ratio, 4 * ratio), **given) == pytest.approx(tall, rel=1e-4)
        assert factor(scale, (4 * ratio, 12 * ratio), **given) == pytest.approx(wide, rel=1e-4)
    # Only the fan-out has grown, from 6 to 12.
    one_side = {"width_ratio": Fraction(1), "sizes": (("fan_out", Fraction(2)),)}
    base = {"spectral": np.sqrt(6 / 4), "rms": 0.2 * np.sqrt(6), "shape": np.sqrt(6 / 4)}
    assert factor(scale, (12, 4), **one_side) == pytest.approx(base[scale], rel=1e-4)


@pytest.mark.parametrize("scale", ["rms", "shape"])
def test_a_longer_side_that_becomes_the_shorter_is_refused(scale: Any):
    grown = {"width_ratio": Fraction(4), "sizes": (("fan_out", Fraction(1)),)}
    assert factor("spectral", (6, 16), **grown) == pytest.approx(np.sqrt(6 / 4), rel=1e-4)
    assert factor(scale, (6, 24), **grown | {"width_ratio": Fraction(4)}) > 0
    with pytest.raises(
        ValueError,
        match=r"w: fan-in and fan-out are 16 and 6, 4 and 6 at the base width.*scale='spectral'",
    ):
        factor(scale, (6, 16), **grown)


@pytest.mark.parametrize("scale", ["spectral", "rms", "shape"])
def test_weights_that_are_summed_over_to_one_number_are_a_matrix_of_one_row(scale: Any):
    """Such as those of a score."""
    drawn = jax.random.normal(jax.random.key(0), (12,))

    def make(width: int):
        row = sx.WeightSpec((-1,), (), std=1.0, role=sx.Role.hidden)
        matrix = sx.WeightSpec((-1,), (-2,), std=1.0, role=sx.Role.hidden)
        return {"row": sx.Weight(drawn[:width], row), "m": sx.Weight(drawn[None, :width], matrix)}

    model = sx.parameterize(make, width=12, base_width=6, parameterization=sx.mup)
    tx = sx.muon(0.1, scale=scale)
    updates: Any = tx.update(model, tx.init(model), model)[0]
    assert np.array_equal(updates["row"].value, updates["m"].value[0])
    assert np.any(updates["row"].value)


@pytest.mark.parametrize("role", ["vector", "constant"])
def test_what_is_no_matrix_is_refused(weight, role: str):
    with pytest.raises(ValueError, match=f"w: role {role}, and no matrix; use scalex_eqx.muon"):
        sx.scale_by_muon().init({"w": weight([1.0, 2.0], role)})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("momentum", 1.0, "momentum is 1.0; expected a finite number, at least 0 and less than 1"),
        ("nesterov", 1, "nesterov is 1; expected True or False"),
        ("scale", "max", "scale is 'max'; expected 'spectral', 'rms' or 'shape'"),
        ("method", "svd", "method is 'svd'; expected 'newton_schulz' or 'minimax'"),
        ("steps", 0, "steps is 0; expected an int of at least 1"),
        ("compute_dtype", "int8", "compute_dtype is 'int8'; expected 'float32', 'bfloat16', or"),
    ],
)
def test_what_is_refused(name: str, value: Any, message: str):
    options = {
        "momentum": 0.95,
        "nesterov": True,
        "scale": "spectral",
        "method": "minimax",
        "steps": 5,
        "compute_dtype": None,
    }
    with pytest.raises(ValueError, match=message):
        _rule(**options | {name: value})


def test_frozen_weights_and_empty_ones_stay():
    params = {
        "empty": sx.Weight(jnp.zeros((0, 3)), spec()),
        "frozen": sx.Weight(jnp.ones((2, 3)), spec(frozen=True)),
        "moved": sx.Weight(jnp.ones((2, 3)), spec()),
    }
    tx: Any = sx.scale_by_muon()
    state = tx.init(params)
    moved, _ = tx.update(params, state, params)
    assert moved["empty"].value.shape == (0, 3)
    assert state.mean["frozen"].value is None
    assert np.linalg.norm(moved["moved"].value) > 0.5
