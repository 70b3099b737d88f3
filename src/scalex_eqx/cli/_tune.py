import dataclasses
import shlex
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from .. import _process
from .._usage import in_shell, shown
from ..experiments import Setting, parse_learning_rate, parse_recipe
from ..experiments._config import given_weight_decay
from ..experiments._engines import environment
from ..experiments._samplers import check_sampler
from ..experiments._tune import Tuned, tune, work_by_width
from ..experiments._tuned_files import write_tuned_files
from ..experiments._tuned_report import check_tuned_files, plan_words, print_tuned
from ..experiments._tuning import USUAL_ROLES, Tuning
from ..problems import Problem
from ._devices import use_all_cores
from ._help import RECIPE, own_options_first
from ._problem import TEXT, ProblemOptions
from ._progress import ProgressBar
from ._training import Training


@own_options_first
@dataclasses.dataclass(frozen=True)
class Tune(Training):
    """Find the constant of each role, embedding, hidden and readout, and the learning rate, at
    which a recipe trains best at a small width; and say whether what is gained there is gained at
    a large one.

    First the learning rate, then the constants at that rate, then the rate again. Every run is
    kept in OUT/runs.sqlite; the same command again trains only what is missing. Needs
    scalex_eqx[tune].

    Example: scalex tune standard:adam:full --width 64 --check-widths 256

    Example: scalex tune mup:adam:full --problem my_model.py:problem --trials 200
    """

    recipe: Annotated[tyro.conf.Positional[str], tyro.conf.arg(help=RECIPE)] = dataclasses.field(
        kw_only=True
    )
    width: int = 64
    """The width that is tuned at: the recipe's base width."""
    learning_rate: str = "2^-8"
    """Where the search begins, as 2^-8 or 0.004."""
    roles: tuple[str, ...] = USUAL_ROLES
    """Which roles' constants are looked for: embedding, hidden, readout, vector, constant."""
    trials: int = 64
    """How many sets of constants the sampler tries; those next to the best follow."""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """tpe learns from the trials, random doesn't, grid is all sets within --reach."""
    reach: int = 4
    """How many octaves up and down the sampler looks."""
    seeds: tuple[int, ...] = (0, 1)
    """A trial's loss is the mean over these."""
    steps: int = 250
    """Training steps of a run."""
    depth: int | None = None
    """Blocks of the model, if it can be built of several; 2 if not given."""
    weight_decay: float = 0.0
    """Independent weight decay a step, for recipes with adamw."""
    check_widths: tuple[int, ...] | None = None
    """Wider models at which the gain is looked at; four times --width if not given, and none if
    given without a number."""
    check_seeds: int = 4
    """How many seeds that has, none of them one that the constants were chosen by."""
    out: Path = Path("runs/tune")
    """The folder for the store, landscape.png and tuned.json."""

    def run(self, console: Console) -> None:
        use_all_cores()
        (recipe,) = given_weight_decay(self.weight_decay, [parse_recipe(self.recipe)])
        tuning = Tuning(
            recipe=recipe,
            learning_rate=parse_learning_rate(self.learning_rate, "--learning-rate"),
            seeds=self.seeds,
            setting=Setting(
                base_width=self.width,
                steps=self.steps,
                depth=self.depth,
                warmup=self.warmup,
                schedule=self.schedule,
                decay=self.decay,
            ),
            roles=self.roles,
            trials=self.trials,
            sampler=self.sampler,
            reach=self.reach,
            check_widths=(4 * self.width,) if self.check_widths is None else self.check_widths,
            check_seeds=self.check_seeds,
        )
        check_sampler(tuning)
        self.check_engine()
        problem = self.load(width=(self.width,), check_widths=tuning.check_widths)
        work_by_width(tuning, problem)  # Refuses, before there is a folder, what doesn't fit.
        self.say_data(problem, console)
        check_tuned_files(self.out)
        with self.training(tuning.setting, problem) as engine, ProgressBar(console) as bar:
            tuned = tune(tuning, problem, self.out, bar, engine=engine)
        kept = f"all runs are kept; scalex report {in_shell(self.out)} writes the report"
        with _process.keeping(kept):
            self._report(tuned, problem, console)

    def _report(self, tuned: Tuned, problem: Problem, console: Console) -> None:
        print_tuned(tuned, console)
        facts = {**problem.said, "environment": environment()}
        write_tuned_files(tuned, facts, self.out, console)
        console.print(f"wrote {shown(self.out)}/tuned.json and landscape.png")
        console.print(shlex.join(["scalex", *self._plan_words(tuned)]), soft_wrap=True)

    def _plan_words(self, tuned: Tuned) -> list[str]:
        """The command that prints what the answer does to each weight at the largest width."""
        words = plan_words(tuned.tuned, self.width)
        words += ["--width", str(max(tuned.tuning.widths))]
        for name in [*(field.name for field in dataclasses.fields(ProblemOptions)), "depth"]:
            value = getattr(self, name)
            if value is not None and value != TEXT:
                words += [f"--{name.replace('_', '-')}", str(value)]
        return words
