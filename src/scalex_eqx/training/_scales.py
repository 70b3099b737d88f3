"""The sizes of a training's arrays on the way: a file of JSON lines, and what is made of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..diagnostics import ScaleRow, Scales
from ..diagnostics._scales._scales import rows_of
from ..experiments._write import write_figure
from ._log import Log, read_log
from ._trainer import State, Trainer

SCALES, PICTURE = "scales.jsonl", "scales.png"


def measure(trainer: Trainer, log: Log | None, step: int, state: State, batch: Any) -> None:
    """Writes down the sizes in front of a step, a line an array.

    **Arguments:**

    - `log`: of the file; `None` on hosts that compute and don't write.
    """
    found = trainer.sizes(state, batch)
    if log is None:
        return
    for row in rows_of(step, jax.tree.map(np.asarray, found)):
        log.write(**row._asdict())
    log.flush()


def read_scales(folder: Path) -> Scales | None:
    """What `scalex train --scales-every` has measured; `None` if nothing.

    **Arguments:**

    - `folder`: of the training.
    """
    rows = tuple(_rows(folder))
    return Scales(rows) if rows else None


def _rows(folder: Path) -> Iterator[ScaleRow]:
    for line in read_log(folder / SCALES):
        # What is no finite number stands as text.
        sizes = {name: float(line[name]) for name in ("size", "largest")}
        yield ScaleRow(**{**line, **sizes})


def draw_scales(scales: Scales, path: Path) -> None:
    """Draws them as `scalex scales` does.

    **Arguments:**

    - `scales`: what was measured.
    - `path`: the PNG to write.
    """
    from ..diagnostics import scales_figure

    write_figure(scales_figure(scales), path)
