import dataclasses
from typing import Annotated

import equinox as eqx
import jax
import optax
import tyro
from rich.console import Console

from .. import plan
from .._parameterize import parameterize
from .._weight import is_trainable
from ..experiments import Recipe, Setting, parse_learning_rate, parse_recipe
from ..experiments._config import check_positive, check_width, given_weight_decay
from ..experiments._recipe import check_on
from ..problems._functions import parameterizing
from ._budget import BudgetOptions
from ._help import RECIPE, own_options_first
from ._problem import ProblemOptions


@own_options_first
@dataclasses.dataclass(frozen=True)
class Plan(BudgetOptions, ProblemOptions):
    """Print what a recipe does to each weight of the transfer run's Transformer, or of a problem
    of your own, at a width.

    Only shapes are made: any width costs nothing.

    Example: scalex plan mup:adam:full --width 4096 --base-width 64

    Example: scalex plan mup:adam:full --problem my_model.py:problem --width 4096
    """

    recipe: Annotated[tyro.conf.Positional[str], tyro.conf.arg(help=RECIPE)] = dataclasses.field(
        kw_only=True
    )
    width: int = 256
    """The width of the model; of the text's, a multiple of the head dimension."""
    base_width: int = 64
    """The width at which the learning rate was tuned."""
    learning_rate: str = "2^-8"
    """At the base width, as 2^-8 or 0.004."""
    depth: int | None = None
    """Blocks of the model, if it can be built of several; 2 if not given."""
    weight_decay: float = 0.0
    """Independent weight decay a step, for recipes with adamw."""
    json: bool = False
    """Print JSON."""

    def run(self, console: Console) -> None:
        recipe = parse_recipe(self.recipe)
        if self.depth is not None:
            check_positive(self, "depth")
        check_width("--width", self.width)
        check_width("--base-width", self.base_width)
        (recipe,) = given_weight_decay(self.weight_decay, [recipe])
        problem = self.load(width=(self.width,), base_width=(self.base_width,))
        setting = Setting(self.base_width, 1, self.depth).of(problem)
        problem.check_growth(setting.sizes(self.width), setting.sizes(self.base_width))
        with parameterizing():
            model = eqx.filter_eval_shape(
                lambda: parameterize(
                    lambda width: problem.build(setting.sizes(width), jax.random.key(0)),
                    width=self.width,
                    base_width=self.base_width,
                    parameterization=recipe.law,
                )
            )
        arrays = eqx.filter(model, is_trainable)
        check_on(recipe, arrays)
        found = plan(arrays, self._transformation(recipe))
        if self.json:
            console.print(found.to_json(), soft_wrap=True, markup=False, highlight=False)
        else:
            console.print(found)

    def _transformation(self, recipe: Recipe) -> optax.GradientTransformation:
        rate = parse_learning_rate(self.learning_rate, "--learning-rate")
        return recipe.transformation(
            rate, budget=self.budget(recipe.entry.family, recipe.batch_rule)
        )
