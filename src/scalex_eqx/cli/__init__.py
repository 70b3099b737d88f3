"""The command `scalex`."""

from ._main import main as main
