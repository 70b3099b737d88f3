import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import equinox as eqx
import jax
import tyro
from jaxtyping import PyTree
from rich.console import Console
from rich.progress import Progress

from .. import diagnostics
from .._parameterize import parameterize
from ..diagnostics import Table
from ..experiments import Recipe, Setting, UsageError, parse_learning_rate, parse_recipe
from ..experiments._config import check_positive, check_seeds, check_width, given_weight_decay
from ..problems import Problem
from ..problems._functions import parameterizing
from ..problems._problem import data_key
from ._help import RECIPE
from ._measured import batches, check_shapes
from ._picture import check_picture, write_picture
from ._problem import ProblemOptions

_Found = TypeVar("_Found")


@dataclasses.dataclass(frozen=True)
class Watching(ProblemOptions):
    """A training of some steps that is looked at as it goes."""

    # As for other measurements of a few steps.
    _usual_length: ClassVar[int] = 64
    _most_tokens: ClassVar[int | None] = 1 << 20

    recipe: Annotated[tyro.conf.Positional[str], tyro.conf.arg(help=RECIPE)] = dataclasses.field(
        kw_only=True
    )
    width: int = 128
    """Of the model; of the text's, a multiple of the head dimension."""
    base_width: int = 64
    """The width at which the learning rate was tuned."""
    depth: int | None = None
    """Blocks of the model, if it can be built of several; 2 if not given."""
    seed: int = 0
    """Fixes initial draws and batches."""
    steps: int = 100
    """Training steps, with a learning rate that rises for the first tenth and then falls to 0."""
    at: tuple[int, ...] | None = None
    """The steps that are measured; 0 1 2 4 8 and so on if not given, and the last."""
    learning_rate: str = "2^-8"
    """The largest, at the base width, as 2^-8 or 0.004."""
    weight_decay: float = 0.0
    """Independent weight decay a step, for recipes with adamw."""
    json: bool = False
    """Print JSON."""
    picture: Path | None = None
    """Draw what was found over training into this PNG file."""

    def watch(
        self, measure: Callable[..., _Found], of: Callable[[Problem, PyTree], dict[str, Any]]
    ) -> _Found:
        """Trains and measures, with a progress bar on the error stream.

        **Arguments:**

        - `measure`: called by name with `model`, `tx`, `draw`, `steps`, `at`, `key` and `advance`.
        - `of`: its further arguments by name, from the problem and the model.
        """
        recipe = self._checked()
        problem = self.load(width=(self.width,), base_width=(self.base_width,))
        setting = Setting(self.base_width, self.steps, self.depth).of(problem)
        rate = parse_learning_rate(self.learning_rate, "--learning-rate")
        shape = setting.schedule_at(setting.base_width)
        tx = recipe.transformation(lambda count: rate * shape(count), shape=shape)
        key = jax.random.fold_in(jax.random.key(self.seed), 0)

        def build() -> PyTree:
            return parameterize(
                lambda width: problem.build(setting.sizes(width), key),
                width=self.width,
                base_width=self.base_width,
                parameterization=recipe.law,
            )

        problem.check_growth(setting.sizes(self.width), setting.sizes(self.base_width))
        with parameterizing():
            shapes = eqx.filter_eval_shape(build)
        check_shapes(problem, recipe, shapes, self.width)
        draw = batches(problem, [(self.seed, step) for step in range(self.steps)])
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("compiling", total=self.steps)

            def advance(done: int, total: int) -> None:
                progress.update(task, description="training", completed=done, total=total)

            model = build()
            given = of(problem, model)
            try:
                return measure(
                    model=model,
                    tx=tx,
                    draw=draw,
                    steps=self.steps,
                    at=self.at,
                    key=data_key(self.seed),
                    advance=advance,
                    **given,
                )
            except ValueError as error:
                raise UsageError(str(error)) from None

    def show(
        self, found: Any, tables: list[Table], figure: Callable[[Any], Any], console: Console
    ) -> int:
        """Prints what was found, and draws it where that is asked for; returns the exit code."""
        command = f"scalex {type(self).__name__.lower()}"
        text = diagnostics.record(tables, command=command).to_json() if self.json else str(found)
        console.print(text, soft_wrap=True, markup=False, highlight=False)
        if self.picture is not None:
            write_picture(figure(found), self.picture)
        return 0

    def _checked(self) -> Recipe:
        recipe = parse_recipe(self.recipe)
        check_positive(self, "steps", *(() if self.depth is None else ("depth",)))
        check_width("--width", self.width)
        check_width("--base-width", self.base_width)
        check_seeds((self.seed,))
        check_picture(self.picture)
        (recipe,) = given_weight_decay(self.weight_decay, [recipe])
        return recipe
