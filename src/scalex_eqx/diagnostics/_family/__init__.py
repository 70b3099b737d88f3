from ._degrees import Degrees as Degrees
from ._family import family as family
from ._reach import Reach as Reach
from ._result import MeasuredFamily as MeasuredFamily
from ._shape import Layout as Layout, Shape as Shape
