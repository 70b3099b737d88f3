"""Functions of arrays whose error is known over the whole range of their dtype."""

from . import scaled as scaled
from ._atan2 import atan2 as atan2
from ._hashed import hashed as hashed
from ._moving import (
    moving_mean as moving_mean,
    moving_root_mean_square as moving_root_mean_square,
    towards as towards,
)
from ._narrow import NarrowFormat as NarrowFormat, narrowed as narrowed
from ._orthogonalized import (
    ComputeDtype as ComputeDtype,
    OrthogonalMethod as OrthogonalMethod,
    orthogonalized as orthogonalized,
)
from ._power import inverse_power_of_two as inverse_power_of_two, power_of_two as power_of_two
from ._rounding import (
    rounded as rounded,
    stochastically_rounded as stochastically_rounded,
)
