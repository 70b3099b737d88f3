"""Random bits by hashing indices, by statistics that a plain counter fails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalex_eqx.ops import hashed
from scalex_eqx.ops._hashed import hashed_words

ROWS, COLUMNS = 512, 768


def words(number: int):
    one, two = jax.random.bits(jax.random.key(0), (2,), jnp.uint32)
    return hashed_words((one, two), number)


def drawn(number: int = 0) -> np.ndarray:
    return np.asarray(jax.jit(lambda: hashed((ROWS, COLUMNS), words(number)))())


def worst_bit(x: np.ndarray) -> float:
    """Of 32, how many standard deviations the least fair coin is off."""
    shares = np.asarray([np.mean(x >> np.uint32(bit) & np.uint32(1)) for bit in range(32)])
    return float(np.max(np.abs(shares - 0.5)) * 2 * np.sqrt(x.size))


def chi_square(x: np.ndarray) -> float:
    """Standard deviations between the counts of the upper bytes and those of uniform ones."""
    counts = np.bincount((x >> np.uint32(24)).ravel(), minlength=256)
    expected = x.size / 256
    return float((np.sum((counts - expected) ** 2 / expected) - 255) / np.sqrt(2 * 255))


# Each compares bits that should have nothing to do with each other.
PAIRS = {
    "columns": lambda draw: draw()[:, 1:] ^ draw()[:, :-1],
    "columns, eight apart": lambda draw: draw()[:, 8:] ^ draw()[:, :-8],
    "rows": lambda draw: draw()[1:] ^ draw()[:-1],
    "across": lambda draw: draw()[1:, :-1] ^ draw()[:-1, 1:],
    "arrays": lambda draw: draw(0) ^ draw(1),
    "arrays, shifted": lambda draw: draw(0)[:, 1:] ^ draw(1)[:, :-1],
}


def test_each_bit_is_fair():
    assert worst_bit(drawn()) < 5
    assert abs(chi_square(drawn())) < 5


@pytest.mark.parametrize("name", PAIRS)
def test_neighbours_have_nothing_in_common(name: str):
    """1200 bits are looked at in all, of which one in 1.7 million is beyond five deviations."""
    assert worst_bit(PAIRS[name](drawn)) < 5


@pytest.mark.parametrize("name", PAIRS)
def test_the_statistics_find_a_counter(name: str):
    """One multiplication of the index, which spreads over all words but mixes nothing."""

    def counted(number: int = 0) -> np.ndarray:
        index = np.arange(ROWS * COLUMNS, dtype=np.uint32) + np.uint32(number * 2**16)
        return (index * np.uint32(0x9E3779B9)).reshape(ROWS, COLUMNS)

    assert worst_bit(PAIRS[name](counted)) > 20


def test_products_of_neighbours_have_no_mean():
    """Sixteen bits as a number: what stochastic rounding takes."""
    x = (drawn() >> np.uint32(16)).astype(np.float64) / 2**16 - 0.5 + 2.0**-17
    deviation = 5 / 12 / np.sqrt(x.size)
    assert abs(x.mean()) < 5 / np.sqrt(12 * x.size)
    for other in (np.roll(x, 1, 0), np.roll(x, 1, 1), np.roll(x, 1, (0, 1))):
        assert abs(np.mean(x * other)) < deviation


def test_every_axis_counts(x64):
    """All entries of small arrays of any shape are different, for 2^32 words."""
    for shape in [(), (7,), (2, 2, 3, 5)]:
        found = np.asarray(jax.jit(lambda shape=shape: hashed(shape, words(3)))())
        assert found.shape == shape
        assert found.dtype == np.uint32
        assert len(np.unique(found)) == found.size
