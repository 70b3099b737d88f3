"""Numbers and squares in a byte each, against their grids."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalex_eqx.ops._byte_pairs import from_byte_pairs, to_byte_pairs

SQUARES = np.asarray([2.0**e * (1 + i / 8) for e in range(-32, 0) for i in range(8)])[:-1]
SIZES = np.asarray([2.0**e * (1 + i / 8) - 2.0**-15 for e in range(-15, 0) for i in range(8)])
DRAWS = 20_000


@jax.jit
def through(x, square, bits):
    return from_byte_pairs(to_byte_pairs(x, square, bits))


def random(shape: tuple[int, ...]) -> jax.Array:
    return jax.random.bits(jax.random.key(5), shape, jnp.uint32)


def test_the_numbers_of_the_grids_stay():
    x = jnp.asarray(np.concatenate([SIZES, -SIZES]), jnp.float32)
    square = jnp.asarray(np.resize(SQUARES, x.shape), jnp.float32)
    for bits in (jnp.zeros(x.shape, jnp.uint32), random(x.shape)):
        found, found_square = through(x, square, bits)
        np.testing.assert_array_equal(found, x)
        np.testing.assert_array_equal(found_square, square)


@pytest.mark.parametrize("scale", [1.0, 2.0**-9, 2.0**-14])
def test_the_means_are_kept(scale: float):
    """Five standard deviations of the mean of N draws; to nearest most are further off."""
    values = scale * np.asarray([0.51, 0.57, 0.66, 0.71, 0.83, 0.91])
    x = np.broadcast_to(values.astype(np.float32), (DRAWS, 6))
    found, square = through(-x, jnp.square(x), random(x.shape))
    for draws, grid, exact in (
        (-np.asarray(found), SIZES, x[0]),
        (np.asarray(square), SQUARES, np.square(x[0])),
    ):
        above = np.searchsorted(grid, exact)
        low, high = grid[above - 1], grid[above]
        assert np.all((draws == low.astype(np.float32)) | (draws == high.astype(np.float32)))
        share = (exact - low) / (high - low)
        room = 5 * (high - low) * np.sqrt(share * (1 - share) / DRAWS)
        assert np.all(np.abs(draws.mean(0, np.float64) - exact) <= room)
        nearest = np.where(share < 0.5, low, high)
        assert np.mean(np.abs(nearest - exact) > room) > 0.5


def test_the_ends():
    inf, nan = np.inf, np.nan
    x = jnp.asarray([0.0, 1e-30, 3.0, -1e30, 0.5, 0.5], jnp.float32)
    square = jnp.asarray([0.0, 1e-20, 2.0, 1e30, inf, nan], jnp.float32)
    found, found_square = through(x, square, jnp.full(6, 2**31 - 1, jnp.uint32))
    # 127 is the last of the bytes, seven steps above the octave below one.
    assert np.asarray(found)[:4].tolist() == [0.0, 0.0, 1.875 - 2.0**-15, -(1.875 - 2.0**-15)]
    assert np.asarray(found_square)[:4].tolist() == [2.0**-32, 2.0**-32, 1.75 / 2, 1.75 / 2]
    assert np.isnan(np.asarray(found_square)[4:]).all()
