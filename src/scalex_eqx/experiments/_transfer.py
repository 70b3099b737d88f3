"""The LR-transfer experiment: trains what is missing, keeps every run, and reports."""

import collections
import functools
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import numpy as np
import optax
from rich.console import Console

from .. import _process
from ._config import Member, Setting, Sweep
from ._data import Corpus, check_parts, held_out_windows
from ._errors import UsageError, in_shell, shown
from ._fits import RecipeAnalysis, Run, analyse
from ._lock import locked
from ._report import check_report_files, plot_transfer, print_table, write_html, write_json
from ._rules import update_rules
from ._store import Row, Store, fold_in
from ._train import Trained, check_memory, train_group

STORE = "runs.sqlite"


@runtime_checkable
class Reporter(Protocol):
    """Who is told how far the training is; the command line draws a bar of it."""

    def begin(self, runs: int, stored: int, work: float, done: float) -> None:
        """The sweep's runs and how many were stored; the same in floating-point operations."""
        ...

    def group(self, name: str, runs: int) -> None:
        """A group of runs begins."""
        ...

    def advance(self, work: float, loss: float) -> None:
        """Some work is done; the mean training loss of the group's runs is `loss`."""
        ...


class _Silent:
    """Tells nobody."""

    def begin(self, runs: int, stored: int, work: float, done: float) -> None: ...

    def group(self, name: str, runs: int) -> None: ...

    def advance(self, work: float, loss: float) -> None: ...


def transfer(
    sweep: Sweep,
    corpus: Corpus,
    folder: Path,
    reporter: Reporter | None = None,
    *,
    at_once: int | None = None,
) -> Path:
    """Trains the runs of `sweep` that the store in `folder` lacks.

    **Arguments:**

    - `sweep`, `corpus`: what to train, on what.
    - `folder`: where `runs.sqlite` is, or will be.
    - `reporter`: is told of progress, if given.
    - `at_once`: how many runs train together at most; all of a recipe and width by default.

    **Returns:** the store's path, for [`report`][scalex_eqx.experiments.report].

    **Raises:** `UsageError` if the data is too short, the store can't be used, another process
    trains in the folder, or a run needs more memory than there is.
    """
    check_parts(corpus, length=sweep.setting.sequence_length)
    with locked(folder):
        return train_missing(sweep, corpus, folder, reporter or _Silent(), at_once=at_once)


def train_missing(
    sweep: Sweep, corpus: Corpus, folder: Path, reporter: Reporter, *, at_once: int | None
) -> Path:
    """`transfer` in a folder that is locked already."""
    setting = sweep.setting
    windows = held_out_windows(
        corpus, count=setting.held_out_windows, length=setting.sequence_length
    )
    keys = sweep.keys(corpus.digest)
    with Store.open(folder / STORE, create=True) as store:
        store.add_sweep({**sweep.to_json(), "data": _describe(corpus, len(windows))}, environment())
        missing = set(store.missing(keys.values()))
        work = {member: _work(member, setting, corpus.vocabulary_size) for member in keys}
        stored = [member for member, key in keys.items() if key not in missing]
        done = sum((work[member] for member in stored), start=0.0)
        reporter.begin(len(keys), len(stored), sum(work.values()), done)
        parts = [
            part
            for _, _, members in sweep.groups()
            for part in _parts([one for one in members if keys[one] in missing], at_once)
        ]
        _check_memory(sweep, corpus, parts)
        kept = f"finished runs are kept in {shown(folder)}; the same command goes on from there"
        with _process.keeping(kept), _process.if_stopped(lambda: fold_in(folder / STORE)):
            for part in parts:
                reporter.group(f"{part[0].recipe} width {part[0].width}", len(part))
                store.add(_train(sweep, corpus, part, work, reporter))
    return folder / STORE


