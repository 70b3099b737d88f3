"""How the learning rate rises and falls."""

import dataclasses
from typing import Any, Literal, get_args

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._usage import UsageError
from ..experiments._program import Schedule as Cosine

Shape = Literal["cosine", "linear", "constant", "wsd"]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A factor between 0 and 1 of the peak learning rate, for each step.

    All shapes rise linearly over the first `warmup` of the steps. Then `cosine` and `linear` fall
    to 0 at the last step, `constant` stays, and `wsd` (warm up, stay, decay) stays until the last
    `decay` of the steps and falls linearly to 0 over those.

    **Arguments:**

    - `steps`: of the training.
    - `shape`: one of the four.
    - `warmup`, `decay`: shares of the steps.

    **Raises:** `UsageError` for another shape, and shares that don't lie in 0 to 1 together.
    """

    steps: int
    shape: str = "cosine"
    warmup: float = 0.1
    decay: float = 0.2

    def __post_init__(self) -> None:
        if self.shape not in get_args(Shape):
            raise UsageError(
                f"--schedule is {self.shape!r}; choose from {', '.join(get_args(Shape))}"
            )
        falling = self.decay if self.shape == "wsd" else 0.0
        if not (0 <= self.warmup <= 1 and falling >= 0 and self.warmup + falling <= 1):
            raise UsageError(
                f"--warmup is {self.warmup}, and --decay {self.decay}; expected shares of the "
                "steps, at most 1 together"
            )

    def __call__(self, count: Any) -> Float[Array, ""]:
        """The factor at a step, counted from 0."""
        if self.shape == "cosine":
            return Cosine(self.steps, self.warmup)(jnp.asarray(count))
        time = (jnp.asarray(count) + 1).astype(jnp.result_type(float))
        rise = max(1.0, self.warmup * self.steps)
        fall = {"linear": self.steps - rise, "wsd": self.decay * self.steps}.get(self.shape)
        falling = 1.0 if fall is None else (self.steps - time) / max(1.0, fall)
        return jnp.minimum(jnp.minimum(time / rise, 1.0), falling)
