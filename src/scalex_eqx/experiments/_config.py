import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

from .._usage import UsageError
from ..problems import Problem
from ._axes import BATCH_SIZE, Axis
from ._recipe import Recipe, parse_recipe
from ._rows import run_keys
from ._setting import Setting as Setting
from ._specification import specification

# Arrays are indexed, and steps counted, by 32 bits.
LARGEST = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Member:
    """One run to be made: a recipe at one size of the sweep, trained once."""

    recipe: Recipe
    size: int
    learning_rate: float
    seed: int


class AbstractRuns:
    """Runs of one setting, as the store names them."""

    setting: Setting

    def specification(self, member: Member, problem: Mapping[str, object]) -> dict[str, object]:
        """Everything that decides a run's result; the store's key is made of it.

        **Arguments:**

        - `problem`: the facts of the problem, as the setting has them.
        """
        setting = self.setting
        return specification(
            problem=setting.facts_at(problem, member.size),
            sizes=setting.sizes(member.size),
            base=setting.base(member.recipe),
            recipe=str(member.recipe),
            schedule=setting.schedule_at(member.size),
            learning_rate=member.learning_rate,
            seed=member.seed,
        )

    def keys_of(
        self, members: Sequence[Member], problem: Mapping[str, object]
    ) -> dict[Member, str]:
        """The store's key of each of some runs."""
        found: dict[Member, str] = {}
        for _, group in itertools.groupby(members, lambda one: (one.recipe, one.size)):
            own = list(group)
            shared = self.specification(own[0], problem)
            varying = [{"learning_rate": one.learning_rate, "seed": one.seed} for one in own]
            found |= zip(own, run_keys(shared, varying), strict=True)
        return found


@dataclasses.dataclass(frozen=True)
class Sweep(AbstractRuns):
    """Recipes x sizes x learning rates x seeds, in one setting, whose axis the sizes are on.

    **Raises:** `UsageError` for whatever could not be trained or judged.
    """

    recipes: tuple[Recipe, ...]
    sizes: tuple[int, ...]
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...]
    setting: Setting

    def __post_init__(self) -> None:
        check_distinct("--recipes", self.recipes, 1, "each is compared with the others")
        check_distinct(
            self.axis.option, self.sizes, 2, f"a drift is a slope across {self.axis.plural}"
        )
        check_distinct(
            "--learning-rates", self.learning_rates, 3, "a minimum needs a point on both sides"
        )
        _check_apart(self.learning_rates)
        check_distinct("--seeds", self.seeds, 1, "each fixes draws and data order")
        _check_setting(self)

    @property
    def axis(self) -> Axis:
        """The size that it is over."""
        return self.setting.axis

    def members(self) -> list[Member]:
        """Every run of the sweep, small sizes first within each recipe."""
        cells = itertools.product(self.recipes, sorted(self.sizes))
        numbers = list(itertools.product(self.seeds, sorted(self.learning_rates)))
        return [
            Member(recipe, size, rate, seed) for recipe, size in cells for seed, rate in numbers
        ]

    def keys(self, problem: Mapping[str, object]) -> dict[Member, str]:
        """The store's key of every run."""
        return self.keys_of(self.members(), problem)

    def of(self, problem: Problem) -> "Sweep":
        """The same with the depth that the problem's model has.

        **Raises:** `UsageError` for a depth that it doesn't take.
        """
        return dataclasses.replace(self, setting=self.setting.of(problem))

    def facts(self, problem: Problem) -> dict[str, object]:
        """What the problem's part of the runs' keys is made of."""
        return self.setting.facts(problem, self.sizes)

    def configuration(self, problem: Problem) -> dict[str, object]:
        """The sweep with its problem, as a store keeps it for reports."""
        return {**self.to_json(), "problem": self.facts(problem), "said": dict(problem.said)}

    def to_json(self) -> dict[str, object]:
        """The sweep as JSON's own types; `from_json` reads it."""
        return {
            "recipes": [str(recipe) for recipe in self.recipes],
            self.axis.names: list(self.sizes),
            "learning_rates": list(self.learning_rates),
            "seeds": list(self.seeds),
            "setting": self.setting.to_json(),
        }

    @staticmethod
    def from_json(fields: dict) -> "Sweep":
        """The sweep that `to_json` has written down."""
        setting = Setting.from_json(fields["setting"])
        return Sweep(
            recipes=tuple(parse_recipe(text) for text in fields["recipes"]),
            sizes=tuple(fields[setting.axis.names]),
            learning_rates=tuple(fields["learning_rates"]),
            seeds=tuple(fields["seeds"]),
            setting=setting,
        )


