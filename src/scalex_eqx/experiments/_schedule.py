"""How the learning rate rises and falls."""

import dataclasses
from typing import Any, Literal, get_args

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._usage import UsageError

Shape = Literal["cosine", "linear", "constant", "wsd"]
DECAY = 0.2


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A factor between 0 and 1 of the peak learning rate, for each step.

    All shapes rise linearly over the first `warmup` of the steps. Then `cosine` and `linear` fall
    to 0 at the last step, `constant` stays, and `wsd` (warm up, stay, decay) stays until the last
    `decay` of the steps and falls linearly to 0 over those.

    **Arguments:**

    - `steps`: of the training.
    - `shape`: one of the four.
    - `warmup`, `decay`: shares of the steps; the latter belongs to `wsd` alone.

    **Raises:** `UsageError` for another shape, shares that don't lie in 0 to 1 together, and a
        `decay` that would be ignored.
    """

    steps: int
    shape: str = "cosine"
    warmup: float = 0.1
    decay: float = DECAY

    def __post_init__(self) -> None:
        if self.shape not in get_args(Shape):
            raise UsageError(
                f"--schedule is {self.shape!r}; choose from {', '.join(get_args(Shape))}"
            )
        if self.shape != "wsd" and self.decay != DECAY:
            raise UsageError(
                f"--decay is {self.decay} with --schedule {self.shape}, which knows none; leave it "
                "out, or use --schedule wsd"
            )
        falling = self.decay if self.shape == "wsd" else 0.0
        if not (0 <= self.warmup <= 1 and falling >= 0 and self.warmup + falling <= 1):
            raise UsageError(
                f"--warmup is {self.warmup}, and --decay {self.decay}; expected shares of the "
                "steps, at most 1 together"
            )

    def __call__(self, count: Any) -> Float[Array, ""]:
        """The factor at a step, counted from 0. Where it falls to 0, the last step is at 0."""
        time = (jnp.asarray(count) + 1).astype(jnp.result_type(float))
        rise = max(1.0, self.warmup * self.steps)
        if self.shape == "cosine":
            fall = (time - rise) / max(1.0, self.steps - rise)
            return jnp.where(time < rise, time / rise, 0.5 * (1 + jnp.cos(jnp.pi * fall)))
        fall = {"linear": self.steps - rise, "wsd": self.decay * self.steps}.get(self.shape)
        falling = 1.0 if fall is None else (self.steps - time) / max(1.0, fall)
        return jnp.minimum(jnp.minimum(time / rise, 1.0), falling)

    def __str__(self) -> str:
        """Such as `10% warm-up, cosine to 0`."""
        then = {
            "cosine": "cosine to 0",
            "linear": "linear to 0",
            "constant": "then constant",
            "wsd": f"then constant, linear to 0 over the last {self.decay:.0%}",
        }
        return f"{self.warmup:.0%} warm-up, {then[self.shape]}"
