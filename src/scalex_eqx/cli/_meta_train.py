import dataclasses
import datetime
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from .._usage import in_shell, shown
from ..experiments import Recipe, UsageError, parse_recipe
from ..experiments._config import check_distinct, check_positive
from ..meta_training import MetaTrained, Settings, Task, meta_train
from ..meta_training._estimators import Estimator
from ..meta_training._generalisation import Course, generalisation, generalisation_figure
from ..optim import Form, LearnedRule, load_rule, save_rule
from ..problems import Problem
from ._devices import use_all_cores
from ._help import own_options_first
from ._picture import check_picture, write_picture
from ._problem import ProblemOptions

_RECIPE = """parameterization:learned:rates, the law under which the rule is trained.
With learned(weights='FILE.npz') it goes on from that rule, otherwise from a random one.
A fourth part multiplies step sizes by role: mup:learned:full:hidden=1/16,readout=1/16."""


@own_options_first
@dataclasses.dataclass(frozen=True)
class MetaTrain(ProblemOptions):
    """Train an update rule: a small network that becomes good at training small models, and under
    its law at training large ones.

    The rule goes to OUT, for recipes as "mup:learned(weights='rule.npz'):full". The same command
    again goes on where it was stopped. Afterwards the rule trains wider, longer and deeper models
    than it has seen, and the losses are printed.

    Example: scalex meta-train mup:learned:full --out rule.npz

    Example: scalex meta-train mup:learned:full --problem digits --steps 100 --picture rule.png

    Example: scalex meta-train standard:learned:global --form direction --out direction.npz
    """

    recipe: Annotated[tyro.conf.Positional[str], tyro.conf.arg(help=_RECIPE)] = dataclasses.field(
        kw_only=True
    )
    problem: str = "teacher"
    """What is trained: teacher, an MLP on the classes of a random network; digits, an MLP on
    scikit-learn's digits; text, a Transformer; or FILE.py:NAME."""
    widths: tuple[int, ...] = (16, 32)
    """Of the models that the rule is trained on."""
    depth: int = 3
    """Of them, if they can be built of several."""
    base_width: int | None = None
    """Where the law's factors are one; the smallest of --widths if not given."""
    drawn_readout: bool = False
    """Let readouts start as the model draws them, and not at zero."""
    step_size: float = 0.01
    """lambda_1, the learning rate of the rule that is trained."""
    hidden: int = 16
    """ReLUs in each of the rule's two layers: 4 give 197 parameters, 16 give 953, 32 give 2409."""
    form: Form = "magnitude"
    """Of the update: magnitude, as published; direction, which has size one at every step; or
    matched, both."""
    steps: int = 300
    """Steps of the outer optimizer."""
    unroll: int = 100
    """Steps of a training that the rule is tried on."""
    truncation: int = 20
    """Of these, how many lie between two outer steps."""
    pairs: int = 8
    """Trainings at a time for each width, in antithetic pairs."""
    sigma: float = 0.01
    """Size of the perturbations."""
    estimator: Estimator = "pes"
    """pes, without bias; or unrolled, the gradient through one truncation."""
    outer_learning_rate: float = 3e-3
    """Adam's largest."""
    seed: int = 0
    """Of everything that is drawn."""
    out: Path = Path("rule.npz")
    """The file for the rule; the state of the training is kept beside it."""
    tried_widths: tuple[int, ...] = (32, 64, 128)
    """Of the models that it trains afterwards."""
    picture: Path | None = None
    """Draw their losses into this PNG file."""

    def run(self, console: Console) -> None:
        use_all_cores()
        recipe, settings = self._recipe(), self._settings()
        check_picture(self.picture)
        base = min(self.widths) if self.base_width is None else self.base_width
        problem = self.load(widths=(*self.widths, *self.tried_widths), base_width=(base,))
        if problem.read is not None:
            raise UsageError(
                f"--problem {self.problem} reads its batches on the host; expected one with data "
                "on the device"
            )
        tasks = [self._task(problem, recipe, width, base) for width in self.widths]
        self.out.parent.mkdir(parents=True, exist_ok=True)
        with Progress(console=Console(stderr=True), transient=True) as bar:
            found, took = self._trained(tasks, settings, self._first(recipe), bar)
            trying = bar.add_task("trying", total=None)
            courses = generalisation(
                tasks[-1],
                found.rule,
                widths=self.tried_widths,
                steps=settings.unroll,
                advance=lambda name: bar.update(trying, description=f"trying {name}"),
            )
        console.print(
            f"{found.rule.parameters} parameters, mean loss {found.losses[-50:].mean():.3f} at the "
            f"end, after {took}: {shown(self.out)}",
            soft_wrap=True,
        )
        console.print(_table(courses))
        if self.picture is not None:
            write_picture(generalisation_figure(courses), self.picture)

    def _trained(
        self, tasks: list[Task], settings: Settings, rule: LearnedRule, bar: Progress
    ) -> tuple[MetaTrained, str]:
        """What was found, written to its file, and how long that took, for people to read."""
        start, counts = time.monotonic(), []
        shown_task = bar.add_task("compiling", total=settings.steps)

        def progress(steps: int, loss: float) -> None:
            counts.append(steps)
            bar.update(shown_task, description=f"mean loss {loss:.3f}", completed=steps)

        keep = self.out.with_suffix(".state.npz")
        found = meta_train(tasks, settings, rule=rule, keep=keep, progress=progress)
        seconds = round(time.monotonic() - start)
        # Fewer where the training went on from its state.
        save_rule(found.rule, self.out, self._made(seconds, len(counts)))
        bar.remove_task(shown_task)
        rest = "" if len(counts) == settings.steps else f" for the last {len(counts)} steps"
        return found, f"{datetime.timedelta(seconds=seconds)}{rest}"

    def _recipe(self) -> Recipe:
        recipe = parse_recipe(self.recipe)
        if recipe.entry.name != "learned":
            raise UsageError(
                f"recipe {self.recipe!r} has the update rule {recipe.entry.name}; expected "
                "learned, as mup:learned:full"
            )
        if recipe.weight_decay is not None:
            raise UsageError(f"recipe {self.recipe!r} has a weight decay; leave it out")
        return recipe

    def _settings(self) -> Settings:
        check_distinct("--widths", self.widths, 1, "a rule is trained at some width")
        check_positive(self, "depth", "hidden")
        return Settings(
            steps=self.steps,
            unroll=self.unroll,
            truncation=self.truncation,
            pairs=self.pairs,
            sigma=self.sigma,
            estimator=self.estimator,
            learning_rate=self.outer_learning_rate,
            seed=self.seed,
        )

    def _task(self, problem: Problem, recipe: Recipe, width: int, base: int) -> Task:
        options = recipe.width_options
        sizes = {"width": width, "depth": self.depth} if problem.takes_depth else {"width": width}
        return Task(
            problem,
            sizes,
            base,
            parameterization=recipe.law,
            rates=options["rates"],
            learning_rate=self.step_size,
            role_multipliers=options["role_multipliers"] or {},
            zero_readout=not self.drawn_readout,
        )

    def _first(self, recipe: Recipe) -> LearnedRule:
        weights = dict(recipe.arguments).get("weights")
        if weights is not None:
            return load_rule(weights).rule
        return LearnedRule(self.hidden, form=self.form, key=jax.random.key(self.seed))

    def _made(self, seconds: int, steps: int) -> dict[str, Any]:
        return {
            "command": f"scalex {' '.join(map(in_shell, sys.argv[1:]))}",
            "recipe": self.recipe,
            "seed": self.seed,
            "seconds": seconds,
            "steps_in_seconds": steps,
            "devices": f"{jax.device_count()} of {jax.devices()[0].device_kind}",
            "date": datetime.date.today().isoformat(),
            "jax": jax.__version__,
        }


def _table(courses: list[Course]) -> Table:
    table = Table("trained", "mean loss of the last ten steps")
    for one in courses:
        table.add_row(one.name, f"{one.last:.3f}")
    return table
