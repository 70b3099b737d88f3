"""What a rule does where there is nothing to follow: no gradient, or a weight of zero."""

import numpy as np

from ._moved import Drift, Moved, root_mean_square

_ALIKE = 2.0

USUAL = "as usual"


def zero_first(moved: Moved, leaf: str) -> str:
    """What it does after a first gradient of zero, as a readout of zero gives to all before it."""
    key = ("zero first", 0)
    after, usual = (moved.steps(x, leaf)[1:] for x in (key, ("all", 0.0)))
    # A weight that has become NaN stays so, whatever is added to it.
    if not np.isfinite(moved.found.weights[leaf][moved.places[key]]).all():
        return "NaN for good"
    if not np.isfinite(after).all():
        return "NaN"
    if not usual.any():
        return USUAL
    if not after.any():
        return "never moves"
    largest = [max(root_mean_square(x) for x in steps) for steps in (after, usual)]
    times = largest[0] / largest[1]
    return USUAL if 1 / _ALIKE < times < _ALIKE else f"up to {times:.2g} times as far in a step"


def zero_weight(moved: Moved, leaf: str) -> str:
    """How far it moves a weight that starts at zero, beside one that doesn't."""
    key, usual = ("zero weight", leaf), ("all", 0.0)
    steps = moved.steps(key, leaf)
    if not np.isfinite(steps).all():
        return "NaN"
    if not steps.any():
        return "never moves"
    first, other = root_mean_square(moved.first(key, leaf)), moved.first(usual, leaf)
    times = first / root_mean_square(other) if other.any() else np.nan
    if not np.isfinite(times) or 1 / _ALIKE < times < _ALIKE:
        return USUAL
    if times == 0:
        return "doesn't move at first"
    return f"{times:.2g} times as far at first"


def without_gradient(drift: Drift) -> str:
    """What it does to weights without gradients, in float32."""
    if drift.kind == "nothing":
        return "nothing"
    if drift.kind == "decay":
        return f"takes {drift.decay:.2g} of the weight off in the first step"
    if drift.kind == "constant":
        return "moves them, whatever they are"
    return "makes them NaN" if drift.kind == "not finite" else "moves them"


def wander(updates: np.ndarray, weights: np.ndarray) -> float:
    """How far a run without gradients has come in all, relative to the weight."""
    with np.errstate(invalid="ignore", over="ignore"):
        gone = weights[-1] + updates[-1] - weights[0]
    return root_mean_square(gone) / root_mean_square(weights[0])
