"""What is tuned: the learning rate, and a constant for each role."""

import dataclasses
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from .._usage import UsageError
from ..theory._role import TRAINED
from ._config import (
    AbstractRuns,
    Setting,
    check_distinct,
    check_positive,
    check_seeds,
    check_width,
    given_weight_decay,
)
from ._recipe import Recipe, parse_recipe

SAMPLERS = ("tpe", "random", "grid")
USUAL_ROLES = ("embedding", "hidden", "readout")

Octaves = tuple[int, ...]
"""The logarithms of the constants to the base 2, in the order of the roles."""


@dataclasses.dataclass(frozen=True)
class Tuning(AbstractRuns):
    r"""Which constants $\gamma$ and which learning rate $\eta$ train a recipe best.

    $$\eta_l = \eta\, \gamma_{\text{role}(l)}\, r^{-c_l}$$

    The constants are whole powers of two, so that a recipe's text says them exactly, and learning
    rates are $\eta_0\, 2^{k/2}$.

    **Arguments:**

    - `recipe`: with the constants that it begins with.
    - `learning_rate`: $\eta_0$, where the search begins.
    - `seeds`: the loss of a trial is their mean.
    - `setting`: whose base width is tuned at.
    - `roles`: those with a constant to be found; the others keep theirs.
    - `trials`: how many sets of constants the sampler tries.
    - `sampler`: `tpe` or `random`, by Optuna, or `grid`.
    - `reach`: how many octaves either way the sampler looks.
    - `check_widths`: wider ones, at which the gain is looked at.
    - `check_seeds`: how many seeds that has: those behind the largest of `seeds`.

    **Raises:** `UsageError` for whatever could not be tuned.
    """

    recipe: Recipe
    learning_rate: float
    seeds: tuple[int, ...]
    setting: Setting
    roles: tuple[str, ...] = USUAL_ROLES
    trials: int = 64
    sampler: str = "tpe"
    reach: int = 4
    check_widths: tuple[int, ...] = ()
    check_seeds: int = 4

    def __post_init__(self) -> None:
        check_distinct("--seeds", self.seeds, 1, "each fixes draws and data order")
        check_seeds((*self.seeds, *self.fresh_seeds))
        check_distinct("--roles", self.roles, 1, "each gets a constant")
        for role in self.roles:
            _check_among("--roles", role, list(map(str, TRAINED)))
        _check_among("--sampler", self.sampler, SAMPLERS)
        check_positive(self, "trials", "reach", "check_seeds")
        if self.reach > 10:
            raise UsageError(f"--reach is {self.reach}; expected at most 10 octaves")
        check_positive(self.setting, "steps", *(("depth",) if self.setting.depth else ()))
        check_width("--width", self.setting.base_width)
        check_distinct("--check-widths", self.check_widths, 0, "")
        for width in self.check_widths:
            check_width("--check-widths", width)
            if width <= self.setting.base_width:
                raise UsageError(
                    f"--check-widths has {width}; expected widths above --width "
                    f"{self.setting.base_width}, where the constants are tuned"
                )
        self.setting.schedule_at(self.setting.base_width)
        given_weight_decay(0.0, [self.recipe])
        points = (2 * self.reach + 1) ** len(self.roles)
        if self.sampler == "grid" and points > self.trials:
            raise UsageError(
                f"--sampler grid has {points} points, and --trials is {self.trials}; give a "
                f"smaller --reach, fewer --roles, or --trials {points}"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """The base width, and those of the check."""
        return (self.setting.base_width, *sorted(self.check_widths))

    @property
    def fresh_seeds(self) -> tuple[int, ...]:
        """Those that no trial has seen."""
        first = max(self.seeds) + 1
        return tuple(range(first, first + self.check_seeds))

    @property
    def at_one(self) -> Octaves:
        """The constants that the recipe begins with."""
        return (0,) * len(self.roles)

    def with_constants(self, octaves: Sequence[int]) -> Recipe:
        """The recipe with each role's constant multiplied by a power of two."""
        factors = dict(self.recipe.multipliers)
        for role, power in zip(self.roles, octaves, strict=True):
            factors[role] = factors.get(role, 1) * Fraction(2) ** power
        return dataclasses.replace(self.recipe, multipliers=factors)

    def to_json(self) -> dict[str, object]:
        """The tuning as JSON's own types; `from_json` reads it."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        lists = {name: list(x) for name, x in own.items() if isinstance(x, tuple)}
        return {**own, **lists, "recipe": str(self.recipe), "setting": self.setting.to_json()}

    @staticmethod
    def from_json(fields: Mapping[str, Any]) -> "Tuning":
        """The tuning that `to_json` has written down."""
        lists = {name: tuple(x) for name, x in fields.items() if isinstance(x, list)}
        recipe, setting = parse_recipe(fields["recipe"]), Setting.from_json(fields["setting"])
        return Tuning(**{**fields, **lists, "recipe": recipe, "setting": setting})

    def rate(self, step: int) -> float:
        """The learning rate that many half octaves from the first."""
        return self.learning_rate * 2.0 ** (step / 2)


def _check_among(option: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise UsageError(f"{option} has {value!r}; choose from {', '.join(known)}")
