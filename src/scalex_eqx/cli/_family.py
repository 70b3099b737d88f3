import dataclasses
from typing import Annotated

import tyro
from rich.console import Console

from .. import diagnostics
from ..experiments import UsageError
from ..optim._catalogue import catalogue
from ._called import called

_OPTIMIZER = f"""The call that makes it, with literal arguments: optax.adan(1e-3),
optax.contrib.dog, my_rule.py:make, or one of {", ".join(catalogue)}."""


@dataclasses.dataclass(frozen=True)
class Family:
    """Measure which update family an optimizer is of, and what is unusual about it.

    It gets made-up gradients of many sizes, for all weights and for parts of them, and what it does
    is compared: its degrees in gradient and weight, what it looks at together, how its updates
    follow the shape of a matrix, how far its power of the gradient goes, and what it does without a
    gradient and at a weight of zero. Nothing is read from its name. The exit code is 3 if no family
    fits.

    Example: scalex family "optax.adan(1e-3)"

    Example: scalex family my_rule.py:make --json
    """

    optimizer: Annotated[tyro.conf.Positional[str], tyro.conf.arg(help=_OPTIMIZER)]
    layout: diagnostics.Layout = "out, in"
    """How weights are stored, for the exponents of fan-in and fan-out."""
    json: bool = False
    """Print JSON."""

    def run(self, console: Console) -> int:
        """Prints what was found; returns the exit code."""
        otherwise = f"one of {', '.join(catalogue)}, or one of your own, as optax.adan(1e-3)"
        tx = called(self.optimizer, "the command", otherwise)
        try:
            found = diagnostics.family(tx, layout=self.layout)
        except ValueError as error:
            raise UsageError(f"{self.optimizer}: {' '.join(str(error).split())}") from error
        console.print(found.to_json() if self.json else str(found), soft_wrap=True)
        return 3 if found.family is None else 0
