"""The arc tangent against NumPy's in double precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalex_eqx import ops
from scalex_eqx.ops._atan2 import _COEFFICIENTS

from ._fit import coefficients

INF, NAN = np.inf, np.nan
MOST_ULP = 3.0
# Near the limits of the normal numbers, and between.
EXPONENTS = (-100, -60, -1, 0, 1, 60, 125)
atan2 = jax.jit(ops.atan2)


def ulps(found, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    exact = np.arctan2(y.astype(np.float64), x.astype(np.float64))
    spacing = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
    return np.abs(np.asarray(found, np.float64) - exact) / spacing


def test_the_coefficients_are_those_of_the_fit():
    """But for one rounding: with an arc tangent that is wrong by up to 2^-53 of itself, as that of
    another processor may be, the two highest came out as a neighbour in 64 of 300 draws.
    """
    used = np.asarray(_COEFFICIENTS, np.float32)
    assert np.all(np.abs(coefficients(len(used)) - used) <= np.spacing(np.abs(used)))
    assert np.max(np.abs(coefficients(8)[:4] - used[:4])) > 1e-6


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_angles_all_around(exponent: int):
    angle = np.linspace(-np.pi / 2, np.pi / 2, 400_001)[1:-1]
    y = np.ldexp(np.sin(angle), exponent).astype(np.float32)
    x = np.ldexp(np.cos(angle), exponent).astype(np.float32)
    assert np.max(ulps(atan2(y, x), y, x)) <= MOST_ULP


def test_every_ratio_of_two_neighbouring_octaves():
    """All float32 numbers from 1/2 to 1, and as many up to 2, over 1: 25 million would be all."""
    y = np.concatenate(
        [
            np.arange(start, start + (1 << 23), 16, dtype=np.int32).view(np.float32)
            for start in (0x3F000000, 0x3F800000)
        ]
    )
    x = np.ones_like(y)
    assert y.min() == 0.5 and y.max() < 2
    assert np.max(ulps(atan2(y, x), y, x)) <= MOST_ULP


def test_ratios_of_all_sizes():
    rng = np.random.default_rng(0)
    y = np.exp2(rng.uniform(-120, 120, 200_000)).astype(np.float32)
    x = np.exp2(rng.uniform(-120, 120, 200_000)).astype(np.float32)
    normal = np.arctan2(y.astype(np.float64), x) > np.finfo(np.float32).tiny
    assert normal.mean() > 0.7
    assert np.max(ulps(atan2(y, x), y, x)[normal]) <= MOST_ULP


def test_the_bound_would_show_one_coefficient_less():
    angle = np.linspace(0, np.pi / 4, 100_001)[1:]
    q = np.tan(angle).astype(np.float32).astype(np.float64)
    short = q + q**3 * np.polynomial.polynomial.polyval(q**2, _COEFFICIENTS[:-1])
    assert np.max(ulps(short, q, np.ones_like(q))) > 100


@pytest.mark.parametrize(
    ("y", "x", "expected"),
    [
        (0.0, 0.0, 0.0),
        (1.0, 0.0, np.pi / 2),
        (-1.0, 0.0, -np.pi / 2),
        (1.0, INF, 0.0),
        (INF, 1.0, np.pi / 2),
        (-INF, 1.0, -np.pi / 2),
        (INF, 0.0, np.pi / 2),
        (INF, INF, NAN),
        (-INF, INF, NAN),
        (NAN, 1.0, NAN),
        (1.0, NAN, NAN),
        (NAN, INF, NAN),
        (3e38, 3e38, np.pi / 4),
        (1.5e-38, 1.5e-38, np.pi / 4),
        # Subnormal numbers are zero on the CPU.
        (1e-40, 0.0, 0.0),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_corners(y: float, x: float, expected: float, dtype: str, x64):
    found = atan2(jnp.asarray(y, dtype), jnp.asarray(x, dtype))
    if dtype == "float64" and y == 1e-40:
        expected = np.pi / 2
    np.testing.assert_allclose(found, expected, rtol=2.0**-23)


def test_the_sign_of_zero_stays():
    assert np.signbit(atan2(jnp.float32(-0.0), jnp.float32(1)))
    assert not np.signbit(atan2(jnp.float32(0.0), jnp.float32(1)))


@pytest.mark.parametrize("power", [-90, -1, 1, 90])
def test_a_power_of_two_changes_no_bit(power: int):
    rng = np.random.default_rng(1)
    y, x = rng.normal(size=(2, 4096)).astype(np.float32)
    scale = np.float32(2.0**power)
    same = atan2(y, np.abs(x))
    assert np.asarray(atan2(y * scale, np.abs(x) * scale)).tobytes() == np.asarray(same).tobytes()
    assert np.asarray(atan2(y * 3, np.abs(x) * 3)).tobytes() != np.asarray(same).tobytes()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_the_dtype_stays(dtype: str, x64):
    found = atan2(jnp.asarray([0.5], dtype), jnp.asarray([0.25], dtype))
    assert found.dtype == jnp.dtype(dtype)
    ulp = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.asarray(found, np.float64), np.arctan(2.0), rtol=2 * ulp)


@pytest.mark.parametrize(("y", "x"), [(0.3, 2.0), (-2.0, 0.3), (1.0, 1.0), (1e-30, 2e-30)])
def test_its_derivative(y: float, x: float):
    dy, dx = jax.grad(ops.atan2, argnums=(0, 1))(jnp.float32(y), jnp.float32(x))
    square = x * x + y * y
    np.testing.assert_allclose([dy, dx], [x / square, -y / square], rtol=1e-6)