def _check_memory(sweep: Sweep, corpus: Corpus, parts: Sequence[Sequence[Member]]) -> None:
    """Refuses before all training what could not be held at its end."""
    largest = {part[0].recipe: part for part in sorted(parts, key=lambda part: part[0].width)}
    for recipe, part in largest.items():
        check_memory(sweep.setting, recipe, part[0].width, part, corpus)


def report(path: Path, console: Console | None = None) -> tuple[RecipeAnalysis, ...]:
    """Rebuilds table, picture, page and JSON from a store, without training.

    **Arguments:**

    - `path`: a store, or the folder it is in. The sweep that was run last is reported. Where the
        folder can't be written, the table is printed alone.
    - `console`: where the table is printed; the terminal unless given.

    **Returns:** the analyses.

    **Raises:** `UsageError` if there is no store, no sweep in it, or not one run of it.
    """
    console = console or Console()
    path = path / STORE if path.is_dir() else path
    warn = functools.partial(console.print, style="yellow")
    with Store.open(path, create=False, warn=warn) as store:
        saved = next(iter(store.sweeps()), None)
        if saved is None:
            raise UsageError(
                f"{shown(path)} holds no sweep; run `scalex transfer --out {in_shell(path.parent)}`"
            )
        sweep = Sweep.from_json(dict(saved.configuration))
        data = saved.configuration["data"]
        keys = sweep.keys(data["digest"])
        noted = _Noted()
        # Of a row no more than that is kept: there may be many.
        losses = {
            row.key: noted.loss_of(row)
            for row in store.read(keys.values())
            if row.status != "stopped"
        }
    names = {recipe: str(recipe) for recipe in sweep.recipes}
    runs = [
        Run(names[one.recipe], one.width, one.learning_rate, one.seed, losses[key])
        for one, key in keys.items()
        if key in losses
    ]
    if not runs:
        raise UsageError(
            f"{shown(path)} holds no finished run of its last sweep; start it again with "
            f"`scalex transfer --out {in_shell(path.parent)}`"
        )
    if len(runs) < len(keys):
        console.print(
            f"{len(keys) - len(runs)} of {len(keys)} runs are missing: the same `scalex "
            "transfer` command trains them",
            style="yellow",
        )
    planned = collections.Counter(names[member.recipe] for member in keys)
    analyses = analyse(runs, planned)
    facts = _facts(sweep, data, noted)
    if os.access(path.parent, os.W_OK):
        _write_report(path, facts, runs, analyses)
    else:
        console.print(f"{shown(path.parent)} can't be written: no files are", style="yellow")
    print_table(analyses, console)
    return analyses


def _write_report(
    path: Path, facts: Mapping[str, str], runs: Sequence[Run], analyses: Sequence[RecipeAnalysis]
) -> None:
    folder = path.parent
    check_report_files(folder)
    plot_transfer(runs, analyses, folder / "transfer.png")
    write_json(facts, runs, analyses, folder / "results.json")
    write_html(
        "Does the learning rate transfer across width?",
        facts,
        analyses,
        folder / "transfer.png",
        folder / "report.html",
        command=f"scalex report {in_shell(path)}",
    )


def environment() -> dict[str, object]:
    """The hardware and the versions that results were made with."""
    return {
        "device": f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "equinox": eqx.__version__,
        "optax": optax.__version__,
    }


def _parts(members: Sequence[Member], at_once: int | None) -> list[Sequence[Member]]:
    size = at_once or max(len(members), 1)
    return [members[i : i + size] for i in range(0, len(members), size)]


def _describe(corpus: Corpus, windows: int) -> dict[str, object]:
    return {
        "name": corpus.name,
        "digest": corpus.digest,
        "tokens": len(corpus.tokens),
        "vocabulary_size": corpus.vocabulary_size,
        "held_out_windows": windows,
    }


