"""Rounding to narrower dtypes, against casts by ml_dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalex_eqx.ops import rounded, stochastically_rounded

DTYPES = ["bfloat16", "float16"]


def numbers(dtype: str) -> np.ndarray:
    """Of all sizes that the dtype has, its subnormal ones included, and what stays as it is."""
    rng = np.random.default_rng(0)
    least = -126 if dtype == "bfloat16" else -25
    sizes = 2.0 ** rng.uniform(least, np.log2(float(jnp.finfo(dtype).max)), 4000)
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.5]
    return np.concatenate([sizes * rng.choice([-1, 1], 4000), special]).astype(np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("jit", [jax.jit, lambda f: f])
def test_rounded_is_the_cast(dtype: str, jit):
    x = numbers(dtype)
    found = np.asarray(jit(lambda x: rounded(x, dtype))(jnp.asarray(x)))
    np.testing.assert_array_equal(found, x.astype(jnp.dtype(dtype)).astype(np.float32))


@pytest.mark.parametrize("dtype", DTYPES)
def test_stochastic_rounding_gives_a_neighbour(dtype: str):
    x = numbers(dtype)
    found = np.asarray(jax.jit(lambda x: stochastically_rounded(x, dtype, jax.random.key(0)))(x))
    narrow = found.astype(jnp.dtype(dtype))
    finite = np.isfinite(narrow.astype(np.float32))
    np.testing.assert_array_equal(narrow.astype(np.float32)[finite], found[finite])
    nearest = x.astype(jnp.dtype(dtype))
    below = np.where(
        nearest.astype(np.float32) <= x, nearest, np.nextafter(nearest, -nearest.dtype.type(np.inf))
    )
    above = np.where(
        nearest.astype(np.float32) >= x, nearest, np.nextafter(nearest, nearest.dtype.type(np.inf))
    )
    is_neighbour = (narrow == below) | (narrow == above)
    # XLA flushes what lies between zero and the smallest normal number of bfloat16.
    flushed = (np.abs(x) < 2.0**-118) if dtype == "bfloat16" else np.zeros(x.shape, bool)
    assert np.all(is_neighbour | ~finite | flushed)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(x))
    np.testing.assert_array_equal(found[np.isinf(x)], x[np.isinf(x)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_stochastic_rounding_keeps_the_mean(dtype: str, sign: float):
    """At 1 + p h it goes up with probability p; five standard deviations of N draws."""
    shares, draws = np.asarray([0.0, 0.01, 0.25, 0.5, 0.9, 0.99]), 100_000
    spacing = float(jnp.finfo(dtype).eps)
    x = jnp.asarray(sign * (1 + shares * spacing), jnp.float32)
    keys = jax.random.key(1)
    found = jax.jit(lambda x: stochastically_rounded(x, dtype, keys))(
        jnp.broadcast_to(x, (draws, 6))
    )
    up = (np.abs(np.asarray(found, np.float64)) - 1) / spacing
    assert set(np.unique(up)) == {0.0, 1.0}
    # The probability is that of x in float32, and of 23 random bits.
    exact = (np.abs(np.asarray(x, np.float64)) - 1) / spacing
    assert np.all(np.abs(up.mean(0) - exact) <= 5 * np.sqrt(exact * (1 - exact) / draws) + 2.0**-23)
    # To nearest, the mean is off by up to half.
    nearest = np.asarray(x).astype(jnp.dtype(dtype)).astype(np.float64)
    assert np.max(np.abs((np.abs(nearest) - 1) / spacing - exact)) > 0.2
