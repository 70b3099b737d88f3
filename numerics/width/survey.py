"""What is measured at every place: sizes of gradients, and the part of an update that is left."""

import functools
import math
from typing import NamedTuple

import numpy as np

from numerics.width import rounding, strength
from numerics.width.gradients import MATRICES, SEEDS, Place, Seen, at, places, seen

# The raised epsilon takes 10 % of a hidden weight's update at so many base widths if its gradient
# falls as 1 / width: at some width in reach for exponents 1/2, 1 and 3/2.
_RAISED = 1.7
ALL = "all"


class Summary(NamedTuple):
    """What was found at a place.

    - `rms`: the gradient's root mean square, by role and path; `ALL` for all of the role.
    - `value_rms`: the weight's.
    - `parts`: what is left of an update under the raised epsilon, by role and rule.
    - `arriving`: the part of a step that arrives in bfloat16, by role and learning rate.
    - `drawn`: how the weights were drawn, from which that follows, by role.
    """

    rms: dict[tuple[str, str], float]
    value_rms: dict[tuple[str, str], float]
    parts: dict[tuple[str, str], float]
    arriving: dict[tuple[str, float], float]
    drawn: dict[str, list[rounding.Drawn]]


class Base(NamedTuple):
    """The base model's gradients of a seed, by role."""

    moments: dict[str, strength.Moments]
    tenth: dict[str, float]


class Survey(NamedTuple):
    """All places by themselves, each seed's base model, and the epsilon that was raised."""

    widths: tuple[int, ...]
    steps: int
    raised: float
    base: list[Base]
    summaries: dict[Place, Summary]

    def summary(self, parameterization: str, width: int, seed: int) -> Summary:
        return self.summaries[at(Place(parameterization, width, seed, self.steps))]


@functools.cache
def survey(widths: tuple[int, ...], steps: int) -> Survey:
    """Goes through all places, each model made once."""
    base = [_base(place) for place in places(widths[:1], steps)]
    hidden = [one.tenth["hidden"] for one in base]
    raised = math.exp(np.log(hidden).mean()) / _RAISED
    summaries = {place: _summary(seen(place), raised, steps) for place in places(widths, steps)}
    return Survey(widths, steps, raised, base, summaries)


def _base(place: Place) -> Base:
    roles = strength.by_role(seen(place))
    moments = {name: strength.moments(role.gradients) for name, role in roles.items()}
    tenth = {name: strength.epsilon_that_takes_a_tenth(found) for name, found in moments.items()}
    return Base(moments, tenth)


def _summary(weights: dict[str, Seen], raised: float, steps: int) -> Summary:
    roles = strength.by_role(weights)
    rms = {(str(w.spec.role), path): _rms(w.gradients) for path, w in weights.items()}
    value_rms = {(str(w.spec.role), path): _rms(w.value) for path, w in weights.items()}
    return Summary(
        rms | {(name, ALL): _rms(role.gradients) for name, role in roles.items()},
        value_rms,
        strength.parts(roles, raised),
        {} if steps else rounding.arriving(roles, "bfloat16"),
        {} if steps else {role: rounding.drawn(weights, role) for role in MATRICES},
    )


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def measured_part(found: Survey, parameterization: str, role: str, rule: str) -> np.ndarray:
    """Axes width and seed."""
    return np.array(
        [
            [found.summary(parameterization, width, seed).parts[role, rule] for seed in SEEDS]
            for width in found.widths
        ]
    )


def sizes(found: Survey, parameterization: str, role: str, path: str) -> np.ndarray:
    """Of the gradients, axes width and seed."""
    return np.array(
        [
            [found.summary(parameterization, width, seed).rms[role, path] for seed in SEEDS]
            for width in found.widths
        ]
    )
