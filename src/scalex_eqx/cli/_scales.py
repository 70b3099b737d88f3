import dataclasses
from typing import Any

from jaxtyping import PyTree
from rich.console import Console

from .. import diagnostics
from .._weight import resolve
from ..experiments import UsageError
from ..problems import Problem
from ._help import own_options_first
from ._watching import Watching


@own_options_first
@dataclasses.dataclass(frozen=True)
class Scales(Watching):
    """Train the transfer run's Transformer, or a problem of your own, and print how large its
    weights, activations and gradients are, and what number formats lose of them.

    Nothing is rounded: training is in float32, and entries are counted that float16, bfloat16,
    float8 (e5m2, e4m3) and float4 (e2m1) would round to zero or couldn't hold.

    Example: scalex scales u_mup:adam:full --problem unit-text --learning-rate 1

    Example: scalex scales mup:adam:full --steps 400 --picture scales.png

    Example: scalex scales standard:adam:full --problem my_model.py:problem --width 256
    """

    most: float = 0.01
    """The share of an array's entries that may be lost before a verdict names it."""

    def run(self, console: Console) -> int:
        """Prints what was found; returns the exit code."""
        if not 0 <= self.most < 1:
            raise UsageError(f"--most is {self.most}; expected a share from 0 to 1, as 0.01")
        found = self.watch(diagnostics.scales, self._given)
        return self.show(found, [found.table()], diagnostics.scales_figure, console)

    def _given(self, problem: Problem, model: PyTree) -> dict[str, Any]:
        del model
        return {
            "loss": lambda model, batch: problem.mean_loss(resolve(model), batch),
            "of_example": lambda model, one: problem.example_loss(resolve(model), one),
            "most": self.most,
        }
