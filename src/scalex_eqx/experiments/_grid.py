"""The grid of parameterizations, update rules and rates: what is trained, and where it ends.

Each recipe and width begins with a few learning rates, an octave apart. Where a seed's minimum
lies at the edge, the rates go on beyond it, and where it lies next to a diverged run, between the
two. Around each minimum come the two rates half an octave away. All seeds of a recipe and width
have the same rates, so that their curves can be compared. Beyond `reach` octaves nothing is added:
a minimum that is still at the edge is inconclusive, as everywhere.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .._usage import UsageError
from ._config import Member, Setting, Sweep
from ._fits import Run
from ._optimum import ALL_DIVERGED, LOWER_EDGE, UPPER_EDGE, fit_optimum
from ._recipe import RATES, THE_FOUR, Recipe, parse_recipe
from ._schedule import DECAY

Losses = Mapping[Member, float | None]
Cell = tuple[Recipe, int]  # a recipe at a width

# In octaves: between a minimum and its neighbours, and between it and a diverged run.
_FINE = 0.5
_FINEST = 0.25
# How far an edge is moved at once. A further round costs a wait, and often one octave is too few.
_STRIDE = (2.0, 4.0)

# The published default, beside that which follows the gradients.
_CONSTANT = "eps=1e-09,eps_scaling='constant'"
_ADAM, _RELATIVE, _SGD = (-8, -4), (-6, -2), (-5, -1)


@dataclasses.dataclass(frozen=True)
class Preset:
    """A grid by name.

    **Arguments:**

    - `rules`: update rules, each with the exponents of two of the first and last learning rate
        that every one of its recipes begins with.
    - `widths`, `seeds`, `steps`, `depth`, `schedule`, `warmup`, `decay`: as of a sweep. The
        smallest width is the base.
    - `text`: what is not default in the problem, if that is text.
    """

    rules: Mapping[str, tuple[int, int]]
    widths: tuple[int, ...]
    seeds: tuple[int, ...]
    steps: int
    depth: int | None = 2
    text: Mapping[str, int] = dataclasses.field(default_factory=dict)
    schedule: str = "cosine"
    warmup: float = 0.1
    decay: float = DECAY


_ALL_RULES = {
    "adam": _ADAM,
    f"adam({_CONSTANT})": _ADAM,
    "adam_parameter_scaling": _RELATIVE,
    f"adam_parameter_scaling({_CONSTANT})": _RELATIVE,
    "adafactor": _RELATIVE,
    "adafactor(eps_scaling='constant')": _RELATIVE,
    "sgd": _SGD,
    "adam_atan2": _ADAM,
}

PRESETS: Mapping[str, Preset] = {
    "docs": Preset({"adam": _ADAM}, (32, 128), (0, 1, 2, 3), 100, depth=1),
    "full": Preset(_ALL_RULES, (64, 128, 256), (0, 1, 2, 3), 250),
    "gpu": Preset(
        _ALL_RULES,
        (128, 256, 512, 1024),
        (0, 1, 2, 3, 4),
        2000,
        depth=4,
        text={"batch_size": 32, "sequence_length": 128, "head_dimension": 32},
    ),
}


@dataclasses.dataclass(frozen=True)
class Grid:
    """What a preset trains.

    **Arguments:**

    - `sweep`: all recipes, with the widths, seeds and setting. Its learning rates are those that
        any recipe begins with.
    - `first`: the learning rates that the recipes of each rule begin with.
    - `reach`: how many octaves beyond those may be added.
    """

    sweep: Sweep
    first: Mapping[str, tuple[float, ...]]
    reach: int

    def __post_init__(self) -> None:
        if self.reach < 0:
            raise UsageError(f"--reach is {self.reach}; expected octaves, at least 0")

    @staticmethod
    def of(preset: Preset, reach: int) -> "Grid":
        """The grid of a preset."""
        first = {
            rule: tuple(2.0**power for power in range(low, high + 1))
            for rule, (low, high) in preset.rules.items()
        }
        recipes = itertools.product(preset.rules, THE_FOUR, RATES)
        sweep = Sweep(
            recipes=tuple(parse_recipe(f"{law}:{rule}:{rates}") for rule, law, rates in recipes),
            sizes=preset.widths,
            learning_rates=tuple(sorted({rate for rates in first.values() for rate in rates})),
            seeds=preset.seeds,
            setting=Setting(
                min(preset.widths, default=0),
                preset.steps,
                preset.depth,
                warmup=preset.warmup,
                schedule=preset.schedule,
                decay=preset.decay,
            ),
        )
        return Grid(sweep, first, reach)

    def to_json(self) -> dict[str, Any]:
        """As JSON's own types, beside the sweep; `from_json` reads it."""
        return {"first": {rule: list(x) for rule, x in self.first.items()}, "reach": self.reach}

    @staticmethod
    def from_json(configuration: Mapping[str, Any]) -> "Grid":
        """The grid of a stored sweep."""
        fields = configuration["grid"]
        first = {rule: tuple(rates) for rule, rates in fields["first"].items()}
        return Grid(Sweep.from_json(dict(configuration)), first, fields["reach"])

    def cells(self) -> list[Cell]:
        """Every recipe at every width; rule by rule, and small widths first."""
        widths = sorted(self.sweep.sizes)
        return [
            (recipe, width)
            for rule in self.first
            for width in widths
            for recipe in self.sweep.recipes
            if recipe.optimizer == rule
        ]

    def needed(self, cell: Cell, losses: Losses) -> list[Member]:
        """The runs of a cell, as far as those that are finished say."""
        recipe, width = cell
        first = self.first[recipe.optimizer]
        limits = first[0] / 2.0**self.reach, first[-1] * 2.0**self.reach
        rates = list(first)
        while True:
            members = [Member(*cell, rate, seed) for seed in self.sweep.seeds for rate in rates]
            if any(member not in losses for member in members):
                return members
            curves = [
                [losses[Member(recipe, width, rate, seed)] for rate in rates]
                for seed in self.sweep.seeds
            ]
            more = further(rates, curves, limits)
            if not more:
                return members
            rates = sorted([*rates, *more])


