"""The rooms of the suite, and what each has measured in this session.

A room is a package with a module `measure` that has

- `tables(thorough: bool) -> list[Table]`: everything that the room measures;
- optionally `picture(tables: list[Table], folder: Path)`: draws them into PNGs in `folder`.
"""

import functools
import importlib
from types import ModuleType

from scalex_eqx.diagnostics import Table

# What runs on a device, in the order of its report.
ROOMS = ("formats", "optimizers", "parameters", "width", "training")
# What is only compiled: no device has executed it, and its report is one for all.
COMPILED = "aot"


def measuring(room: str) -> ModuleType:
    """The module of a room that measures."""
    return importlib.import_module(f"numerics.{room}.measure")


@functools.cache
def measured(room: str, thorough: bool) -> dict[str, Table]:
    """A room's tables by name; each room is measured once."""
    return {table.name: table for table in measuring(room).tables(thorough)}
