"""Sweeps that end when their verdicts are clear: what they train, and what is said of them."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

from .._usage import UsageError
from ._axes import Axis
from ._config import Member, Sweep
from ._decide import ERRORS_AT_LOOKS, MOST_SEEDS, Decision, Search, decide
from ._fits import (
    RecipeAnalysis,
    ReuseCost,
    Run,
    Searched,
    conclude,
    grouped,
    reuse_cost,
    summarise,
)
from ._recipe import Recipe
from ._wording import describe_search

Losses = Mapping[Member, float | None]
Begin = Callable[[int, int, float, float], None]  # as of a `Reporter`


@dataclasses.dataclass(frozen=True)
class Until:
    """What a sweep is given to decide with, beside its own numbers.

    **Arguments:**

    - `budget`: the most work for each recipe, as a multiple of the work of the sweep's grid.
    - `work`: of one run, by size.

    **Raises:** `UsageError` for a budget that isn't positive.
    """

    budget: float
    work: Mapping[int, float]

    def __post_init__(self) -> None:
        if not self.budget > 0:
            raise UsageError(f"--budget is {self.budget}; expected a positive multiple of the grid")

    def search(self, sweep: Sweep) -> Search:
        """The search that is made for each recipe of a sweep.

        Its seeds are the sweep's, and then those that follow the largest, eight in all.
        """
        if len(sweep.seeds) > MOST_SEEDS:
            raise UsageError(
                f"--seeds has {len(sweep.seeds)} values; give at most {MOST_SEEDS} with "
                "--until-decided, which adds those that it needs"
            )
        more = itertools.count(max(sweep.seeds) + 1)
        seeds = (*sweep.seeds, *itertools.islice(more, MOST_SEEDS - len(sweep.seeds)))
        budget = self.budget * self.grid(sweep)
        return Search(
            sweep.sizes,
            sweep.learning_rates,
            seeds,
            dict(self.work),
            budget,
            axis=sweep.axis,
        )

    def grid(self, sweep: Sweep) -> float:
        """The work of the sweep's grid, for one recipe."""
        each = sum(self.work[size] for size in sweep.sizes)
        return len(sweep.learning_rates) * len(sweep.seeds) * each

    def to_json(self) -> dict[str, object]:
        """As JSON's own types; `from_json` reads it."""
        return {"budget": self.budget, "work": {str(w): x for w, x in self.work.items()}}

    @staticmethod
    def from_json(fields: dict) -> "Until":
        """What `to_json` has written down."""
        return Until(fields["budget"], {int(w): x for w, x in fields["work"].items()})


def gone_through(
    recipes: Sequence[Recipe], search: Search, known: Callable[[list[Member]], Losses]
) -> tuple[dict[Recipe, Decision], dict[Member, float | None]]:
    """How far the search for each recipe's verdict is, and the losses that it used.

    **Arguments:**

    - `known`: the losses of those of the runs that are finished.
    """
    losses: dict[Member, float | None] = {}
    while True:
        decisions = {recipe: decide(search, runs_of(recipe, losses)) for recipe in recipes}
        new = known(wanted(decisions))
        if not new:
            return decisions, losses
        losses.update(new)


def wanted(decisions: Mapping[Recipe, Decision]) -> list[Member]:
    """The runs that the searches need next, all recipes side by side."""
    return [
        Member(recipe, point.size, point.learning_rate, point.seed)
        for recipe, decision in decisions.items()
        for point in decision.wanted
    ]


def runs_of(recipe: Recipe, losses: Losses) -> list[Run]:
    """The finished runs of one recipe."""
    name = str(recipe)
    return [
        Run(name, member.size, member.learning_rate, member.seed, loss)
        for member, loss in losses.items()
        if member.recipe == recipe
    ]


def analysis(
    recipe: Recipe, decision: Decision, losses: Losses, sweep: Sweep, until: Until
) -> RecipeAnalysis:
    """What the report says of a recipe."""
    sizes = sorted(sweep.sizes)
    seeds = sorted({seed for _, seed in decision.optima})
    summaries = tuple(summarise(size, seeds, decision.optima) for size in sizes)
    found = Searched(
        decision.looks,
        len(ERRORS_AT_LOOKS),
        len(decision.points) - len(decision.wanted),
        decision.work / until.grid(sweep),
    )
    reuse = _reuse(decision, runs_of(recipe, losses), sizes, sweep.axis)
    return RecipeAnalysis(
        recipe=str(recipe),
        verdict=str(decision.verdict),
        sentence=conclude(
            str(recipe),
            decision.verdict,
            decision.reason,
            decision.drift,
            reuse,
            describe_search(found),
            sweep.axis,
        ),
        seeds=tuple(seeds),
        sizes=summaries,
        drift=decision.drift,
        reuse=reuse,
        best_loss=summaries[-1].loss,
        best_loss_spread=summaries[-1].loss_spread,
        searched=found,
        axis=sweep.axis,
    )


def _reuse(decision: Decision, runs: Sequence[Run], sizes: Sequence[int], axis: Axis) -> ReuseCost:
    ends, drift = (sizes[0], sizes[-1]), decision.drift
    if drift.exponent is None:
        return ReuseCost(*ends, None, None, (), f"unknown: {drift.reason}")
    seeds = {seed for seed, _ in drift.by_seed}
    curves = {
        (size, seed): own
        for (size, seed), own in grouped(runs).items()
        if size in ends and seed in seeds
    }
    return reuse_cost(ends, curves, decision.optima, drift.level, axis)


def rounds(
    sweep: Sweep, until: Until, known: Callable[[list[Member]], Losses], begin: Begin
) -> Iterator[list[Member]]:
    """The runs to train, round by round, all recipes side by side; each round needs the last.

    **Arguments:**

    - `known`: as of `gone_through`.
    - `begin`: is told before each round what is done, and how much may come at most.
    """
    search = until.search(sweep)
    while True:
        decisions, losses = gone_through(sweep.recipes, search, known)
        members = wanted(decisions)
        done = sum(until.work[member.size] for member in losses)
        # What may come of a search is its budget.
        most = [search.budget if one.wanted else one.work for one in decisions.values()]
        begin(len(losses) + len(members), len(losses), sum(most), done)
        if not members:
            return
        yield members
