import contextlib
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Union

import jax
import tyro
from rich.console import Console

from .. import _process
from .._usage import in_shell, shown
from ..experiments import (
    Setting,
    Sweep,
    UsageError,
    parse_learning_rate,
    parse_recipe,
    report,
)
from ..experiments._config import check_positive, given_weight_decay
from ..experiments._lock import locked
from ..experiments._report import check_report_files
from ..experiments._transfer import check_recipes, train_missing
from ..problems import Problem
from ._align import Align
from ._arguments import check_words
from ._check import Check
from ._explain import Explain
from ._exponents import Exponents
from ._failure import explained, tell_traceback
from ._help import RECIPES, description, filled, summary
from ._merge import Merge
from ._plan import Plan
from ._problem import ProblemOptions
from ._progress import ProgressBar
from ._status import Status
from ._stress import Stress


@dataclasses.dataclass(frozen=True)
class Transfer(ProblemOptions):
    """Train small models at several widths and learning rates, language models on real text unless
    you name a problem of your own, and say whether the best learning rate of the small ones is the
    best of the large.

    Every run is kept in OUT/runs.sqlite; the same command again trains only what is missing.

    Example: scalex transfer --recipes standard:adam:full mup:adam:full

    Example: scalex transfer --problem my_model.py:problem --widths 32 64 128 --out runs/mine

    Example: scalex transfer --until-decided --out runs/decided
    """

    recipes: Annotated[tuple[str, ...], tyro.conf.arg(help=RECIPES)] = (
        "standard:adam:global",
        "standard:adam:full",
    )
    widths: tuple[int, ...] = (64, 128, 256)
    """Widths of the model; of the text's, multiples of the head dimension."""
    base_width: int | None = None
    """The width at which all recipes are the same model; the smallest width by default."""
    learning_rates: tuple[str, ...] = ("2^-10", "2^-9", "2^-8", "2^-7", "2^-6", "2^-5")
    """Peak learning rates at the base width, as 2^-8 or 0.004."""
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    """Each fixes initial draws and data order; the verdict needs three or more."""
    until_decided: bool = False
    """Train no more than the verdicts need: learning rates near the optima and seeds, beginning
    with those given, are added until each verdict is clear. Its intervals are wider for it."""
    budget: float | None = None
    """With --until-decided: the most work for a verdict, as a multiple of the work of all widths,
    learning rates and seeds given; 1 if not given."""
    steps: int = 250
    """Training steps of a run."""
    depth: int | None = None
    """Blocks of the model, if it can be built of several; 2 if not given."""
    weight_decay: float = 0.0
    """Independent weight decay a step, for recipes with adamw."""
    out: Path = Path("runs/transfer")
    """The folder for the store and the report."""
    at_once: int | None = None
    """How many runs train together at most; one on each core by default, and on accelerators all
    that one program can train."""

    def run(self, console: Console) -> None:
        base_width = min(self.widths, default=0) if self.base_width is None else self.base_width
        sweep = Sweep(
            recipes=given_weight_decay(self.weight_decay, [*map(parse_recipe, self.recipes)]),
            widths=self.widths,
            learning_rates=tuple(map(parse_learning_rate, self.learning_rates)),
            seeds=self.seeds,
            setting=Setting(base_width=base_width, steps=self.steps, depth=self.depth),
        )
        if self.at_once is not None:
            check_positive(self, "at_once")
        if self.budget is not None and not self.until_decided:
            raise UsageError(f"--budget is {self.budget} without --until-decided; give both")
        problem = self.load(widths=self.widths, base_width=(base_width,))
        _use_all_cores()
        check_recipes(sweep, problem)
        if "data" in problem.said:
            console.print(f"data: {problem.said['data']}", soft_wrap=True)
        # Until the report is written: another sweep that starts would be the one reported on.
        with locked(self.out):
            self._train_and_report(sweep, problem, console)

    def _train_and_report(self, sweep: Sweep, problem: Problem, console: Console) -> None:
        check_report_files(self.out)
        budget = 1.0 if self.budget is None else self.budget
        with ProgressBar(console, at_most=self.until_decided) as bar:
            store = train_missing(
                sweep,
                problem,
                self.out,
                bar,
                at_once=self.at_once,
                budget=budget if self.until_decided else None,
            )
        kept = f"all runs are kept; scalex report {in_shell(self.out)} writes the report"
        with _process.keeping(kept):
            _print_report(store, console)


@dataclasses.dataclass(frozen=True)
class Report:
    """Rebuild table, picture and report of an LR-transfer run from its store, without training.

    Example: scalex report runs/transfer
    """

    store: tyro.conf.Positional[Path]
    """The store, or the folder it is in."""

    def run(self, console: Console) -> None:
        _print_report(self.store, console)


COMMANDS: dict[str, Any] = {
    "transfer": Transfer,
    "report": Report,
    "status": Status,
    "merge": Merge,
    "exponents": Exponents,
    "plan": Plan,
    "check": Check,
    "align": Align,
    "stress": Stress,
    "explain": Explain,
}

Command: Any = Union[  # noqa: UP007
    tuple(
        Annotated[kind, tyro.conf.subcommand(name, description=summary(kind))]
        for name, kind in COMMANDS.items()
    )
]


def run() -> int:
    """Parses the arguments, runs the command, and returns the exit code."""
    arguments = sys.argv[1:] or ["--help"]
    try:
        check_words(arguments)
        # Brackets and colons of names are no markup.
        code = _parsed(arguments).run(Console(markup=False, emoji=False)) or 0
        if sys.stdout is not None:
            sys.stdout.flush()  # Fails where the reader has gone, or the disk is full.
        return code
    except Exception as error:
        tell_traceback(error)
        code, line = explained(error)
        if line:
            print(line, file=sys.stderr)
        return code


def _parsed(arguments: Sequence[str]) -> Any:
    """The command that the arguments ask for.

    The list of the commands says of each what it does, its own help everything.
    """
    name = arguments[0]
    if name in COMMANDS:
        return tyro.cli(
            COMMANDS[name],
            prog=f"scalex {name}",
            description=description(COMMANDS[name]),
            args=arguments[1:],
        )
    return tyro.cli(
        Command,
        prog="scalex",
        description=filled(
            "Scaling laws that travel with the weights. scalex COMMAND --help shows the options of "
            "a command, and an example; scalex --version the version."
        ),
        args=arguments,
    )


def _print_report(store: Path, console: Console) -> None:
    report(store, console)
    folder = store if store.is_dir() else store.parent
    if os.access(folder, os.W_OK):
        console.print(f"wrote {shown(folder)}/report.html, transfer.png and results.json")


def _use_all_cores() -> None:
    """One virtual device for each core: the runs are independent, and so need no shared pool of
    threads. A device count of the user's own is left alone."""
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    with contextlib.suppress(RuntimeError):  # JAX is running already, with the devices it has.
        jax.config.update("jax_num_cpu_devices", min(os.cpu_count() or 1, 8))
