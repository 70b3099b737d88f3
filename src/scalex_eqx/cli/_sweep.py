"""The command that trains the grid of parameterizations, update rules and rates."""

import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from .. import _process
from .._usage import in_shell, shown
from ..experiments import report
from ..experiments._grid import PRESETS, Grid, Preset
from ..experiments._grid_files import GRID_FILES, check_grid_files
from ..experiments._grid_train import Foreseen, foresee, train_grid
from ._devices import use_all_cores
from ._help import own_options_first
from ._problem import TEXTS
from ._progress import ProgressBar
from ._training import Training


@own_options_first
@dataclasses.dataclass(frozen=True)
class SweepGrid(Training):
    """Train four parameterizations with several update rules and three rules for the layers'
    learning rates, and say which claims of the paper behind them hold here.

    The presets: docs, Adam alone at two widths, a quarter of an hour on two cores; full, five
    update rules with their modes of epsilon at three widths, a night; gpu, the same with larger
    models. Learning rates are added by themselves where a minimum lies at an edge. Every run is
    kept in OUT/runs.sqlite; the same command again goes on.

    Example: scalex sweep docs --dry

    Example: scalex sweep docs --out runs/grid

    Example: scalex sweep full --widths 32 64 --steps 100 --seeds 0 1 2 --out runs/short
    """

    preset: tyro.conf.Positional[Literal["docs", "full", "gpu"]] = "docs"
    """Which grid."""
    dry: bool = False
    """Say what would be trained and how long it takes, from a measured step at each width."""
    widths: tuple[int, ...] | None = None
    """Other widths than the preset's; the smallest is the base."""
    seeds: tuple[int, ...] | None = None
    """Other seeds; a verdict needs three or more."""
    steps: int | None = None
    """Another number of training steps."""
    depth: int | None = None
    """Another number of blocks, if the model can be built of several."""
    reach: int = 6
    """How many octaves beyond its first learning rates a recipe's may be extended."""
    out: Path = Path("runs/grid")
    """The folder for the store and the report."""

    def run(self, console: Console) -> None:
        use_all_cores()
        preset = self._preset()
        grid = Grid.of(preset, self.reach)
        self.check_engine()
        problem = self._with(preset).load(widths=preset.widths)
        self.say_data(problem, console)
        if self.dry:
            _print_foreseen(grid, tuple(foresee(grid, problem, at_once=self.at_once)), console)
            return
        check_grid_files(self.out)
        with self.training(grid.sweep.setting, problem) as engine, ProgressBar(console) as bar:
            store, key = train_grid(grid, problem, self.out, bar, engine=engine)
        kept = f"all runs are kept; scalex report {in_shell(self.out)} writes the report"
        with _process.keeping(kept):
            report(store, console, sweep_key=key)
            console.print(f"wrote {', '.join(GRID_FILES)} in {shown(self.out)}")

    def _preset(self) -> Preset:
        preset = PRESETS[self.preset]
        own: dict[str, Any] = {"widths": self.widths, "seeds": self.seeds, "steps": self.steps}
        given = {name: value for name, value in own.items() if value is not None}
        depth = self.depth if self.problem not in TEXTS or self.depth is not None else preset.depth
        given |= {"schedule": self.schedule, "warmup": self.warmup, "decay": self.decay}
        return dataclasses.replace(preset, **given, depth=depth)

    def _with(self, preset: Preset) -> "SweepGrid":
        """The same with the preset's sizes where none are given."""
        if self.problem not in TEXTS:
            return self
        missing = {k: x for k, x in preset.text.items() if getattr(self, k) is None}
        return dataclasses.replace(self, **missing)


def _print_foreseen(grid: Grid, found: Sequence[Foreseen], console: Console) -> None:
    sweep = grid.sweep
    console.print(
        f"{len(sweep.recipes)} recipes, {len(sweep.seeds)} seeds, {sweep.setting.steps} steps"
    )
    for rule, rates in grid.first.items():
        console.print(f"{rule}: from {_power(rates[0])} to {_power(rates[-1])}", soft_wrap=True)
    names = ("width", "runs", "trained", "seconds each", "programs", "compiling each", "in all")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right")
    for one in found:
        table.add_row(
            str(one.width),
            str(one.runs),
            str(one.trainings),
            f"{one.seconds:.3g}",
            str(one.programs),
            f"{one.compilation:.3g}",
            _time(one.total),
        )
    console.print(table)
    total = sum(one.total for one in found)
    console.print(
        f"about {_time(total)} for these; learning rates that are added between and beyond them "
        f"may double it. At most {grid.reach} octaves are added on either side.",
        soft_wrap=True,
    )


def _power(rate: float) -> str:
    mantissa, exponent = rate.as_integer_ratio()
    return f"2^{mantissa.bit_length() - exponent.bit_length()}"


def _time(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))
