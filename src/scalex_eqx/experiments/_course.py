"""Which runs a tuning needs, round by round: it follows from the losses alone."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .._usage import UsageError
from ._config import Member
from ._recipe import Recipe
from ._samplers import proposals
from ._tuning import Octaves, Tuning

# Half octaves between the first learning rate and the last that is tried.
_MOST_STEPS = 12
# Octaves of a constant that are tried beyond what the sampler reaches.
_MOST_OCTAVES = 10


@dataclass(frozen=True)
class Curve:
    """Losses of a recipe over the learning rate, at one width and with some seeds."""

    recipe: Recipe
    width: int
    seeds: tuple[int, ...]


class Course:
    r"""One passage through a tuning.

    1. The learning rate alone, by octaves until the best lies inside, then by half octaves.
    2. The constants, at that rate. A common factor of all of them is a learning rate, and so none
        is lost by holding it. After the sampler's trials the best one's neighbours, an octave off
        in one constant, are tried until none is better, also beyond the sampler's reach.
    3. The learning rate again, around the first.
    4. With other seeds, each recipe around its own learning rate at the base width and at the
        wider ones.

    The best is the lowest mean over the seeds; a diverged run makes the mean infinite.

    **Arguments:**

    - `tuning`: what is asked for.
    - `losses`: of the runs; those of a round are read after its yield. A diverged one has `None`.
    """

    def __init__(self, tuning: Tuning, losses: Mapping[Member, float | None]):
        self.tuning, self.losses = tuning, losses
        self.steps: dict[Curve, list[int]] = {}
        self.trials: dict[Octaves, float] = {}
        self.step = 0
        self.untuned = self.tuned = self._at_base(tuning.recipe)

    def rounds(self) -> Iterator[list[Member]]:
        """The runs that are wanted next.

        **Raises:** `UsageError` if nothing trains without diverging.
        """
        yield from self._settle({self.untuned: range(-4, 5, 2)})
        if not math.isfinite(self.mean(self.untuned, self.best_step(self.untuned))):
            raise UsageError(
                f"every run of {self.tuning.recipe} diverged, or some seed at each learning rate; "
                "give a smaller --learning-rate"
            )
        self.step = self.best_step(self.untuned)
        yield from self._sampled()
        yield from self._polished()
        self.tuned = self._at_base(self.with_best)
        yield from self._settle({self.tuned: range(self.step - 2, self.step + 3, 2)})
        if self.checks:
            starts = {
                curve: range(step - 2, step + 3, 2)
                for pair in self.checks.values()
                for curve, step in zip(pair, self._best_steps, strict=True)
            }
            yield from self._settle(starts)

    @property
    def checks(self) -> dict[int, tuple[Curve, Curve]]:
        """The curves without and with the tuned constants, by width; none if they are the same."""
        if not self.tuning.check_widths or self.tuned.recipe == self.untuned.recipe:
            return {}
        seeds = self.tuning.fresh_seeds
        return {
            width: (
                Curve(self.untuned.recipe, width, seeds),
                Curve(self.tuned.recipe, width, seeds),
            )
            for width in self.tuning.widths
        }

    @property
    def _best_steps(self) -> tuple[int, int]:
        return self.best_step(self.untuned), self.best_step(self.tuned)

    # The constants

    @property
    def best(self) -> Octaves:
        """The best trial so far; of equal ones the closest to what was given."""
        return min(self.trials, key=lambda x: (self.trials[x], sum(map(abs, x)), x))

    @property
    def with_best(self) -> Recipe:
        """The recipe with the best constants so far."""
        return self.tuning.with_constants(self.best)

    def _sampled(self) -> Iterator[list[Member]]:
        asked = proposals(self.tuning)
        batch = next(asked)
        while True:
            yield from self._tried(batch)
            try:
                batch = asked.send([self.trials[octaves] for octaves in batch])
            except StopIteration:
                return

    def _polished(self) -> Iterator[list[Member]]:
        while wanted := [x for x in _neighbours(self.best) if x not in self.trials]:
            yield from self._tried(wanted)

    def _tried(self, batch: Sequence[Octaves]) -> Iterator[list[Member]]:
        curves = {x: self._at_base(self.tuning.with_constants(x)) for x in batch}
        yield [one for curve in curves.values() for one in self._members(curve, self.step)]
        self.trials |= {x: self.mean(curve, self.step) for x, curve in curves.items()}

    def _at_base(self, recipe: Recipe) -> Curve:
        return Curve(recipe, self.tuning.setting.base_width, self.tuning.seeds)

    # The learning rate

    def best_step(self, curve: Curve) -> int:
        """The best of a curve's learning rates, in half octaves; the lowest if all diverged."""
        return min(self.steps[curve], key=lambda step: (self.mean(curve, step), step))

    def mean(self, curve: Curve, step: int) -> float:
        """The loss over the seeds; infinite if one diverged."""
        losses = list(self.by_seed(curve, step).values())
        return math.inf if None in losses else float(np.mean(np.array(losses, float)))

    def by_seed(self, curve: Curve, step: int) -> dict[int, float | None]:
        """The loss of each seed."""
        return {one.seed: self.losses[one] for one in self._members(curve, step)}

    def _members(self, curve: Curve, step: int) -> list[Member]:
        rate = self.tuning.rate(step)
        return [Member(curve.recipe, curve.width, rate, seed) for seed in curve.seeds]

    def _settle(self, starts: Mapping[Curve, Sequence[int]]) -> Iterator[list[Member]]:
        """Asks until each curve's best learning rate lies between two that are half octaves off."""
        for curve in starts:
            self.steps.setdefault(curve, [])
        wanted = {c: [x for x in steps if x not in self.steps[c]] for c, steps in starts.items()}
        while any(wanted.values()):
            for curve, steps in wanted.items():
                self.steps[curve] += steps
            yield [one for c, steps in wanted.items() for s in steps for one in self._members(c, s)]
            wanted = {curve: self._further(curve) for curve in starts}

    def _further(self, curve: Curve) -> list[int]:
        steps, best = self.steps[curve], self.best_step(curve)
        if best == min(steps):
            found = [best - 2]
        elif best == max(steps):
            found = [best + 2]
        else:
            found = [best - 1, best + 1]
        return [step for step in found if step not in steps and abs(step) <= _MOST_STEPS]


def _neighbours(octaves: Octaves) -> list[Octaves]:
    return [
        (*octaves[:place], octaves[place] + by, *octaves[place + 1 :])
        for place in range(len(octaves))
        for by in (-1, 1)
        if abs(octaves[place] + by) <= _MOST_OCTAVES
    ]
