"""Moving means against exact fractions and double precision."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalex_eqx import ops

ULP = 2.0**-24
RNG = np.random.default_rng(0)
A, B = (RNG.normal(size=(2, 512)) * np.exp(3 * RNG.normal(size=(2, 512)))).astype(np.float32)
STEPS = (0.0, 1e-5, 0.001, 0.1, 0.5, 0.75, 0.999, 1.0)


@pytest.mark.parametrize("exponent", [-126, -125, -1, 0, 1, 100, 126])
def test_powers_of_two(exponent: int):
    for mantissa in (1.0, 1.5, 1.9999999):
        x = jnp.asarray([mantissa * 2.0**exponent, -mantissa * 2.0**exponent], jnp.float32)
        power = ops.power_of_two(x)
        np.testing.assert_array_equal(power, np.float32(2.0**exponent))
        np.testing.assert_array_equal(ops.inverse_power_of_two(power), np.float32(2.0**-exponent))


@pytest.mark.parametrize(
    ("x", "exponent"),
    [(0.0, -126), (1e-45, -126), (3e38, 126), (np.inf, 126), (np.nan, 126)],
)
def test_powers_of_two_at_the_limits(x: float, exponent: int):
    power = ops.power_of_two(jnp.float32(x))
    assert float(power) == 2.0**exponent
    assert np.isfinite(x) == np.isfinite(jnp.float32(x) * ops.inverse_power_of_two(power))


def test_powers_of_two_in_double_precision(x64):
    x = jnp.asarray([5e-324, 3.0, 1e300, np.inf])
    power = ops.power_of_two(x)
    expected = [2.0**-1022, 2.0, 2.0 ** np.floor(np.log2(1e300)), 2.0**1022]
    np.testing.assert_array_equal(power, expected)
    np.testing.assert_array_equal(ops.inverse_power_of_two(power), 1 / np.asarray(expected))


def test_the_largest_of_several_numbers_counts():
    powers = ops.power_of_two(jnp.asarray([1.0, -8.5, 3.0]), jnp.asarray([-4.5, 1.0, 2.5]))
    assert powers.tolist() == [4.0, 8.0, 2.0]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("traced", [False, True])
def test_towards(step: float, traced: bool):
    a, b = jnp.asarray(A), jnp.asarray(B)
    found = jax.jit(ops.towards)(a, b, jnp.float32(step)) if traced else ops.towards(a, b, step)
    s = float(np.float32(step)) if traced else step
    exact = (1 - s) * A.astype(np.float64) + s * B.astype(np.float64)
    size = np.maximum(np.abs(A), np.abs(B))
    np.testing.assert_array_less(np.abs(np.asarray(found, np.float64) - exact), 4 * ULP * size)


@pytest.mark.parametrize("start", [0.0, 1e30])
def test_the_whole_way_is_exact(start: float):
    for step in (1.0, jnp.float32(1)):
        assert float(ops.towards(jnp.float32(start), jnp.float32(1e-5), step)) == np.float32(1e-5)


def test_what_stays_does_not_drift():
    """The two weights of a mean add up to 1: those of the usual form are off by 0.3 %."""
    beta, x = 0.99999, jnp.float32(0.3)
    assert float(ops.towards(x, x, 1 - beta)) == x
    weights = Fraction(float(np.float32(beta))) + Fraction(float(np.float32(1 - beta)))
    assert abs(weights - 1) > Fraction(1, 1000) * Fraction(1 - beta)


@pytest.mark.parametrize("step", STEPS)
def test_moving_mean(step: float):
    found = jax.jit(ops.moving_mean)(A, B, jnp.float32(step))
    s = float(np.float32(step))
    exact = (1 - s) * A.astype(np.float64) + s * B.astype(np.float64)
    size = np.maximum(np.abs(A), np.abs(B))
    np.testing.assert_array_less(np.abs(np.asarray(found, np.float64) - exact), 4 * ULP * size)


@pytest.mark.parametrize("step", STEPS)
def test_moving_root_mean_square(step: float):
    found = jax.jit(ops.moving_root_mean_square)(np.abs(A), B, jnp.float32(step))
    s = float(np.float32(step))
    exact = np.sqrt((1 - s) * A.astype(np.float64) ** 2 + s * B.astype(np.float64) ** 2)
    # The square's error is that of the larger; its root's is half of it over the root.
    size = np.maximum(A.astype(np.float64) ** 2, B.astype(np.float64) ** 2)
    allowed = 4 * ULP * np.maximum(exact, size / np.maximum(exact, 1e-30))
    np.testing.assert_array_less(np.abs(np.asarray(found, np.float64) - exact), allowed)


@pytest.mark.parametrize("power", [-110, -60, 60, 110])
@pytest.mark.parametrize("f", [ops.moving_mean, ops.moving_root_mean_square])
def test_units_change_no_bit(f, power: int):
    start, end = np.abs(RNG.normal(size=(2, 1024))).astype(np.float32)
    run, scale = jax.jit(f), np.float32(2.0**power)
    step = jnp.float32(0.001)
    scaled = np.asarray(run(start * scale, end * scale, step))
    assert scaled.tobytes() == (np.asarray(run(start, end, step)) * scale).tobytes()


def test_squares_would_be_lost():
    x = jnp.full((1,), 1e-25)
    assert float(ops.moving_root_mean_square(x, x, jnp.float32(0.1))[0]) == pytest.approx(1e-25)
    plain = jax.jit(lambda r: jnp.sqrt(0.9 * jnp.square(r) + 0.1 * jnp.square(r)))
    assert float(plain(x)[0]) == 0


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_stays_so(bad: float):
    zero, step = jnp.zeros(1), jnp.float32(0.1)
    mean = ops.moving_mean(zero, jnp.full(1, bad), step)
    root = ops.moving_root_mean_square(zero, jnp.full(1, bad), step)
    assert not np.isfinite(mean).any() and not np.isfinite(root).any()
    assert not np.isfinite(ops.moving_mean(mean, zero, step)).any()
    assert not np.isfinite(ops.moving_root_mean_square(root, zero, step)).any()
