"""From runs to verdicts: how fast the best learning rate drifts, and what reusing it costs."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._axes import AXES, WIDTH, Axis
from ._drift import (
    LEVEL as LEVEL,
    MARGIN as MARGIN,
    Drift as Drift,
    Interval,
    Verdict as Verdict,
    describe_exponent as describe_exponent,
    fit_drift as fit_drift,
    judge as judge,
    t_interval as t_interval,
)
from ._optimum import Optimum as Optimum, cost_at, fit_optimum as fit_optimum
from ._useful import Useful, unknown, useful

STEEP_ABOVE = "steep above: biased low"


@dataclasses.dataclass(frozen=True)
class Run:
    """One trained model, of a size on the sweep's axis.

    A held-out loss of `None` (or a non-finite one) means that it diverged.
    """

    recipe: str
    size: int
    learning_rate: float
    seed: int
    held_out_loss: float | None

    @staticmethod
    def from_json(fields: Mapping[str, Any]) -> "Run":
        """The run of a line in a report's `results.json`, whatever the axis."""
        return Run(**{"size" if name in AXES else name: x for name, x in fields.items()})


@dataclasses.dataclass(frozen=True)
class ReuseCost:
    """What the small size's best learning rate costs at the large one, in nats."""

    small: int
    large: int
    cost: float | None
    interval: Interval | None
    by_seed: tuple[tuple[int, float], ...]
    reason: str


@dataclasses.dataclass(frozen=True)
class SizeSummary:
    """The optima of one size: means over seeds, and standard deviations (`None` for one)."""

    size: int
    log2_learning_rate: float | None
    log2_spread: float | None
    loss: float | None
    loss_spread: float | None
    flags: tuple[str, ...]
    by_seed: tuple[tuple[int, Optimum], ...]


@dataclasses.dataclass(frozen=True)
class Searched:
    """What a verdict cost that was searched for.

    **Arguments:**

    - `looks`, `most_looks`: at the interval, and what its level allows for.
    - `runs`: that were made.
    - `share`: of their work in that of the sweep's grid.
    """

    looks: int
    most_looks: int
    runs: int
    share: float


@dataclasses.dataclass(frozen=True)
class RecipeAnalysis:
    """Everything that the report says about one recipe."""

    recipe: str
    verdict: str
    sentence: str
    seeds: tuple[int, ...]
    sizes: tuple[SizeSummary, ...]
    drift: Drift
    reuse: ReuseCost
    best_loss: float | None
    best_loss_spread: float | None
    searched: Searched | None = None
    useful: Useful | None = None
    axis: Axis = WIDTH


Curves = Mapping[tuple[int, int], Sequence[Run]]  # by size and seed
Optima = Mapping[tuple[int, int], Optimum]


def reuse_cost(
    sizes: Sequence[int],
    curves: Curves,
    optima: Optima,
    level: float = LEVEL,
    axis: Axis = WIDTH,
) -> ReuseCost:
    r"""$L_s(n, \eta^*_s(m)) - L_s(n, \eta^*_s(n))$, m the smallest and n the largest size.

    Taken for each seed s on its own curve, interpolated by `cost_at`, and so never
    negative: noise leaves a small positive cost even where nothing drifts. One seed without a
    cost leaves the whole without one: a mean over the runs that survived would flatter.
    """
    small, large = min(sizes), max(sizes)
    if small == large:
        return ReuseCost(small, large, None, None, (), f"unknown: there is one {axis.noun} only")
    costs: dict[int, float] = {}
    for seed in sorted({seed for _, seed in curves}):
        cost = _seed_cost(curves[large, seed], optima[small, seed], optima[large, seed], axis.noun)
        if isinstance(cost, str):
            reason = f"{cost} (seed {seed})"
            return ReuseCost(small, large, None, None, tuple(costs.items()), reason)
        costs[seed] = cost
    values = tuple(costs.values())
    interval = t_interval(values, level)
    return ReuseCost(small, large, float(np.mean(values)), interval, tuple(costs.items()), "")


def _seed_cost(runs: Sequence[Run], small: Optimum, large: Optimum, noun: str) -> float | str:
    if not small.inside or small.log2_learning_rate is None:
        return f"unknown: the small {noun}'s best is {small.note}"
    if not large.inside or large.loss is None:
        return f"unknown: the large {noun}'s best is {large.note}"
    rates = [run.learning_rate for run in runs]
    losses = [run.held_out_loss for run in runs]
    cost = cost_at(rates, losses, large, small.log2_learning_rate)
    if math.isnan(cost):
        return f"unknown: the small {noun}'s best was not tried at the large {noun}"
    return "diverges" if math.isinf(cost) else cost


def analyse(
    runs: Sequence[Run], planned: Mapping[str, int] | None = None, axis: Axis = WIDTH
) -> tuple[RecipeAnalysis, ...]:
    """One analysis a recipe, in order of first appearance.

    **Arguments:**

    - `runs`: the finished runs.
    - `planned`: how many runs each recipe was to have. A recipe that lacks some gets no verdict:
        a gap in the grid would look like its edge, and a missing size like a shorter sweep.
    - `axis`: over which the runs were swept.
    """
    planned = planned or {}
    recipes: dict[str, list[Run]] = {}
    for run in runs:
        recipes.setdefault(run.recipe, []).append(run)
    return tuple(
        _analyse_recipe(recipe, members, planned.get(recipe, len(members)), axis)
        for recipe, members in recipes.items()
    )


