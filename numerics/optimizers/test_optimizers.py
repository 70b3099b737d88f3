"""What every rule does against what is expected of it, and controls that must be found faulty."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from numerics.optimizers import oracles, stall
from numerics.optimizers.measure import EXPECTATIONS, PLAIN, VERDICTS, cases, stressed
from numerics.reference.update_rules import ORACLES, adam_atan2, last_update
from scalex_eqx.diagnostics import Table

# Noisy gradients whose formula is followed: 2^-104 leaves the smallest of 20 x 16384 normal
# numbers, about 2^-18, above the smallest normal number of float32, 2^-126; the largest, 2^2.3,
# has a square that does not overflow at 2^56.
_CLEAR = range(-104, 57)
# Rounding in 20 steps: 2^-24 each, in several sums and products. With
# bfloat16 moments, rounded in each step to 2^-9, halved by the square root.
_FLOAT32, _BFLOAT16 = 2.0**-18, 2.0**-6


@pytest.fixture(scope="session")
def tables(measured: Callable[[str], dict[str, Table]]) -> dict[str, Table]:
    return measured("optimizers")


def test_expectations(tables):
    failed = [row for row in tables[EXPECTATIONS].rows if not row["holds"]]
    assert not failed, failed


def test_everything_was_measured(tables, thorough):
    assert len(tables[VERDICTS].rows) == len(cases(thorough))


@pytest.mark.parametrize("name", ORACLES)
def test_the_rules_follow_numpy(tables, name):
    tolerance = _BFLOAT16 if name.endswith("bfloat16") else _FLOAT32
    for row in tables[oracles.NAME].rows:
        if row["gradient"] == "noisy" and row["exponent"] in _CLEAR:
            if row["exponent"] < _FIRST_CLEAR.get(name, -104):
                continue
            assert row[name] <= tolerance, (name, row["exponent"])


# The second moments of the smaller entries underflow from 2^-48 on: a share of 2^-18 of
# an epsilon of 2^-40, but more of smaller ones, and 1e-30 itself is raised to 2^-58.
_FIRST_CLEAR = {"adam-1e-15": -48, "adam-1e-30": -36}


def test_scale_invariant_rules_follow_numpy_up_to_overflow(tables):
    for row in tables[oracles.NAME].rows:
        if row["gradient"] == "noisy" and row["exponent"] >= -104:
            assert row["adam_atan2"] <= _FLOAT32 and row["adafactor"] <= _FLOAT32


def test_an_oracle_tells_rules_apart():
    # Control: other moments, and an epsilon, are seen.
    gradients = [oracles.gradients("noisy", 0)] * 3
    ideal = last_update(adam_atan2(), gradients)
    other = last_update(ORACLES["adam"](oracles.weights()), gradients)
    assert oracles.relative(other, ideal) < 1e-6  # Equal gradients: u = 1 for both,
    gradients = [oracles.gradients("noisy", k) for k in (0, -1, 1)]
    ideal = last_update(adam_atan2(), gradients)
    other = last_update(ORACLES["adam"](oracles.weights()), gradients)
    assert oracles.relative(other, ideal) > 0.01  # and here they are not.


def test_full_strength_within_one_percent_of_the_known_bands():
    # For a constant gradient 1 / (1 + eps / g) is 0.99 at 99 eps: 2^-19.95 and 2^-43.2.
    for name, low in (("adam-1e-8", -19), ("adam-1e-15", -43)):
        result = stressed(name, "constant", "float32", "float32")
        kept = {s.exponent for s in result.scales if abs(s.strength - 1) <= 0.01}
        assert min(kept) == low and max(kept) == 63


def test_the_root_form_keeps_its_strength_over_the_whole_range():
    result = stressed("adam_atan2", "constant", "float32", "float32")
    assert result.safe is not None and result.safe.low <= -122 and result.safe.high == 127
    assert result.exact == result.safe and result.largest < 1 + 2.0**-20


@pytest.mark.parametrize("kind", ["constant", "noisy"])
def test_plain_atan2_is_found_to_saturate_and_to_hide_an_infinity(kind):
    result = stressed(PLAIN, kind, "float32", "float32")
    # (1 - b2) g^2 underflows at 2^-58, at 2^-69.5 where subnormal numbers are kept.
    assert result.full is not None and -75 <= result.full.low <= -52
    assert result.below.startswith("saturates")
    if kind == "constant":
        # m / 0: the angle is pi / 2, times 4 / pi.
        assert result.largest == pytest.approx(2.0, rel=1e-5)
    assert result.infinity == "hidden"


@pytest.mark.parametrize("kind", ["constant", "noisy"])
def test_a_tiny_epsilon_is_found_to_explode(kind):
    result = stressed("optax.adam-1e-30", kind, "float32", "float32")
    assert result.below.startswith("explodes") and result.largest > 2.0**20
    clamped = stressed("adam-1e-30", "noisy", "float32", "float32")
    assert clamped.excess < 1.01


def test_a_bfloat16_second_moment_is_found_to_stall(tables):
    found = tables[stall.NAME].by_key()
    # After 3000 steps the formula has forgotten all but exp(-3) of what was: 2^16 / 20 + 1 would
    # be 3000 times too large at first; bfloat16 stops where (1 - b2) v is half a unit, 2^-9 v.
    for name in ("adam-bfloat16", "adam_atan2-bfloat16", "optax.adam, bfloat16 weights"):
        row = found[name, 0.999]
        assert row["second moment"] > 5 and row["update"] < 0.5, row
    for key in (("adam", 0.999), ("adam_atan2", 0.999), ("adam-bfloat16, b2 0.95", 0.95)):
        row = found[key]
        assert row["second moment"] == pytest.approx(1, abs=0.05), row
        assert row["update"] == pytest.approx(1, abs=0.05), row


def test_the_verdicts_are_numbers_and_words(tables):
    for row in tables[VERDICTS].rows:
        assert row["below"] and row["above"] and not math.isnan(float(row["largest"]))
        assert np.isfinite(row["deviation"]) or row["safe_low"] is None


@pytest.mark.stress
@pytest.mark.parametrize("kind", oracles.KINDS)
def test_dropping_gradients_follow_numpy(tables, kind):
    # 2^-96: eight octaves above what is clear for gradients that do not drop.
    for row in tables[oracles.NAME].rows:
        if row["gradient"] == kind and -96 <= row["exponent"] <= 56:
            assert row["adam_atan2"] <= _FLOAT32 and row["adam"] <= _FLOAT32