def parse_learning_rate(text: str, option: str = "--learning-rates") -> float:
    """A learning rate written as `0.004` or `2^-8`, and given by a command's `option`.

    **Raises:** `UsageError` if it is neither, or not positive and finite.
    """
    base, power, exponent = text.partition("^")
    try:
        rate = float(base) ** float(exponent) if power else float(base)
    except (ValueError, OverflowError, ZeroDivisionError):
        rate = math.nan
    # Training is in float32, which keeps no positive number outside these limits.
    if isinstance(rate, complex) or not 1e-37 < rate < 1e38 or not text.isascii():
        raise UsageError(f"{option} has {text!r}; expected positive numbers such as 0.004 or 2^-8")
    return rate


def check_distinct(option: str, values: Sequence[object], at_least: int, why: str) -> None:
    """Refuses values that are too few, and one that is given twice."""
    if len(values) < at_least:
        given = f"{len(values)} value{'' if len(values) == 1 else 's'}"
        raise UsageError(f"{option} has {given}; give at least {at_least}: {why}")
    repeated = [value for value in dict.fromkeys(values) if list(values).count(value) > 1]
    if repeated:
        raise UsageError(f"{option} has {repeated[0]} more than once; give each value once")


def _check_apart(learning_rates: Sequence[float]) -> None:
    """Rates that differ by rounding alone would be two points of one curve at the same place."""
    ordered = sorted(learning_rates)
    for low, high in itertools.pairwise(ordered):
        if high < low * (1 + 1e-6):
            raise UsageError(f"--learning-rates has {low} and {high}, which are the same; drop one")


def _check_setting(sweep: Sweep) -> None:
    setting = sweep.setting
    for size in sweep.sizes:
        check_width(setting.axis.option, size)
    given = [name for name in _COUNTS if getattr(setting, name) is not None]
    check_positive(setting, "steps", *given)
    check_width("--base-width", setting.base_width)
    if setting.axis == BATCH_SIZE:
        _check_steps(sweep)
    check_seeds(sweep.seeds)
    given_weight_decay(0.0, sweep.recipes)
    for size in sweep.sizes:
        setting.schedule_at(size)


_COUNTS = ("width", "depth", "base_depth", "base_batch_size", "base_steps")


def _check_steps(sweep: Sweep) -> None:
    """Refuses batches so large that as many examples are less than one."""
    setting, largest = sweep.setting, max(sweep.sizes)
    if setting.steps_at(largest) < 1:
        raise UsageError(
            f"--batch-sizes has {largest}, and {setting.steps} steps of {setting.base_batch_size} "
            "are less than one of that; give more --steps, or --same-steps"
        )


def check_positive(settings: object, *names: str) -> None:
    """Refuses numbers below 1 and sizes beyond 32 bits, by the options that gave them."""
    for name in names:
        value = getattr(settings, name)
        option = f"--{name.replace('_', '-')}"
        if value < 1:
            raise UsageError(f"{option} is {value}; expected at least 1")
        _check_size(f"{option} is", value)


def _check_size(what: str, size: int) -> None:
    if size > LARGEST:
        raise UsageError(f"{what} {_abridged(size)}; expected at most {LARGEST}")


def _abridged(number: int) -> str:
    """Python refuses to write numbers of more than 4300 digits."""
    return str(number) if abs(number) < 10**40 else "a number of more than 40 digits"


def check_width(option: str, width: int, head_dimension: int = 1) -> None:
    """Refuses a width that is not positive, or no whole number of attention heads."""
    if width < 1 and head_dimension == 1:
        raise UsageError(f"{option} has {width}; expected at least 1")
    _check_size(f"{option} has", width)
    if width < 1 or width % head_dimension:
        raise UsageError(
            f"{option} has {width}, which is not a positive multiple of --head-dimension "
            f"{head_dimension}; choose another width or another head dimension"
        )


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuses numbers that no random key can be made of."""
    for seed in seeds:
        if not 0 <= seed < 2**31:
            raise UsageError(
                f"--seeds has {_abridged(seed)}; expected whole numbers from 0 to 2147483647"
            )


def given_weight_decay(weight_decay: float, recipes: Sequence[Recipe]) -> tuple[Recipe, ...]:
    """The recipes, those that need a weight decay and have none with this one.

    **Raises:** `UsageError` for a decay that no recipe uses, and a recipe that lacks one.
    """
    if not 0 <= weight_decay < 1:
        raise UsageError(f"--weight-decay is {weight_decay}; expected at least 0 and less than 1")
    lacking = [one for one in recipes if one.entry.decays and one.weight_decay is None]
    if lacking and weight_decay <= 0:
        name = lacking[0].entry.name
        raise UsageError(f"a recipe uses {name}; give a positive --weight-decay, or use adam")
    if weight_decay and not lacking:
        raise UsageError(
            f"--weight-decay is {weight_decay}, but no recipe decays without one of its own; use "
            "adamw in one"
        )
    return tuple(
        one.with_arguments(weight_decay=weight_decay) if one in lacking else one for one in recipes
    )
