"""The LR-transfer experiment: trains what is missing, keeps every run, and reports."""

import collections
import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from .._usage import UsageError, in_shell, shown
from ..problems import Problem
from ._config import Member, Sweep
from ._engines import Engine, Local, Reporter as Reporter, environment as environment
from ._facts import Noted, report_facts
from ._fits import RecipeAnalysis, Run, analyse
from ._foreign import Foreign
from ._lock import reporting
from ._members import losses_in, train_members as train_members
from ._report import check_report_files, plot_transfer, print_table, write_html, write_json
from ._rows import SweepRow
from ._store import Store
from ._train import Kept, packs
from ._until import Until, analysis, gone_through, rounds, wanted

STORE = "runs.sqlite"


class Silent:
    """Tells nobody."""

    def begin(self, runs: int, stored: int, work: float, done: float) -> None: ...

    def group(self, name: str, runs: int) -> None: ...

    def advance(self, work: float, loss: float) -> None: ...

    def ended(self, runs: int, work: float) -> None: ...

    def say(self, line: str) -> None: ...


def transfer(
    sweep: Sweep,
    problem: Problem,
    folder: Path,
    reporter: Reporter | None = None,
    *,
    at_once: int | None = None,
    until_decided: bool = False,
    budget: float = 1.0,
    engine: Engine | None = None,
) -> Path:
    """Trains the runs of `sweep` that the store in `folder` lacks.

    Several processes may do so in one folder, and share the work: each run is trained by one of
    them. All end when the sweep is complete.

    **Arguments:**

    - `sweep`, `problem`: what to train, on what.
    - `folder`: where `runs.sqlite` is, or will be.
    - `reporter`: is told of progress, if given.
    - `at_once`: how many runs train together at most; one on each core by default, and on
        accelerators as many as their memory holds.
    - `until_decided`: instead of the sweep's whole grid, train what is needed for each recipe's
        verdict: learning rates near the optima and seeds are added until it is clear. The sweep's
        learning rates are where the search begins, its seeds the first that are used.
    - `budget`: the most work for a verdict, as a multiple of that of the recipe's grid.
    - `engine`: who trains, if not this process's devices.

    **Returns:** the store's path, for [`report`][scalex_eqx.experiments.report].

    **Raises:** `UsageError` if the store can't be used, a recipe doesn't fit the model, or a run
    needs more memory than there is.
    """
    path, _ = train_missing(
        sweep,
        problem,
        folder,
        reporter or Silent(),
        engine=engine or Local(at_once),
        budget=budget if until_decided else None,
    )
    return path


def check_recipes(sweep: Sweep, problem: Problem) -> None:
    """Refuses from shapes, before there is a folder, recipes that don't fit the model.

    Asked are those that name weights, have a law or rule for another size than the width, and rules
    of the user's own.
    """
    sweep.facts(problem)  # Made of the problem at every batch size.
    asked = [
        one
        for one in sweep.recipes
        if isinstance(one.rates, tuple)
        or one.multipliers
        or isinstance(one.entry, Foreign)
        or one.law.branch is not None
        or one.batch_rule is not None
    ]
    largest = [Member(one, max(sweep.sizes), sweep.learning_rates[0], 0) for one in asked]
    packs(problem, sweep.setting.of(problem), largest)


def train_missing(
    sweep: Sweep,
    problem: Problem,
    folder: Path,
    reporter: Reporter,
    *,
    engine: Engine,
    budget: float | None = None,
) -> tuple[Path, str]:
    """`transfer`, with a budget until decided; returns the sweep's key in the store too."""
    sweep = sweep.of(problem)
    kept = Kept(expected=_ROUND * len(sweep.recipes))
    work = {} if budget is None else _work_by_size(sweep, problem, kept, engine)
    until = None if budget is None else Until(budget, work)
    with Store.open(folder / STORE, create=True) as store:
        searched = {} if until is None else {"until_decided": until.to_json()}
        key = store.add_sweep({**sweep.configuration(problem), **searched}, environment())
        train = functools.partial(train_members, sweep, problem, store=store, engine=engine)
        if until is None:
            train(sweep.members(), reporter=reporter)
            return folder / STORE, key
        known = functools.partial(losses_in, sweep, sweep.facts(problem), store)
        for members in rounds(sweep, until, known, reporter.begin):
            train(members, reporter=Round(reporter), kept=kept)
    return folder / STORE, key


# A round of a search has three rates and two seeds at a size.
_ROUND = 6


class Round(Silent):
    """Tells of a round's training; how much work there is in all is told by the search."""

    def __init__(self, reporter: Reporter):
        self._reporter = reporter

    def group(self, name: str, runs: int) -> None:
        self._reporter.group(name, runs)

    def advance(self, work: float, loss: float) -> None:
        self._reporter.advance(work, loss)

    def ended(self, runs: int, work: float) -> None:
        self._reporter.ended(runs, work)

    def say(self, line: str) -> None:
        self._reporter.say(line)


def _work_by_size(sweep: Sweep, problem: Problem, kept: Kept, engine: Engine) -> dict[int, float]:
    first = dataclasses.replace(sweep, seeds=sweep.seeds[:1])
    found = packs(problem, sweep.setting, first.members(), kept)
    engine.check(found)
    return {pack.members[0].size: pack.work for pack in found}


