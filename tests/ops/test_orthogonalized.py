"""Orthogonalisation against NumPy's singular value decomposition in double precision."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

from scalex_eqx import ops
from scalex_eqx.ops._orthogonalized import _MINIMAX, step_coefficients

from ._minimax import best_quintic, schedule

METHODS = ("newton_schulz", "minimax")
# Products are summed in another order: a rounding of 2^-24 of a normalised matrix, whose smallest
# singular value is 1/20, grows 20 times by the end, and there are several in each of five steps.
ROUNDING = 2e-5
SHAPES = [(6, 6), (4, 9), (9, 4), (1, 7), (7, 1)]


@functools.cache
def compiled(method: str, steps: int, compute_dtype: str | None):
    options = {"method": method, "steps": steps, "compute_dtype": compute_dtype}
    return jax.jit(functools.partial(ops.orthogonalized, **options))


def found(x, method="minimax", steps=5, compute_dtype=None) -> np.ndarray:
    return np.asarray(compiled(method, steps, compute_dtype)(jnp.asarray(x)))


def matrix(shape, least: float = 0.1, seed: int = 0) -> np.ndarray:
    """With singular values from `least` to 1."""
    u, s, v = np.linalg.svd(np.random.default_rng(seed).normal(size=shape), full_matrices=False)
    return (u * np.geomspace(1, least, len(s))) @ v


def expected(x: np.ndarray, method: str, steps: int) -> np.ndarray:
    """The steps on the singular values alone."""
    u, s, v = np.linalg.svd(x.astype(np.float64), full_matrices=False)
    s = s / np.linalg.norm(s)
    for a, b, c in step_coefficients(method, steps):
        s = a * s + b * s**3 + c * s**5
    return (u * s) @ v


def polar(x: np.ndarray) -> np.ndarray:
    u, _, v = np.linalg.svd(x.astype(np.float64), full_matrices=False)
    return u @ v


def test_the_coefficients_are_those_of_the_exchange():
    """To ten digits; linear solves of another BLAS differ in the last of sixteen."""
    np.testing.assert_allclose(schedule(len(_MINIMAX)), _MINIMAX, rtol=5e-8)
    assert np.max(np.abs(schedule(3, margin=1 / 60) / _MINIMAX[:3] - 1)) > 1e-4


@pytest.mark.parametrize(("low", "high"), [(1e-3, 65 / 64), (0.13, 1.87), (0.9, 1.1)])
def test_no_quintic_stays_nearer(low: float, high: float):
    """A linear program over 2000 points says how near one can stay."""
    x = np.linspace(low, high, 2000)
    powers = np.stack([x, x**3, x**5], 1)
    rows = np.block([[powers, -np.ones((2000, 1))], [-powers, -np.ones((2000, 1))]])
    best = linprog([0, 0, 0, 1], rows, np.repeat([1, -1], 2000), bounds=[(None, None)] * 4)
    assert best_quintic(low, high)[1] == pytest.approx(best.fun, rel=1e-4)


@pytest.mark.parametrize(
    ("method", "steps", "low", "high"),
    [
        ("newton_schulz", 5, 0.470, 1.203),
        ("newton_schulz", 20, 0.681, 1.203),
        ("minimax", 5, 0.837, 1.163),
        ("minimax", 6, 0.996, 1.004),
        ("minimax", 7, 1 - 3e-6, 1 + 3e-6),
        ("minimax", 12, 1 - 4e-16, 1 + 4e-16),
    ],
)
def test_what_becomes_of_singular_values(method: str, steps: int, low: float, high: float):
    s = np.geomspace(1e-3, 1, 10_001)
    for a, b, c in step_coefficients(method, steps):
        s = s * (a + s * s * (b + s * s * c))
    assert low <= s.min() and s.max() <= high
    assert (s.min() - low, high - s.max()) < (0.01, 0.01)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", METHODS)
def test_the_steps_act_on_singular_values_alone(method: str, shape):
    x = matrix(shape).astype(np.float32)
    np.testing.assert_allclose(found(x, method), expected(x, method, 5), atol=ROUNDING)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_schedule_ends_at_the_polar_factor(shape):
    x = matrix(shape, least=0.01).astype(np.float32)
    np.testing.assert_allclose(found(x, steps=7), polar(x), atol=2e-5)
    if min(shape) > 1:
        assert np.max(np.abs(found(x, "newton_schulz", 7) - polar(x))) > 1e-2


def test_double_precision(x64):
    x = matrix((6, 5), least=1e-2)
    np.testing.assert_allclose(found(x, steps=9), polar(x), atol=1e-12)
    assert found(x).dtype == np.float64


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16(method: str):
    """Roundings of 2^-9 grow with the smallest singular values; none of these turns negative."""
    x = np.stack([matrix((24, 16), seed=seed) for seed in range(8)]).astype(np.float32)
    narrow = found(x, method, compute_dtype="bfloat16")
    off = [
        np.linalg.norm(one - expected(y, method, 5), 2) for one, y in zip(narrow, x, strict=True)
    ]
    assert 1e-4 < max(off) < 0.25
    assert narrow.dtype == np.float32
    assert found(jnp.asarray(x[0], "bfloat16"), method).dtype == jnp.bfloat16


def test_large_singular_values_never_pass_near_zero():
    """The bare exchange would send some there, and rounding in bfloat16 beyond."""
    for coefficients, nearest in ((_MINIMAX, 0.2), (schedule(5, cushion=0.0), 0.008)):
        s, least = np.linspace(0.03, 1, 100_001), 1.0
        for a, b, c in coefficients[:4]:
            s = s * (a + s * s * (b + s * s * c))
            least = min(least, s.min())
        assert nearest < least < 1.2 * nearest


@pytest.mark.parametrize("method", METHODS)
def test_the_scale_does_not_matter(method: str):
    x = matrix((5, 8)).astype(np.float32)
    for exponent in (-110, -40, 40, 125):
        np.testing.assert_array_equal(found(np.ldexp(x, exponent), method), found(x, method))
    for scale in (1e-30, 1e30):
        scaled = (x * np.float32(scale)).astype(np.float32)
        np.testing.assert_allclose(found(scaled, method), found(x, method), atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_zeros_and_what_is_not_finite(method: str):
    x = np.stack([matrix((4, 6))] * 4).astype(np.float32)
    x[1] = 0
    x[2, 1, 2], x[3, 0, 5] = np.inf, np.nan
    result = found(x, method)
    np.testing.assert_array_equal(result[1], 0)
    assert np.isnan(result[2:]).all()
    assert np.isfinite(result[0]).all()


def test_a_part_that_is_zero_stays_zero():
    """Of rank one: the entries depend on the rank, as those of a gradient of one example do."""
    x = np.outer([1.0, 2.0, 0.0], [2.0, 0.0, 1.0, 2.0]).astype(np.float32)
    np.testing.assert_allclose(found(x, steps=7), x / np.float32(np.sqrt(45.0)), atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_stacks_and_transposes(method: Any):
    x = np.stack([matrix((7, 4), seed=seed) for seed in range(4)]).astype(np.float32)
    each = np.stack([found(one, method) for one in x])
    np.testing.assert_allclose(found(x, method), each, atol=ROUNDING)
    grid = x.reshape(2, 2, 7, 4)
    np.testing.assert_allclose(found(grid, method), each.reshape(grid.shape), atol=ROUNDING)
    mapped = jax.jit(jax.vmap(functools.partial(ops.orthogonalized, method=method)))(x)
    np.testing.assert_allclose(mapped, each, atol=ROUNDING)
    other_side = found(np.swapaxes(x, 1, 2), method).swapaxes(1, 2)
    np.testing.assert_allclose(other_side, each, atol=ROUNDING)


def test_the_products_are_those_of_the_smaller_side():
    for shape in ((8, 64), (64, 8)):
        text = str(jax.make_jaxpr(ops.orthogonalized)(jnp.ones(shape)))
        assert "f32[8,8]" in text and "f32[64,64]" not in text


@pytest.mark.parametrize(
    ("method", "steps", "message"),
    [
        ("cubic", 5, "method is 'cubic'; expected 'newton_schulz' or 'minimax'"),
        ("minimax", 0, "steps is 0; expected an int of at least 1"),
        ("newton_schulz", 2.0, "steps is 2.0; expected an int of at least 1"),
        ("newton_schulz", True, "steps is True; expected an int of at least 1"),
    ],
)
def test_what_is_refused(method: str, steps, message: str):
    with pytest.raises(ValueError, match=message):
        step_coefficients(method, steps)
