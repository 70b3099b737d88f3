import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Union

import tyro
from rich.console import Console

from .. import _process
from .._usage import in_shell, shown
from ..experiments import (
    Sweep,
    UsageError,
    parse_learning_rate,
    parse_recipe,
    report,
)
from ..experiments._axes import WIDTH
from ..experiments._config import given_weight_decay
from ..experiments._engines import Engine
from ..experiments._grid_files import GRID_FILES
from ..experiments._planned import Asked, inverse_density, planned
from ..experiments._report import REPORT_FILES, check_report_files
from ..experiments._shards import Shard, parse_shard, train_shard
from ..experiments._transfer import check_recipes, kind_of, train_missing
from ..experiments._tuned_report import TUNED_FILES
from ..problems import Problem
from ._align import Align
from ._arguments import check_words
from ._check import Check
from ._devices import use_all_cores
from ._explain import Explain
from ._exponents import Exponents
from ._failure import explained, tell_traceback
from ._family import Family
from ._help import RECIPES, description, filled, own_options_first, summary
from ._merge import Merge
from ._meta_train import MetaTrain
from ._noise import Noise
from ._plan import Plan
from ._problem import TEXTS
from ._progress import ProgressBar
from ._scales import Scales
from ._status import Status
from ._stress import Stress
from ._sweep import SweepGrid
from ._train import Train
from ._training import Training
from ._tune import Tune

_WIDTHS = (64, 128, 256)


