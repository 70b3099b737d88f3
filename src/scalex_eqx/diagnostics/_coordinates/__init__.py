"""The coordinate check."""

from ._judge import CoordinateFinding as CoordinateFinding
from ._picture import coordinate_figure as coordinate_figure
from ._report import CoordinateCheck as CoordinateCheck, coordinate_check as coordinate_check
from ._rows import CoordinateRow as CoordinateRow
from ._shares import StepShares as StepShares