def report(
    path: Path, console: Console | None = None, *, sweep_key: str | None = None
) -> tuple[RecipeAnalysis, ...]:
    """Rebuilds table, picture, page and JSON from a store, without training.

    **Arguments:**

    - `path`: a store, or the folder it is in. The sweep that was run last is reported. Where the
        folder can't be written, the table is printed alone.
    - `console`: where the table is printed; the terminal unless given.
    - `sweep_key`: which sweep of the store, if not the last.

    **Returns:** the analyses; none of a tuning.

    **Raises:** `UsageError` if there is no store, no sweep in it, or not one run of it, and for a
    tuning that is not through.
    """
    console = console or Console()
    path = path / STORE if path.is_dir() else path
    warn = functools.partial(console.print, style="yellow")
    with Store.open(path, create=False, warn=warn) as store:
        saved = saved_sweep(store, sweep_key)
        if "grid" in saved.configuration:
            # Its report is made of what this module has.
            from ._grid_files import report_grid

            return report_grid(store, saved, console).analyses
        if "tuning" in saved.configuration:
            from ._tuned_files import report_tuned

            report_tuned(store, saved, console)
            return ()
        sweep = Sweep.from_json(dict(saved.configuration))
        noted = Noted()
        known = functools.partial(
            losses_in, sweep, saved.configuration["problem"], store, noted=noted.loss_of
        )
        until = saved.configuration.get("until_decided")
        runs, analyses, missing = (
            _of_grid(sweep, known)
            if until is None
            else _of_search(sweep, Until.from_json(until), known)
        )
    if not runs:
        raise UsageError(
            f"{shown(path)} holds no finished run of its last sweep; start it again with "
            f"`scalex transfer --out {in_shell(path.parent)}`"
        )
    if missing:
        console.print(
            f"{missing} of {len(runs) + missing} runs are missing: the same `scalex "
            "transfer` command trains them",
            style="yellow",
        )
    facts = report_facts(sweep, saved.configuration["said"], noted)
    if os.access(path.parent, os.W_OK):
        _write_report(path, sweep, facts, runs, analyses)
    else:
        console.print(f"{shown(path.parent)} can't be written: no files are", style="yellow")
    print_table(analyses, console)
    return analyses


def saved_sweep(store: Store, sweep_key: str | None = None) -> SweepRow:
    """A sweep of a store, the last one if none is named.

    **Raises:** `UsageError` if there is none.
    """
    found = next((one for one in store.sweeps() if sweep_key in (None, one.key)), None)
    if found is None:
        path = store.path
        raise UsageError(
            f"{shown(path)} holds no sweep; run `scalex transfer --out {in_shell(path.parent)}`"
        )
    return found


def kind_of(path: Path, sweep_key: str | None = None) -> str:
    """What a sweep of a store, or of the one in a folder, is: transfer, grid or tuning."""
    with Store.open(path / STORE if path.is_dir() else path, create=False) as store:
        configuration = saved_sweep(store, sweep_key).configuration
    return next((kind for kind in ("grid", "tuning") if kind in configuration), "transfer")


_Found = tuple[list[Run], tuple[RecipeAnalysis, ...], int]


def _of_grid(
    sweep: Sweep, known: Callable[[list[Member]], Mapping[Member, float | None]]
) -> _Found:
    """The runs, what they say, and how many are missing."""
    members = sweep.members()
    runs = _runs(known(members))
    names = {recipe: str(recipe) for recipe in sweep.recipes}
    planned = collections.Counter(names[member.recipe] for member in members)
    return runs, analyse(runs, planned, sweep.axis), len(members) - len(runs)


def _runs(losses: Mapping[Member, float | None]) -> list[Run]:
    names = {recipe: str(recipe) for recipe in dict.fromkeys(one.recipe for one in losses)}
    return [
        Run(names[one.recipe], one.size, one.learning_rate, one.seed, loss)
        for one, loss in losses.items()
    ]


def _of_search(
    sweep: Sweep, until: Until, known: Callable[[list[Member]], Mapping[Member, float | None]]
) -> _Found:
    """The same of a search, of which only those are known to be missing that it needs next."""
    decisions, losses = gone_through(sweep.recipes, until.search(sweep), known)
    analyses = tuple(
        analysis(recipe, decision, losses, sweep, until) for recipe, decision in decisions.items()
    )
    return _runs(losses), analyses, len(wanted(decisions))


def _write_report(
    path: Path,
    sweep: Sweep,
    facts: Mapping[str, str],
    runs: Sequence[Run],
    analyses: Sequence[RecipeAnalysis],
) -> None:
    folder = path.parent
    with reporting(folder):
        check_report_files(folder)
        plot_transfer(runs, analyses, folder / "transfer.png")
        write_json(facts, runs, analyses, folder / "results.json")
        write_html(
            f"Does the learning rate transfer across {sweep.axis.noun}?",
            facts,
            analyses,
            folder / "transfer.png",
            folder / "report.html",
            command=f"scalex report {in_shell(path)}",
        )