@own_options_first
@dataclasses.dataclass(frozen=True)
class Transfer(Training):
    """Train small models at several widths and learning rates, language models on real text unless
    you name a problem of your own, and say whether the best learning rate of the small ones is the
    best of the large. In place of the widths, the depths may be swept over, or the batch sizes.

    Every run is kept in OUT/runs.sqlite; the same command again trains only what is missing.

    Example: scalex transfer --recipes standard:adam:full mup:adam:full

    Example: scalex transfer --problem my_model.py:problem --widths 32 64 128 --out runs/mine

    Example: scalex transfer --depths 2 4 8 --recipes mup:adam:full "mup.deep(1):adam:full"

    Example: scalex transfer --batch-sizes 4 8 16 --recipes standard:adam:full:malladi

    Example: scalex transfer --densities 1 1/4 1/16 --width 128 --recipes mup:adam:full

    Example: scalex transfer --until-decided --out runs/decided
    """

    recipes: Annotated[tuple[str, ...], tyro.conf.arg(help=RECIPES)] = (
        "standard:adam:global",
        "standard:adam:full",
    )
    widths: tuple[int, ...] | None = None
    """Widths of the model, 64 128 256 if no other size is swept over; of the text's, multiples of
    the head dimension."""
    depths: tuple[int, ...] | None = None
    """Depths to be swept over in place of the widths, if the model can be built of several."""
    batch_sizes: tuple[int, ...] | None = None
    """Batch sizes to be swept over in place of the widths."""
    densities: tuple[str, ...] | None = None
    """Densities to be swept over in place of the widths, as 1 1/4 1/16: shares of the matrices'
    entries that random masks keep. The base is dense."""
    same_steps: bool = False
    """With --batch-sizes: train as many steps at each. Otherwise each has as many examples, and
    --steps is the number at the base batch size."""
    width: int | None = None
    """Of the model, with --depths, --batch-sizes and --densities; 64 if not given."""
    depth: int | None = None
    """Blocks of the model, if it can be built of several; 2 if not given."""
    base_width: int | None = None
    """The width at which all recipes are the same model; the smallest width by default."""
    base_depth: int | None = None
    """The depth at which a law for the depth, as of mup.deep(1), changes nothing; the smallest of
    --depths by default, and that of the model."""
    base_batch_size: int | None = None
    """The batch size at which a recipe's rule for it changes nothing; the smallest of --batch-sizes
    by default, and that of the training."""
    base_steps: int | None = None
    """With --base-batch-size: the steps for which the numbers were tuned. If not given, as many
    examples as are trained on."""
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
    weight_decay: float = 0.0
    """Independent weight decay a step, for recipes with adamw."""
    out: Path = Path("runs/transfer")
    """The folder for the store and the report."""
    shard: str | None = None
    """As 3/16: train this part of the runs alone, into a file in OUT that scalex merge puts into a
    store, for machines that share a disk and nothing else."""

    def run(self, console: Console) -> None:
        use_all_cores()
        asked = self._asked()
        sweep = planned(
            given_weight_decay(self.weight_decay, [*map(parse_recipe, self.recipes)]),
            asked,
            learning_rates=[*map(parse_learning_rate, self.learning_rates)],
            seeds=self.seeds,
            steps=self.steps,
        )
        self.check_engine()
        shard = None if self.shard is None else parse_shard(self.shard)
        if shard is not None and self.until_decided:
            raise UsageError(
                f"--shard {shard} is given with --until-decided, whose runs depend on one another; "
                "leave out one of them"
            )
        if self.budget is not None and not self.until_decided:
            raise UsageError(f"--budget is {self.budget} without --until-decided; give both")
        problem = self._problem(asked, sweep)
        check_recipes(sweep, problem)
        self.say_data(problem, console)
        with self.training(sweep.setting, problem) as engine:
            if shard is None:
                self._train_and_report(sweep, problem, engine, console)
                return
            with ProgressBar(console) as bar:
                count = train_shard(sweep, problem, shard, self.out, bar, engine=engine)
        self._say_how_to_merge(console, shard, count)

    def _asked(self) -> Asked:
        """The sizes, with the usual ones where none are given."""
        names = [field.name for field in dataclasses.fields(Asked)]
        given: dict[str, Any] = {name: getattr(self, name, None) for name in names}
        if self.densities is not None:
            given["inverse_densities"] = tuple(map(inverse_density, self.densities))
        if self.depths is None and self.batch_sizes is None and self.densities is None:
            return Asked(**{**given, "widths": _WIDTHS if self.widths is None else self.widths})
        if self.width is None and self.widths is None:
            given["width"] = _WIDTHS[0]
        return Asked(**given)

    def _problem(self, asked: Asked, sweep: Sweep) -> Problem:
        """What is trained; text, with the smallest of the batch sizes."""
        own, base_width = self, (sweep.setting.base_width,)
        if self.batch_sizes is not None:
            if self.batch_size is not None:
                raise UsageError(
                    f"--batch-size is {self.batch_size}, and batch sizes are swept over; leave out "
                    "one of --batch-size and --batch-sizes"
                )
            if self.problem in TEXTS:
                own = dataclasses.replace(self, batch_size=min(sweep.sizes))
        if asked.axis == WIDTH:
            return own.load(widths=sweep.sizes, base_width=base_width)
        assert asked.width is not None, "a sweep over another size has one"
        return own.load(width=(asked.width,), base_width=base_width)

    def _train_and_report(
        self, sweep: Sweep, problem: Problem, engine: Engine, console: Console
    ) -> None:
        check_report_files(self.out)
        budget = 1.0 if self.budget is None else self.budget
        with ProgressBar(console, at_most=self.until_decided) as bar:
            store, key = train_missing(
                sweep,
                problem,
                self.out,
                bar,
                engine=engine,
                budget=budget if self.until_decided else None,
            )
        kept = f"all runs are kept; scalex report {in_shell(self.out)} writes the report"
        with _process.keeping(kept):
            _print_report(store, console, key)

    def _say_how_to_merge(self, console: Console, shard: Shard, count: int) -> None:
        out = in_shell(self.out)
        console.print(
            f"the {count} runs of shard {shard} are in {shown(self.out)}; once those of all shards "
            f"are, scalex merge {out} {out} puts them into a store, and scalex report {out} judges",
            soft_wrap=True,
        )


@dataclasses.dataclass(frozen=True)
class Report:
    """Rebuild table, picture and report of the last sweep of a store, without training: of an
    LR-transfer run, a grid or a tuning.

    Example: scalex report runs/transfer
    """

    store: tyro.conf.Positional[Path]
    """The store, or the folder it is in."""

    def run(self, console: Console) -> None:
        _print_report(self.store, console)


COMMANDS: dict[str, Any] = {
    "transfer": Transfer,
    "sweep": SweepGrid,
    "tune": Tune,
    "train": Train,
    "meta-train": MetaTrain,
    "report": Report,
    "status": Status,
    "merge": Merge,
    "exponents": Exponents,
    "plan": Plan,
    "check": Check,
    "align": Align,
    "scales": Scales,
    "noise": Noise,
    "family": Family,
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


_FILES = {"transfer": REPORT_FILES, "grid": GRID_FILES, "tuning": TUNED_FILES}


def _print_report(store: Path, console: Console, sweep_key: str | None = None) -> None:
    report(store, console, sweep_key=sweep_key)
    folder = store if store.is_dir() else store.parent
    if os.access(folder, os.W_OK):
        files = _FILES[kind_of(store, sweep_key)]
        console.print(f"wrote {', '.join(files)} in {shown(folder)}")
