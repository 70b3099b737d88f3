from ._api import Captured as Captured, capture as capture
from ._program import NotFollowed as NotFollowed
from ._use import Use as Use
