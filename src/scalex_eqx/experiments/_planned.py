"""A sweep as it is asked for: over which size, with what fixed, from which base."""

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from .._usage import UsageError
from ..theory._density import parse_density
from ._axes import AXES, BATCH_SIZE, DEPTH, INVERSE_DENSITY, WIDTH, Axis
from ._config import Setting, Sweep
from ._recipe import Recipe
from ._schedule import DECAY


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """Sizes, those that are swept over and those that are not, as options name them.

    **Arguments:**

    - `widths`, `depths`, `batch_sizes`, `inverse_densities`: one of them, the size that is swept
        over.
    - the others: as of `Setting`; `None` for what follows from those.

    **Raises:** `UsageError` unless there is one size to sweep over, and for what would be ignored.
    """

    widths: Sequence[int] | None = None
    depths: Sequence[int] | None = None
    batch_sizes: Sequence[int] | None = None
    inverse_densities: Sequence[int] | None = None
    width: int | None = None
    depth: int | None = None
    base_width: int | None = None
    base_depth: int | None = None
    base_batch_size: int | None = None
    base_steps: int | None = None
    same_steps: bool = False
    schedule: str = "cosine"
    warmup: float = 0.1
    decay: float = DECAY

    def __post_init__(self) -> None:
        for axis in (WIDTH, DEPTH):
            if axis == self.axis and getattr(self, axis.name) is not None:
                raise UsageError(
                    f"--{axis.noun} is {getattr(self, axis.name)}, and {axis.plural} are swept "
                    f"over; leave out one of --{axis.noun} and {axis.option}"
                )
        if self.width is None and self.axis != WIDTH:
            raise UsageError(f"{self.axis.option} is given without a width; give --width, as 64")
        if self.same_steps and self.axis != BATCH_SIZE:
            raise UsageError("--same-steps is given without --batch-sizes; leave it out")
        if self.base_steps is not None:
            if self.axis == BATCH_SIZE:
                raise UsageError(
                    f"--base-steps is {self.base_steps}, and with --batch-sizes the base trains "
                    "for --steps; leave it out"
                )
            if self.base_batch_size is None:
                raise UsageError(
                    f"--base-steps is {self.base_steps} without --base-batch-size; give both"
                )

    @property
    def _given(self) -> list[Axis]:
        return [axis for axis in AXES.values() if getattr(self, axis.names) is not None]

    @property
    def axis(self) -> Axis:
        """The size that is swept over.

        **Raises:** `UsageError` unless there is one.
        """
        given = self._given
        if not given:
            options = ", ".join(axis.option for axis in AXES.values())
            raise UsageError(f"there is no size to sweep over; give one of {options}")
        if len(given) > 1:
            one, other = given[:2]
            singles = " or ".join(f"--{axis.noun.replace(' ', '-')}" for axis in (one, other))
            raise UsageError(
                f"{one.option} and {other.option} are both given; a sweep is over one size: give a "
                f"single value of the other, as {singles}"
            )
        return given[0]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Those that are swept over."""
        return tuple(getattr(self, self.axis.names))

    def setting(self, steps: int) -> Setting:
        """What all runs have in common."""
        axis, smallest = self.axis, min(self.sizes, default=0)
        base: dict[str, Any] = {
            "base_width": self.base_width,
            "base_depth": self.base_depth,
            "base_batch_size": self.base_batch_size,
        }
        # Sparse models have a dense base.
        if axis != INVERSE_DENSITY and base[f"base_{axis.name}"] is None:
            base[f"base_{axis.name}"] = smallest
        if base["base_width"] is None:
            base["base_width"] = self.width
        return Setting(
            **base,
            steps=steps,
            axis=axis,
            width=self.width,
            depth=self.depth,
            base_steps=self.base_steps,
            same_steps=self.same_steps,
            schedule=self.schedule,
            warmup=self.warmup,
            decay=self.decay,
        )

    def check(self, recipes: Sequence[Recipe]) -> None:
        """Refuses a base that no recipe has a law or a rule for.

        **Raises:** `UsageError`.
        """
        if self.base_depth is not None and all(one.law.branch is None for one in recipes):
            raise UsageError(
                f"--base-depth is {self.base_depth}, but no recipe has a law for the depth; use "
                "one such as mup.deep(1):adam:full"
            )
        has_rule = any(one.batch_rule is not None for one in recipes)
        if self.base_batch_size is not None and self.axis != BATCH_SIZE and not has_rule:
            raise UsageError(
                f"--base-batch-size is {self.base_batch_size}, but no recipe has a rule for the "
                "batch size; use one such as standard:adam:full:malladi"
            )


def inverse_density(density: Fraction | int | float | str) -> int:
    """The whole number that a density is 1 over.

    **Raises:** `UsageError` for another density.
    """
    try:
        inverse = 1 / parse_density(density, "--densities")
    except ValueError:
        inverse = None
    if inverse is None or inverse.denominator != 1:
        raise UsageError(
            f"--densities has {density}; expected 1, or 1 over a whole number, such as 1/16"
        )
    return inverse.numerator


def planned(
    recipes: Sequence[Recipe],
    asked: Asked,
    *,
    learning_rates: Sequence[float],
    seeds: Sequence[int],
    steps: int,
) -> Sweep:
    """The sweep.

    **Raises:** `UsageError` for whatever could not be trained or judged.
    """
    sweep = Sweep(
        recipes=tuple(recipes),
        sizes=asked.sizes,
        learning_rates=tuple(learning_rates),
        seeds=tuple(seeds),
        setting=asked.setting(steps),
    )
    asked.check(recipes)
    return sweep
