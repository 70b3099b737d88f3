"""What a grid says: each recipe beside the published losses, and the answer to each claim."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .._usage import UsageError, in_shell, shown
from ._drift import SEEDS_FOR_A_VERDICT, Interval, t_interval
from ._facts import Noted, report_facts
from ._fits import RecipeAnalysis, Run, analyse
from ._grid import Grid, gone_through, runs_of
from ._judged import Judged, Outcome, judge_claim
from ._members import losses_in
from ._published import CLAIMS, TABLE_E1
from ._recipe import Recipe
from ._rows import SweepRow
from ._store import Store


@dataclasses.dataclass(frozen=True)
class GridRow:
    """A recipe's line.

    **Arguments:**

    - `recipe`, `analysis`: which, and what its runs say; `None` before it has any.
    - `outcome`: by seed.
    - `loss`: the mean of the lowest losses at the largest width.
    - `gain`: less the same of one learning rate for all layers, with its interval.
    - `published`: the same two numbers with default constants and with tuned ones, where printed.
    """

    recipe: Recipe
    analysis: RecipeAnalysis | None
    outcome: Outcome
    loss: float | None
    gain: tuple[float, Interval] | None
    published: tuple[float | None, float | None]
    published_gain: tuple[float | None, float | None]


@dataclasses.dataclass(frozen=True)
class GridReport:
    """Everything that is said of a grid.

    **Arguments:**

    - `grid`: what was asked for.
    - `facts`: settings, data, hardware, date.
    - `rows`, `claims`: a line for each recipe and for each claim.
    - `runs`: all that are finished.
    - `missing`: how many are known to be missing.
    """

    grid: Grid
    facts: Mapping[str, str]
    rows: tuple[GridRow, ...]
    claims: tuple[Judged, ...]
    runs: tuple[Run, ...]
    missing: int

    @property
    def largest(self) -> int:
        """The width at which losses are compared."""
        return max(self.grid.sweep.sizes)

    @property
    def analyses(self) -> tuple[RecipeAnalysis, ...]:
        """Of the recipes that have runs."""
        return tuple(row.analysis for row in self.rows if row.analysis is not None)


def read_grid(store: Store, saved: SweepRow) -> GridReport:
    """What a store says of a grid.

    **Raises:** `UsageError` if it has not one finished run.
    """
    grid = Grid.from_json(saved.configuration)
    noted = Noted()
    facts = saved.configuration["problem"]
    known = functools.partial(losses_in, grid.sweep, facts, store, noted=noted.loss_of)
    losses, missing = gone_through(grid, known)
    if not losses:
        raise UsageError(
            f"{shown(store.path)} holds no finished run of its last sweep; start it again with "
            f"`scalex sweep --out {in_shell(store.path.parent)}`"
        )
    runs = runs_of(losses)
    planned = Counter(str(one.recipe) for one in (*losses, *missing))
    rows = grid_rows(grid.sweep.recipes, runs, planned, max(grid.sweep.sizes))
    outcomes = {str(row.recipe): row.outcome for row in rows}
    claims = tuple(judge_claim(claim, outcomes) for claim in CLAIMS)
    said = report_facts(grid.sweep, saved.configuration["said"], noted)
    said["learning rates"] = "; ".join(
        f"{rule}: from {min(rates):.3g} to {max(rates):.3g} at first, an octave apart"
        for rule, rates in grid.first.items()
    )
    said["extended"] = f"by at most {grid.reach} octaves on either side"
    return GridReport(grid, said, rows, claims, tuple(runs), len(missing))


def grid_rows(
    recipes: Sequence[Recipe], runs: Sequence[Run], planned: Mapping[str, int], largest: int
) -> tuple[GridRow, ...]:
    """A line for each recipe.

    **Arguments:**

    - `planned`: how many runs each was to have, as of `analyse`.
    - `largest`: the width at which losses are compared.
    """
    analyses = {one.recipe: one for one in analyse(runs, planned)}
    outcomes = {
        str(one): outcome_of(str(one), analyses.get(str(one)), runs, largest) for one in recipes
    }
    return tuple(_row(one, analyses.get(str(one)), outcomes) for one in recipes)


def outcome_of(
    name: str, analysis: RecipeAnalysis | None, runs: Sequence[Run], largest: int
) -> Outcome:
    if analysis is None:
        return Outcome(name, {}, {}, "there are no runs", "there are no runs")
    widest, exponents = analysis.sizes[-1], dict(analysis.drift.by_seed)
    # The remedy behind it is that of a sweep whose learning rates are given.
    reason = analysis.drift.reason.split("; ")[0]
    # Runs that are missing may be those that would move a minimum.
    unknown = reason if "missing" in reason else ""
    outside = [(seed, one) for seed, one in widest.by_seed if not one.inside]
    if widest.size != largest or not widest.by_seed:
        unknown = unknown or f"there are no runs of width {largest}"
    elif outside:
        seed, optimum = outside[0]
        unknown = unknown or f"the best learning rate of seed {seed} is {optimum.note}"
    losses: dict[int, float] = {}
    if not unknown:
        for run in runs:
            if run.recipe == name and run.size == largest and run.held_out_loss is not None:
                losses[run.seed] = min(losses.get(run.seed, run.held_out_loss), run.held_out_loss)
    return Outcome(name, exponents, losses, reason, unknown)


def _row(
    recipe: Recipe, analysis: RecipeAnalysis | None, outcomes: Mapping[str, Outcome]
) -> GridRow:
    law, rates = recipe.law.name, str(recipe).rsplit(":", 1)[1]
    outcome = outcomes[str(recipe)]
    losses = list(outcome.losses.values())
    global_ = outcomes.get(f"{law}:{recipe.optimizer}:global")
    paper = _published(recipe, rates)
    reference = _published(recipe, "global")
    gains = tuple(
        None if x is None or y is None or rates == "global" else x - y
        for x, y in zip(paper, reference, strict=True)
    )
    return GridRow(
        recipe,
        analysis,
        outcome,
        sum(losses) / len(losses) if losses else None,
        None if global_ is None or rates == "global" else _gain(outcome, global_),
        paper,
        (gains[0], gains[1]),
    )


def _gain(one: Outcome, other: Outcome) -> tuple[float, Interval] | None:
    """The mean difference, seed by seed, with its interval."""
    differences = [
        one.losses[seed] - other.losses[seed] for seed in one.losses if seed in other.losses
    ]
    interval = t_interval(differences) if len(differences) >= SEEDS_FOR_A_VERDICT else None
    return None if interval is None else (sum(differences) / len(differences), interval)


def _published(recipe: Recipe, rates: str) -> tuple[float | None, float | None]:
    """The losses with default constants and with tuned ones, both with a constant epsilon."""
    row = TABLE_E1.get((recipe.entry.name, recipe.law.name))
    if row is None:
        return None, None
    printed = {
        "global": (row.global_default, row.global_tuned),
        "full": (row.full_default, row.full_tuned),
        "none": (None, row.none_tuned),
    }
    return printed[rates]


def to_json(report: GridReport) -> dict[str, Any]:
    """The report as JSON's own types, without the runs."""
    return {
        "facts": dict(report.facts),
        "missing": report.missing,
        "largest_width": report.largest,
        "recipes": [_row_json(row) for row in report.rows],
        "claims": [_claim_json(one) for one in report.claims],
    }


def _row_json(row: GridRow) -> dict[str, Any]:
    return {
        "recipe": str(row.recipe),
        "exponent": None if row.analysis is None else row.analysis.drift.exponent,
        "interval": None if row.analysis is None else row.analysis.drift.interval,
        "verdict": "cannot tell" if row.analysis is None else row.analysis.verdict,
        "exponents_by_seed": row.outcome.exponents,
        "no_exponents": row.outcome.no_exponents,
        "loss": row.loss,
        "losses_by_seed": row.outcome.losses,
        "no_losses": row.outcome.no_losses,
        "less_one_rate": row.gain,
        "published": {"default": row.published[0], "tuned": row.published[1]},
    }


def _claim_json(one: Judged) -> dict[str, Any]:
    return {
        "claim": one.claim.text,
        "published": one.claim.published,
        "answer": str(one.answer),
        "means": one.means,
        "reason": one.reason,
    }