def _train(
    sweep: Sweep,
    corpus: Corpus,
    members: Sequence[Member],
    work: Mapping[Member, float],
    reporter: Reporter,
) -> list[Row]:
    recipe, width = members[0].recipe, members[0].width
    group_work = sum(work[member] for member in members)
    done = 0

    def progress(steps: int, loss: float) -> None:
        nonlocal done
        reporter.advance(group_work * (steps - done) / sweep.setting.steps, loss)
        done = steps

    start = time.perf_counter()
    trained = train_group(sweep.setting, recipe, width, members, corpus, progress)
    seconds = (time.perf_counter() - start) / len(members)
    return [
        _row(sweep.specification(member, corpus.digest), result, seconds)
        for member, result in zip(members, trained, strict=True)
    ]


def _row(specification: Mapping[str, object], trained: Trained, seconds: float) -> Row:
    bad = ~np.isfinite(trained.training_losses)
    diverged = bool(bad.any()) or not np.isfinite(trained.held_out_loss)
    return Row.of(
        specification,
        status="diverged" if diverged else "ok",
        metrics={"held_out_loss": None if diverged else trained.held_out_loss},
        result={
            "diverged_at_step": int(bad.argmax()) if bad.any() else None,
            "seconds": seconds,
            "environment": environment(),
        },
        curves={"training_losses": trained.training_losses},
    )


def _work(member: Member, setting: Setting, vocabulary_size: int) -> float:
    """Floating-point operations of a run, roughly: six for each weight and token."""
    width = member.width
    weights = 12 * width**2 * setting.depth + width * vocabulary_size
    return 6.0 * weights * setting.batch_size * setting.sequence_length * setting.steps


class _Noted:
    """What a report says of all runs together: of them, not of the sweep, which may have been
    resumed elsewhere."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.finished = ""
        self._first: dict[str, tuple[str, dict[str, Any]]] = {}

    def loss_of(self, row: Row) -> float | None:
        """Notes the run, and returns its loss."""
        found = row.result["environment"]
        self.seconds += row.result["seconds"]
        self.finished = max(self.finished, row.created)
        name = str(found)
        if name not in self._first or row.created < self._first[name][0]:
            self._first[name] = row.created, found
        return row.held_out_loss

    @property
    def environments(self) -> list[dict[str, Any]]:
        """Each once, in the order of their first runs."""
        return [found for _, found in sorted(self._first.values(), key=lambda entry: entry[0])]


def _facts(sweep: Sweep, data: Mapping[str, Any], noted: _Noted) -> dict[str, str]:
    setting = sweep.setting
    return {
        "recipes": ", ".join(map(str, sweep.recipes)),
        "widths": f"{', '.join(map(str, sorted(sweep.widths)))} (base {setting.base_width})",
        "learning rates": ", ".join(f"2^{np.log2(r):.4g}" for r in sorted(sweep.learning_rates)),
        "seeds": ", ".join(map(str, sweep.seeds)),
        "model": f"Transformer, depth {setting.depth}, heads of {setting.head_dimension}",
        "training": (
            f"{setting.steps} steps of {setting.batch_size} x {setting.sequence_length} tokens, "
            f"{setting.warmup:.0%} warm-up, cosine to 0"
        ),
        **update_rules(sweep.recipes, setting),
        "held out": f"{data['held_out_windows']} windows of {setting.sequence_length} tokens",
        "data": f"{data['name']}, {data['tokens']:,} tokens, sha256 {data['digest'][:16]}",
        "machine": _each_once(
            f"{e['device']}, {e['processor']}, {e['cores']} cores" for e in noted.environments
        ),
        "versions": _each_once(
            ", ".join(f"{name} {e[name]}" for name in ("python", "jax", "equinox", "optax"))
            for e in noted.environments
        ),
        "training time": f"{noted.seconds:.0f} s, compilation included",
        "finished": noted.finished,
    }


def _each_once(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


@functools.cache
def _processor() -> str:
    """The processor's name; the kernel knows it better than Python's `platform` does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
