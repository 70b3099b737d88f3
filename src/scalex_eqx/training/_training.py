"""What one training is: everything that decides its result, and how it is computed."""

import dataclasses
from typing import Any, Literal, get_args

import optax

from .. import optim
from .._usage import UsageError
from ..experiments import Recipe, Setting
from ..experiments._config import check_positive, check_seeds, check_width
from ..experiments._schedule import DECAY, Shape
from ..problems import Problem
from ..theory import Budget

Compute = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Training:
    """One model at one size, trained once.

    The numbers are those that were tuned at the base sizes; the recipe says what becomes of them at
    the model's own.

    **Arguments:**

    - `recipe`: as [`scalex_eqx.experiments.parse_recipe`][] makes it.
    - `width`, `base_width`: of the model, and at which the learning rate was tuned.
    - `learning_rate`: the peak, at the base.
    - `steps`: updates of the weights.
    - `depth`, `base_depth`: as the width's; a `base_depth` matters to a recipe with a law for it.
    - `base_batch_size`, `base_steps`: at which a recipe's rule for the batch size changes nothing.
    - `seed`: of the initial draw and the order of the data.
    - `schedule`, `warmup`, `decay`: see [`scalex_eqx.training.Schedule`][].
    - `clip`: the largest norm of the gradient of the effective weights, by
        [`scalex_eqx.clip_by_effective_norm`][].
    - `compute`: the dtype of the forward and backward pass. Weights, moments and the sum of the
        gradients are in the weights' own, float32.
    - `accumulate`: into how many parts a batch is cut, which are computed one after the other. The
        gradient is the mean of theirs: that of the batch where the loss is a mean over examples.
    - `recompute`: whether blocks are computed again in the backward pass; see
        [`scalex_eqx.nn.recompute_blocks`][].

    **Raises:** `UsageError` for numbers that can't be meant.
    """

    recipe: Recipe
    width: int
    base_width: int
    learning_rate: float
    steps: int
    depth: int | None = None
    base_depth: int | None = None
    base_batch_size: int | None = None
    base_steps: int | None = None
    seed: int = 0
    schedule: Shape = "cosine"
    warmup: float = 0.1
    decay: float = DECAY
    clip: float | None = None
    compute: Compute = "float32"
    accumulate: int = 1
    recompute: bool = False

    def __post_init__(self) -> None:
        check_width("--width", self.width)
        check_width("--base-width", self.base_width)
        counts = ("depth", "base_depth", "base_batch_size", "base_steps")
        given = [name for name in counts if getattr(self, name) is not None]
        check_positive(self, "steps", "accumulate", *given)
        check_seeds((self.seed,))
        if not 0 < self.learning_rate < float("inf"):
            raise UsageError(f"--learning-rate is {self.learning_rate}; expected a positive number")
        if self.clip is not None and not 0 < self.clip < float("inf"):
            raise UsageError(f"--clip is {self.clip}; expected a positive number")
        if self.compute not in get_args(Compute):
            raise UsageError(
                f"--compute is {self.compute!r}; choose from {', '.join(get_args(Compute))}"
            )
        if self.recipe.entry.decays and self.recipe.weight_decay is None:
            raise UsageError(
                f"recipe {self.recipe}: {self.recipe.entry.name} needs a weight decay; write "
                f"{self.recipe.entry.name}(weight_decay=1e-4), or give --weight-decay"
            )
        self.rate(0)

    @property
    def setting(self) -> Setting:
        """The sizes, as sweeps have them."""
        return Setting(
            self.base_width,
            self.steps,
            self.depth,
            warmup=self.warmup,
            schedule=self.schedule,
            decay=self.decay,
            base_depth=self.base_depth,
            base_batch_size=self.base_batch_size,
            base_steps=self.base_steps,
        )

    def of(self, problem: Problem) -> "Training":
        """The same with the depth that the problem's model has.

        **Raises:** `UsageError` for a depth that it doesn't take.
        """
        return dataclasses.replace(self, depth=self.setting.of(problem).depth)

    def rate(self, count: Any) -> Any:
        """The learning rate of a step at the base sizes."""
        return self.learning_rate * self.setting.schedule_at(self.width)(count)

    def optimizer(
        self, budget: Budget | None, *, at_peak: bool = False
    ) -> optax.GradientTransformation:
        """The recipe's, with the schedule, behind the clip.

        **Arguments:**

        - `budget`: of the recipe's rule for the batch size, if it changes anything.
        - `at_peak`: whether the learning rate stays at its peak, for a plan to print.
        """
        rate = self.learning_rate if at_peak else self.rate
        shape = None if at_peak else self.setting.schedule_at(self.width)
        own = self.recipe.transformation(rate, budget=budget, shape=shape)
        if self.clip is None:
            return own
        return optax.chain(optim.clip_by_effective_norm(self.clip), own)

    def facts(self, problem: Problem) -> dict[str, Any]:
        """What decides the result, as JSON: a checkpoint goes with no other.

        How it is computed, which changes the rounding alone, is left out.
        """
        names = [field.name for field in dataclasses.fields(self)]
        own = {name: getattr(self, name) for name in names if name not in _COMPUTED}
        return {**own, "recipe": str(self.recipe), "problem": dict(problem.facts)}


# Devices, parts and recomputation may be others after a restart.
_COMPUTED = ("accumulate", "recompute")
