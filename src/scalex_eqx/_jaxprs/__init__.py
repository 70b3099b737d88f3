"""Reading and running the equations of traced programs."""

from . import parameters as parameters
from ._axes import (
    ELEMENTWISE as ELEMENTWISE,
    Axes as Axes,
    axes_behind as axes_behind,
    whole as whole,
)
from ._run import run_equation as run_equation
