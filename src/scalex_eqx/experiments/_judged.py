r"""Whether what somebody else found holds here: a claim against intervals over seeds.

A claim is one or several statements about means, each that a mean lies between two bounds, with a
strict sign where one bound is 0: a difference of exactly nothing is no difference.

- It *holds here* if every statement's interval lies inside its bounds. At level 0.9 a statement
  that is false by a hair passes one time in twenty, and all pass no more often than one does.
- It *doesn't hold here* if any statement's interval lies outside. Of k statements each has the
  level $1 - 0.1 / k$, so that a claim of which all is true by a hair is denied one time in twenty
  at most.
- Otherwise it *can't be told*, as with fewer than three seeds, or a minimum at the grid's edge.
"""

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ._drift import LEVEL, SEEDS_FOR_A_VERDICT, Interval, t_interval

_ABSENT = "is not in this grid"


class Answer(enum.StrEnum):
    """Whether a claim holds."""

    HOLDS = "holds here"
    DENIED = "doesn't hold here"
    CANNOT_TELL = "can't be told"


@dataclass(frozen=True)
class Outcome:
    """What became of a recipe, by seed.

    **Arguments:**

    - `exponents`: of the drift; empty if `no_exponents` says why there are none.
    - `losses`: the lowest at the largest width; empty if `no_losses` says why.
    """

    recipe: str
    exponents: Mapping[int, float]
    losses: Mapping[int, float]
    no_exponents: str = ""
    no_losses: str = ""


@dataclass(frozen=True)
class Statement:
    """That a mean lies between two bounds; by default, that it is negative.

    **Arguments:**

    - `of`: the drift exponent, or the loss at the largest width.
    - `first`: the recipe whose it is.
    - `second`: the recipe whose is taken from it, seed by seed, if any.
    - `low`, `high`: the bounds.
    """

    of: Literal["exponent", "loss"]
    first: str
    second: str | None = None
    low: float = -math.inf
    high: float = 0.0


@dataclass(frozen=True)
class Claim:
    """What was claimed.

    **Arguments:**

    - `text`: in words.
    - `published`: where, and with which numbers, in the order of the statements.
    - `statements`: all of which it takes.
    """

    text: str
    published: str
    statements: tuple[Statement, ...]


@dataclass(frozen=True)
class Judged:
    """The answer to a claim.

    **Arguments:**

    - `means`: of the statements, each with its interval at level 0.9, or `None` where there are
        none.
    - `reason`: why it can't be told, or "".
    """

    claim: Claim
    answer: Answer
    means: tuple[tuple[float, Interval] | None, ...]
    reason: str


def judge_claim(claim: Claim, outcomes: Mapping[str, Outcome]) -> Judged:
    """The answer to a claim from what became of the recipes."""
    found = [values_of(one, outcomes) for one in claim.statements]
    strict = 1 - (1 - LEVEL) / len(claim.statements)
    means: list[tuple[float, Interval] | None] = []
    holds, denied = [], []
    for statement, values in zip(claim.statements, found, strict=True):
        if isinstance(values, str):
            means.append(None)
            holds.append(False)
            continue
        low, high = _interval(values, LEVEL)
        means.append((float(np.mean(values)), (low, high)))
        holds.append(statement.low < low and high < statement.high)
        low, high = _interval(values, strict)
        denied.append(high <= statement.low or statement.high <= low)
    if all(holds):
        return Judged(claim, Answer.HOLDS, tuple(means), "")
    if any(denied):
        return Judged(claim, Answer.DENIED, tuple(means), "")
    # What was never asked for comes before what more runs would tell.
    reasons = sorted((x for x in found if isinstance(x, str)), key=lambda x: _ABSENT not in x)
    reason = reasons[0] if reasons else "the seeds scatter too much; more --seeds narrow it"
    return Judged(claim, Answer.CANNOT_TELL, tuple(means), reason)


def values_of(statement: Statement, outcomes: Mapping[str, Outcome]) -> Sequence[float] | str:
    """The values by seed that a statement is about, or why there are too few."""
    names = [one for one in (statement.first, statement.second) if one is not None]
    found: list[Mapping[int, float]] = []
    for name in names:
        if name not in outcomes:
            return f"{name} {_ABSENT}"
        outcome = outcomes[name]
        values = outcome.exponents if statement.of == "exponent" else outcome.losses
        if not values:
            reason = outcome.no_exponents if statement.of == "exponent" else outcome.no_losses
            return f"{name}: {reason}"
        found.append(values)
    seeds = sorted(set(found[0]).intersection(*found))
    if len(seeds) < SEEDS_FOR_A_VERDICT:
        return f"{len(seeds)} seeds only; at least {SEEDS_FOR_A_VERDICT} --seeds are needed"
    if len(found) == 1:
        return [found[0][seed] for seed in seeds]
    return [found[0][seed] - found[1][seed] for seed in seeds]


def _interval(values: Sequence[float], level: float) -> Interval:
    interval = t_interval(values, level)
    assert interval is not None, "there are seeds enough"
    return interval
