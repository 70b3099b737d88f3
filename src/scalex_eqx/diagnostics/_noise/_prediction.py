"""Which place of the sign is the best, from what a few batches show."""

import math
from typing import Any, NamedTuple

import numpy as np

from ._sums import Numbers

PLACES = ("last", "mean", "example")

# Errors by which two places have to lie apart.
_CLEAR = 2.0


class Prediction(NamedTuple):
    r"""How the places of the sign in [`scalex_eqx.sign_ema`][] compare, as found at one step.

    Each number is the ratio of signal to noise of what is averaged over the steps, relative to the
    mean gradient's, which is what `"last"` averages: its own number is 1. The largest is the best.
    Signal counts as far as it points along the mean gradient: where most examples pull one way a
    little and few the other way a lot, the mean of their signs points the wrong way, and counts
    against it.

    **Arguments:**

    - `step`: how many steps of training came before.
    - `mean`, `example`: of the sign of a batch's gradient, and of the mean of the examples' signs.
    - `mean_error`, `example_error`: their standard errors.
    """

    step: int
    mean: float
    mean_error: float
    example: float
    example_error: float

    @property
    def ratios(self) -> dict[str, float]:
        """By the place of the sign."""
        return {"last": 1.0, "mean": self.mean, "example": self.example}

    @property
    def order(self) -> tuple[str, ...]:
        """The places, the best first."""
        return tuple(sorted(PLACES, key=lambda place: -self.ratios[place]))

    @property
    def is_clear(self) -> bool:
        """Whether the best lies more than two standard errors above the next."""
        best, second = self.order[:2]
        errors = {"last": 0.0, "mean": self.mean_error, "example": self.example_error}
        apart = self.ratios[best] - self.ratios[second]
        return apart > _CLEAR * math.hypot(errors[best], errors[second])

    def cells(self) -> dict[str, Any]:
        """A row of a table."""
        return {
            "step": self.step,
            "first": self.order[0],
            "mean": self.mean,
            "mean error": self.mean_error,
            "example": self.example,
            "example error": self.example_error,
        }

    def __str__(self) -> str:
        when = "at initialisation" if self.step == 0 else f"after {self.step} steps"
        said = (
            f"signal to noise {when}, relative to the mean gradient's: sign of the mean "
            f"{self.mean:.2f} +- {self.mean_error:.2f}, mean of the examples' signs "
            f"{self.example:.2f} +- {self.example_error:.2f}"
        )
        best = " > ".join(self.order)
        clear = "" if self.is_clear else ", though the first two can't be told apart"
        return f"{said}. Predicted: sign_ema with placement {best}{clear}"


def prediction(step: int, whole: Numbers, without: Numbers) -> Prediction:
    """From the numbers of all weights, and from those without each part of the batches."""
    mean = _ratio(whole.mean_sign_share, whole.mean_share)
    example = _ratio(whole.sign_share, whole.share)
    return Prediction(
        step,
        float(mean),
        _error(_ratio(without.mean_sign_share, without.mean_share)),
        float(example),
        _error(_ratio(without.sign_share, without.share)),
    )


def _ratio(one: Any, other: Any) -> Any:
    """0 where no signal was found."""
    return np.asarray(one) / np.where(np.asarray(other) > 0, other, np.inf)


def _error(without: Any) -> float:
    """The jackknife's, from the estimates without each of some parts."""
    parts = len(without)
    return float(np.sqrt((parts - 1) * np.var(without)))