def further(
    rates: Sequence[float],
    curves: Sequence[Sequence[float | None]],
    limits: tuple[float, float],
) -> list[float]:
    """The learning rates that a cell needs beside those that it has.

    **Arguments:**

    - `rates`: those that it has, in order.
    - `curves`: for each seed, the loss at each of them.
    - `limits`: the smallest and the largest that may be added.
    """
    found: set[float] = set()
    for losses in curves:
        note = fit_optimum(rates, losses).note
        if note in (LOWER_EDGE, ALL_DIVERGED):
            found.update(rates[0] / factor for factor in _STRIDE)
        elif note == UPPER_EDGE:
            found.update(rates[-1] * factor for factor in _STRIDE)
        else:
            found.update(_between(rates, losses))
    low, high = limits
    return sorted(rate for rate in found if low <= rate <= high)


def _between(rates: Sequence[float], losses: Sequence[float | None]) -> list[float]:
    """Rates between the lowest point and its neighbours that are far away."""
    values = [math.inf if loss is None or math.isnan(loss) else loss for loss in losses]
    lowest = values.index(min(values))
    found = []
    for neighbour in (lowest - 1, lowest + 1):
        apart = abs(math.log2(rates[neighbour] / rates[lowest]))
        finest = _FINEST if math.isinf(values[neighbour]) else _FINE
        if apart > 1.001 * finest:
            found.append(math.sqrt(rates[neighbour] * rates[lowest]))
    return found


def gone_through(
    grid: Grid, known: Callable[[list[Member]], Losses]
) -> tuple[dict[Member, float | None], list[Member]]:
    """The losses of the runs that are finished, and the runs that are needed next.

    **Arguments:**

    - `known`: the losses of those of the runs that are finished.
    """
    losses: dict[Member, float | None] = {}
    while True:
        needed = [one for cell in grid.cells() for one in grid.needed(cell, losses)]
        missing = [one for one in needed if one not in losses]
        new = known(missing)
        if not new:
            return losses, missing
        losses.update(new)


def runs_of(losses: Losses) -> list[Run]:
    """The finished runs, by the names of their recipes."""
    names = {recipe: str(recipe) for recipe in dict.fromkeys(one.recipe for one in losses)}
    return [
        Run(names[one.recipe], one.size, one.learning_rate, one.seed, loss)
        for one, loss in losses.items()
    ]