def to_json(analysis: RecipeAnalysis) -> dict[str, object]:
    """The analysis as JSON's own types; a number that doesn't exist is `None`."""
    fields = json.loads(json.dumps(dataclasses.asdict(analysis), allow_nan=False))
    # What is useful stands beside the analyses: they are compared with older files.
    del fields["axis"], fields["useful"]
    if analysis.searched is None:
        del fields["searched"]
    axis = analysis.axis
    names = {
        "sizes": axis.names,
        "size": axis.name,
        "small": f"small_{axis.name}",
        "large": f"large_{axis.name}",
    }
    return _renamed(fields, names)


def _renamed(content: Any, names: Mapping[str, str]) -> Any:
    if isinstance(content, dict):
        return {names.get(key, key): _renamed(x, names) for key, x in content.items()}
    return [_renamed(x, names) for x in content] if isinstance(content, list) else content


def _analyse_recipe(recipe: str, runs: Sequence[Run], planned: int, axis: Axis) -> RecipeAnalysis:
    curves = grouped(runs)
    optima = {
        key: fit_optimum(
            [run.learning_rate for run in members], [run.held_out_loss for run in members]
        )
        for key, members in curves.items()
    }
    sizes = sorted({size for size, _ in curves})
    seeds = sorted({seed for _, seed in curves})
    missing = _missing(sizes, seeds, curves, axis)
    if len(runs) < planned:
        missing = f"{planned - len(runs)} of {planned} runs are missing; finish the sweep"
    if missing:
        drift = Drift(None, None, (), LEVEL, missing)
        reuse = ReuseCost(sizes[0], sizes[-1], None, None, (), f"unknown: {missing}")
        found = unknown(sizes, missing)
    else:
        drift = fit_drift(sizes, {s: [optima[x, s] for x in sizes] for s in seeds}, axis=axis)
        reuse = reuse_cost(sizes, curves, optima, axis=axis)
        found = useful(sizes, curves, optima, axis=axis)
    summaries = tuple(summarise(size, seeds, optima) for size in sizes)
    verdict, reason = judge(drift)
    sentence = conclude(recipe, verdict, reason, drift, reuse, axis=axis)
    best = summaries[-1]
    return RecipeAnalysis(
        recipe=recipe,
        verdict=str(verdict),
        sentence=sentence,
        seeds=tuple(seeds),
        sizes=summaries,
        drift=drift,
        reuse=reuse,
        best_loss=best.loss,
        best_loss_spread=best.loss_spread,
        useful=found,
        axis=axis,
    )


def grouped(runs: Sequence[Run]) -> dict[tuple[int, int], list[Run]]:
    curves: dict[tuple[int, int], list[Run]] = {}
    for run in runs:
        curves.setdefault((run.size, run.seed), []).append(run)
    return curves


def _missing(sizes: Sequence[int], seeds: Sequence[int], curves: Curves, axis: Axis) -> str:
    for size in sizes:
        for seed in seeds:
            if (size, seed) not in curves:
                return f"there are no runs of {axis.noun} {size}, seed {seed}; finish the sweep"
    return ""


def summarise(size: int, seeds: Sequence[int], optima: Optima) -> SizeSummary:
    """The optima of one size, of those seeds that have one there."""
    members = {seed: optima[size, seed] for seed in seeds if (size, seed) in optima}
    rates = [o.log2_learning_rate for o in members.values() if o.log2_learning_rate is not None]
    losses = [o.loss for o in members.values() if o.loss is not None]
    rate, rate_spread = _mean_and_spread(rates)
    loss, loss_spread = _mean_and_spread(losses)
    flags, by_seed = _flags(tuple(members.values())), tuple(members.items())
    return SizeSummary(size, rate, rate_spread, loss, loss_spread, flags, by_seed)


def _mean_and_spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    mean = float(np.mean(values)) if values else None
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else None


def _flags(optima: Sequence[Optimum]) -> tuple[str, ...]:
    """Each note once, with the number of seeds that it holds for unless it is all."""
    notes = [optimum.note for optimum in optima if optimum.note]
    notes += [STEEP_ABOVE for optimum in optima if optimum.inside and optimum.asymmetric]
    counts = {note: notes.count(note) for note in dict.fromkeys(notes)}
    return tuple(
        note if count == len(optima) else f"{note} ({count} of {len(optima)} seeds)"
        for note, count in counts.items()
    )


def conclude(
    recipe: str,
    verdict: Verdict,
    reason: str,
    drift: Drift,
    reuse: ReuseCost,
    cost: str = "",
    axis: Axis = WIDTH,
) -> str:
    """The verdict as a sentence, with its exponent or why there is none."""
    verb = f"{recipe}: cannot tell" if reason else f"{recipe} {verdict}"
    exponent = describe_exponent(drift)
    parts = [f"{verb}: {exponent}" if exponent else verb]
    if reason:
        parts = [f"{verb}: {reason}", exponent]
    if not reuse.reason.startswith("unknown"):
        parts.append(describe_reuse(reuse, axis))
    return "; ".join(part for part in (*parts, cost) if part) + "."


def describe_reuse(reuse: ReuseCost, axis: Axis = WIDTH) -> str:
    """What reusing the small size's best learning rate does, as a clause."""
    act = f"reusing the best learning rate of {axis.noun} {reuse.small}"
    where = f"at {axis.noun} {reuse.large}"
    if reuse.cost is None:
        return f"{act} {where}: {reuse.reason}"
    return f"{act} {where} costs {reuse.cost:.3f} nats"
