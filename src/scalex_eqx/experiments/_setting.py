"""What the runs of a sweep have in common, and what each size of the sweep makes of it."""

import dataclasses
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from .._usage import UsageError
from ..optim._budget import decay_width
from ..problems import Problem
from ..theory import Budget
from ._axes import AXES, BATCH_SIZE, DEPTH, INVERSE_DENSITY, WIDTH, Axis
from ._recipe import Recipe
from ._schedule import DECAY, Schedule

MASKS = INVERSE_DENSITY.name
_DEPTH = 2
_BY_BATCH_SIZE = "by_batch_size"

# The fields that reports had before a sweep could be over another size than the width.
_ALWAYS = ("base_width", "steps", "depth", "warmup")


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all runs of a sweep have in common beside the problem.

    **Arguments:**

    - `base_width`: at which all recipes are the same model.
    - `steps`: of the training; in a sweep over batch sizes, of that at the base batch size.
    - `depth`: of the model, if the problem's `make` takes one and the sweep isn't over it.
    - `warmup`, `schedule`, `decay`: how the learning rate rises and falls; see
        [`scalex_eqx.training.Schedule`][].
    - `axis`: the size that the sweep is over.
    - `width`: of the model, if the sweep isn't over it.
    - `base_depth`: at which a law for the depth changes nothing; that of the model unless given.
    - `base_batch_size`: at which a rule for the batch size changes nothing; the run's own unless
        given.
    - `base_steps`: how long the training was for which the numbers were tuned; as many examples as
        the run has unless given.
    - `same_steps`: of a sweep over batch sizes, whether each has as many steps. By default each
        has as many examples.
    """

    base_width: int
    steps: int
    depth: int | None = None
    warmup: float = 0.1
    schedule: str = "cosine"
    decay: float = DECAY
    axis: Axis = WIDTH
    width: int | None = None
    base_depth: int | None = None
    base_batch_size: int | None = None
    base_steps: int | None = None
    same_steps: bool = False

    def of(self, problem: Problem) -> "Setting":
        """The same with the depth that the problem's model has.

        **Raises:** `UsageError` for a depth that it doesn't take.
        """
        if problem.takes_depth:
            is_known = self.depth is not None or self.axis == DEPTH
            return self if is_known else dataclasses.replace(self, depth=_DEPTH)
        if self.axis == DEPTH or self.depth is not None:
            given = DEPTH.option if self.axis == DEPTH else "--depth"
            what = "depths are swept over" if self.axis == DEPTH else f"depth is {self.depth}"
            raise UsageError(
                f"{what}, but make of the problem {problem.name} takes none; leave out {given}, or "
                "give make a parameter depth"
            )
        return self

    def sizes(self, size: int) -> dict[str, int]:
        """The sizes of the model at a size of the sweep, as the problem's `make` takes them.

        One that it doesn't take is that of the masks which the model gets.
        """
        width = size if self.axis == WIDTH else self.width
        depth = size if self.axis == DEPTH else self.depth
        assert width is not None, "a sweep over another size has a width"
        sizes = {"width": width} if depth is None else {"width": width, "depth": depth}
        return {**sizes, MASKS: size} if self.axis == INVERSE_DENSITY else sizes

    def base_sizes(self, size: int) -> dict[str, int]:
        """The sizes at which all recipes are the same model."""
        sizes = {**self.sizes(size), "width": self.base_width}
        sizes.pop(MASKS, None)
        return sizes if self.base_depth is None else {**sizes, "depth": self.base_depth}

    def base(self, recipe: Recipe) -> dict[str, int]:
        """Those bases that the recipe's laws and rules know of: a part of a run's key."""
        base = {"width": self.base_width}
        if recipe.law.branch is not None and self.base_depth is not None:
            base["depth"] = self.base_depth
        if recipe.batch_rule is not None and self.base_batch_size is not None:
            base["batch_size"] = self.base_batch_size
            if self.axis == BATCH_SIZE and self.same_steps:
                base["steps"] = self.steps
            elif self.base_steps is not None:
                base["steps"] = self.base_steps
        return base

    def steps_at(self, size: int) -> int:
        """The steps of a run; as many examples as at the base batch size take, to half a step."""
        if self.axis != BATCH_SIZE or self.same_steps:
            return self.steps
        assert self.base_batch_size is not None, "a sweep over batch sizes has a base"
        return round(Fraction(self.steps * self.base_batch_size, size))

    def schedule_at(self, size: int) -> Schedule:
        """Of the learning rate of a run.

        **Raises:** `UsageError` for a schedule that there isn't.
        """
        return Schedule(self.steps_at(size), self.schedule, self.warmup, self.decay)

    def work_at(self, size: int) -> float:
        """The work of a step, as a multiple of that at the base batch size."""
        if self.axis != BATCH_SIZE:
            return 1.0
        assert self.base_batch_size is not None, "a sweep over batch sizes has a base"
        return size / self.base_batch_size

    def problem_at(self, problem: Problem, size: int) -> Problem:
        """The problem whose batches have the size that a run is to have."""
        return problem.at_batch_size(size) if self.axis == BATCH_SIZE else problem

    def facts(self, problem: Problem, sizes: Iterable[int]) -> dict[str, Any]:
        """What the problem's part of the runs' keys is made of, also where it isn't at hand."""
        if self.axis != BATCH_SIZE:
            return problem.facts
        return {_BY_BATCH_SIZE: {str(n): problem.at_batch_size(n).facts for n in sorted(sizes)}}

    def facts_at(self, facts: Mapping[str, Any], size: int) -> Mapping[str, Any]:
        """The facts of the problem whose batches have the size that a run is to have."""
        return facts[_BY_BATCH_SIZE][str(size)] if self.axis == BATCH_SIZE else facts

    def budget(self, recipe: Recipe, problem: Problem, size: int) -> Budget | None:
        """The batch and the training of a run beside those at which its numbers were tuned.

        **Arguments:**

        - `problem`: that of the size.

        **Returns:** `None` where a recipe has no rule, or its rule changes nothing.

        **Raises:** `UsageError` if the problem doesn't say how large its batches are.
        """
        if recipe.batch_rule is None:
            return None
        base, batch = self.base_batch_size, problem.batch_size
        if base is not None and batch is None:
            raise UsageError(
                f"recipe {recipe} has a rule for the batch size, and the problem {problem.name} "
                "doesn't say its own; give it batch_size"
            )
        grown = Fraction(1) if base is None or batch is None else Fraction(batch, base)
        tokens = Fraction(1)
        if self.axis == BATCH_SIZE and self.same_steps:
            tokens = grown
        elif self.base_steps is not None:
            tokens = grown * Fraction(self.steps, self.base_steps)
        budget = Budget(recipe.batch_rule, batch=grown, base_batch=1, tokens=tokens, base_tokens=1)
        # Decay may follow the width by such a rule, whatever the batch size is.
        changes = (grown, tokens) != (1, 1) or decay_width(budget) is not None
        return budget if changes else None

    def to_json(self) -> dict[str, Any]:
        """As JSON's own types, without what a sweep over the width leaves as it is."""
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        given = {name: getattr(self, name) for name in usual}
        kept = {n: x for n, x in given.items() if n in _ALWAYS or x != usual[n]}
        return {**kept, "axis": self.axis.name} if "axis" in kept else kept

    @staticmethod
    def from_json(fields: Mapping[str, Any]) -> "Setting":
        """The setting that `to_json` has written down."""
        return Setting(**{**fields, "axis": AXES[fields.get("axis", WIDTH.name)]})
