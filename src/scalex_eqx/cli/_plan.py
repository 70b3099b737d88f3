import dataclasses
from typing import Annotated

import equinox as eqx
import jax
import optax
import tyro
from rich.console import Console

from .. import plan
from .._parameterize import parameterize
from ..experiments import Recipe, parse_learning_rate, parse_recipe
from ..experiments._config import check_positive, check_width, given_weight_decay
from ..experiments._recipe import check_on
from ..nn import Transformer
from ._budget import BudgetOptions
from ._help import RECIPE


@dataclasses.dataclass(frozen=True)
class Plan(BudgetOptions):
    """Print what a recipe does to each weight of the transfer run's Transformer at a width.

    Only shapes are made: any width costs nothing. For a model of your own, print
    scalex_eqx.plan(model, tx).

    Example: scalex plan mup:adam:full --width 4096 --base-width 64
    """

    recipe: Annotated[tyro.conf.Positional[str], tyro.conf.arg(help=RECIPE)] = dataclasses.field(
        kw_only=True
    )
    width: int = 256
    """The width of the residual stream, a multiple of the head dimension."""
    base_width: int = 64
    """The width at which the learning rate was tuned."""
    learning_rate: str = "2^-8"
    """At the base width, as 2^-8 or 0.004."""
    depth: int = 2
    """Blocks of the Transformer."""
    head_dimension: int = 16
    """Size of an attention head."""
    vocabulary_size: int = 256
    """Tokens that there are."""
    sequence_length: int = 64
    """Tokens in a sequence."""
    weight_decay: float = 0.0
    """Independent weight decay a step, for recipes with adamw."""
    json: bool = False
    """Print JSON."""

    def run(self, console: Console) -> None:
        recipe = parse_recipe(self.recipe)
        check_positive(self, "depth", "head_dimension", "vocabulary_size", "sequence_length")
        check_width("--width", self.width, self.head_dimension)
        check_width("--base-width", self.base_width, self.head_dimension)
        (recipe,) = given_weight_decay(self.weight_decay, [recipe])
        model = eqx.filter_eval_shape(
            lambda: parameterize(
                self._make,
                width=self.width,
                base_width=self.base_width,
                parameterization=recipe.law,
            )
        )
        check_on(recipe, model)
        found = plan(model, self._transformation(recipe))
        if self.json:
            console.print(found.to_json(), soft_wrap=True, markup=False, highlight=False)
        else:
            console.print(found)

    def _transformation(self, recipe: Recipe) -> optax.GradientTransformation:
        rate = parse_learning_rate(self.learning_rate, "--learning-rate")
        return recipe.transformation(rate, budget=self.budget(recipe.entry.family))

    def _make(self, width: int) -> Transformer:
        return Transformer(
            vocabulary_size=self.vocabulary_size,
            sequence_length=self.sequence_length,
            width=width,
            depth=self.depth,
            head_dimension=self.head_dimension,
            key=jax.random.key(0),
        )
