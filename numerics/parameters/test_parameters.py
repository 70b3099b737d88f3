"""How much of many small updates arrives, against exact sums and NumPy's roundings."""

from collections.abc import Callable

import numpy as np
import pytest

from numerics.parameters import drift
from numerics.parameters.measure import COLUMNS, RECOVERED
from numerics.reference import rounding
from scalex_eqx.diagnostics import Table


@pytest.fixture(scope="session")
def rows(measured: Callable[[str], dict[str, Table]]) -> dict[tuple, dict]:
    return measured("parameters")[RECOVERED].by_key()  # pyright: ignore


def _tolerance(form: str, size: float) -> float:
    """What the last rounding to bfloat16 leaves, relative to the movement of 1000 sizes.

    Half a unit in the last place of a weight of 0.02 is 2^-15 = 3e-5, in the mean over 65536
    weights hardly more than 1e-5 at the few exponents there are, and 1000 sizes are 1e-3 at least.
    Random roundings add up, in the mean over all weights, to half a unit x sqrt(1000 / 65536).
    """
    once = 2e-5 / (drift.STEPS * size)
    return 0.005 + once + (4 * 4e-6 / (drift.STEPS * size) if form == "stochastic" else 0.0)


@pytest.mark.parametrize("form", ["master", "kahan", "stochastic"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_everything_arrives(rows, form, dtype):
    if (dtype, form) not in rows:
        pytest.skip("takes long: run with --stress")
    for column, size in zip(COLUMNS, drift.SIZES, strict=True):
        assert rows[dtype, form][column] == pytest.approx(1, abs=_tolerance(form, size)), column


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_to_nearest_is_found_to_lose_updates(rows, dtype):
    found = [rows[dtype, "round to nearest"][column] for column in COLUMNS]
    if dtype == "bfloat16":
        # The part of weights below which an update is more than half a unit in the last place:
        # |w| < 2^8 u, up to its binade's end; at 1e-6 erf-like 2^8 x 1e-6 / 0.02 = 1 %.
        assert found == pytest.approx([0.276, 0.060, 0.009], rel=0.2)
    assert found[-1] < 0.5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_to_nearest_is_numpys(dtype):
    first = drift.start(dtype)
    for found, size in zip(drift.moved("round to nearest", dtype), drift.SIZES, strict=True):
        expected = rounding.nearest(first[:64], size, drift.STEPS)
        np.testing.assert_array_equal(found[:64], expected.astype(np.float64))


def test_naive_compensation_is_either_kept_or_deleted(rows, device):
    row = rows["bfloat16", "naive kahan"]
    kept = row[COLUMNS[0]] == pytest.approx(1, abs=0.01)
    deleted = row[COLUMNS[0]] == pytest.approx(rows["bfloat16", "round to nearest"][COLUMNS[0]])
    assert kept or deleted
    if device.device.platform == "cpu":
        assert kept
