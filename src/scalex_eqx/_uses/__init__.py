"""What a program does with each array of a model, read from its trace."""

from ._read import Parts as Parts, Reader as Reader, Reading as Reading
from ._trace import Path as Path, trace as trace
from ._value import Use as Use
