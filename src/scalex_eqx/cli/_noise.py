import dataclasses
from typing import Any

from jaxtyping import PyTree
from rich.console import Console

from .. import diagnostics
from .._weight import resolve
from ..experiments import UsageError
from ..problems import Problem
from ..problems._examples import check_examples
from ._help import own_options_first
from ._watching import Watching


@own_options_first
@dataclasses.dataclass(frozen=True)
class Noise(Watching):
    """Train the transfer run's Transformer, or a problem of your own, and print how much signal and
    noise its gradients have, the critical batch size, and how heavy their tails are, by layer.

    It also predicts which sign rule is the best, sign_ema with placement last, mean or example;
    with --at 0 from the initial model alone, before any training.

    Example: scalex noise standard:adam:full

    Example: scalex noise standard:sign_ema:full --at 0 --batch-size 16 --batches 64

    Example: scalex noise mup:adam:full --problem digits --width 256 --picture noise.png
    """

    batches: int = 16
    """How many are measured at each step, a multiple of 8."""

    def run(self, console: Console) -> int:
        """Prints what was found; returns the exit code."""
        if self.batches < 8 or self.batches % 8:
            raise UsageError(f"--batches is {self.batches}; expected a multiple of 8, as 16")
        found = self.watch(diagnostics.noise, self._given)
        tables = [found.table(), found.prediction_table()]
        return self.show(found, tables, diagnostics.noise_figure, console)

    def _given(self, problem: Problem, model: PyTree) -> dict[str, Any]:
        check_examples(problem, resolve(model))
        return {
            "of_example": lambda model, one: problem.example_loss(resolve(model), one),
            "batches": self.batches,
        }
