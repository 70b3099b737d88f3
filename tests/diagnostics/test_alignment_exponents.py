"""Exponents are slopes, with Student's t interval over the seeds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import scalex_eqx as sx
from scalex_eqx.diagnostics import MeasuredAlignments, alignment, alignment_exponents
from scalex_eqx.diagnostics._capture import NotFollowed
from scalex_eqx.diagnostics._exponent import fit_exponent

WIDTHS = (64, 128, 512)


def sizes(exponents: list[float]) -> list[list[float]]:
    """Exact powers of the width, with another constant for each seed."""
    return [[3.0**i * width**p for i, p in enumerate(exponents)] for width in WIDTHS]


def test_slopes_of_exact_powers():
    fit = fit_exponent(WIDTHS, sizes([0.25, 0.5, 1.0]))
    assert fit is not None
    assert fit.by_seed == pytest.approx((0.25, 0.5, 1.0), abs=1e-12)
    assert fit.value == pytest.approx(1.75 / 3, abs=1e-12)


@pytest.mark.parametrize("level", [0.9, 0.99])
def test_the_interval_is_students(level: float):
    values = [0.25, 0.5, 1.0, 0.4]
    fit = fit_exponent(WIDTHS, sizes(values), level)
    expected = stats.t.interval(level, 3, np.mean(values), stats.sem(values))
    assert fit is not None
    assert fit.interval == pytest.approx(expected, rel=1e-9)


def test_no_interval_for_one_seed_and_no_fit_without_a_size():
    fit = fit_exponent(WIDTHS, sizes([0.5]))
    assert fit is not None and fit.interval is None
    assert str(fit) == "+0.50"
    for bad in (0.0, np.nan, np.inf):
        broken = sizes([0.5, 0.5])
        broken[1][0] = bad
        assert fit_exponent(WIDTHS, broken) is None


def measured(width: int, name: str = "w") -> MeasuredAlignments:
    spec = sx.WeightSpec((-1,), (-2,), role=sx.Role.hidden)
    initial, model = ({name: sx.Weight(jnp.full((2, width), c), spec)} for c in (1.0, 2.0))
    x = jnp.ones((1, width))

    def apply(model, x):
        return x @ sx.effective(model[name]).T

    return jax.jit(functools.partial(alignment, apply))(initial, model, x)


def test_what_was_measured_must_match():
    four, eight = measured(4), measured(8)
    alpha = alignment_exponents({4: [four], 8: [eight]})["w"].alpha
    assert alpha is not None and alpha.value == pytest.approx(1)
    with pytest.raises(ValueError, match="at least two"):
        alignment_exponents({4: [four]})
    with pytest.raises(ValueError, match="same seeds at every width"):
        alignment_exponents({4: [four], 8: [eight, eight]})
    with pytest.raises(ValueError, match="not measured at every width and seed: v, w"):
        alignment_exponents({4: [four], 8: [measured(8, "v")]})


def test_a_weight_that_was_not_followed_is_there_without_exponents():
    def both(width: int) -> MeasuredAlignments:
        one = measured(width)
        lost = (NotFollowed("v", "is not used"), NotFollowed("w", "leaves a branch of cond"))
        return MeasuredAlignments(one.uses, lost, one.order)

    found = alignment_exponents({width: [both(width)] for width in (4, 8)})
    assert found["v"] == (None, None, None, None)
    assert found["w"].alpha is not None
