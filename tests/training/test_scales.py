"""The sizes of a training on the way."""

import shutil
from pathlib import Path

import jax
import numpy as np

import scalex_eqx as sx
from scalex_eqx.training import Pace, Trainer, draw_scales, parse_mesh, read_log, read_scales, train
from scalex_eqx.training._scales import SCALES

from ._two import STEPS, regression, training


def size(x):
    return np.sqrt(np.mean(np.square(np.asarray(x, np.float64))))


def test_sizes_are_measured_where_asked_for_and_not_twice(tmp_path: Path):
    trainer = Trainer(training(), regression(), parse_mesh("data", jax.devices()[:1]))
    pace = Pace(save=2, scales=2)
    start = trainer.start().model
    state = train(trainer, tmp_path, pace=pace)
    found = read_scales(tmp_path)
    assert found is not None and found.steps == (0, 2, STEPS)
    # By NumPy, in front of the first step and behind the last.
    for step, model in ((0, start), (STEPS, state.model)):
        own = [row for row in found.rows if (row.step, row.kind) == (step, "weight")]
        sizes = {row.weight: row.size for row in own}
        for path, weight in sx.weights_with_paths(model).items():
            np.testing.assert_allclose(sizes[path], size(sx.effective(weight)), rtol=1e-6)
    x, _ = regression().host_batch(0, 0)
    inner = x @ np.asarray(sx.effective(start.up.weight), np.float64).T
    (row,) = (
        row for row in found.rows if (row.step, row.weight, row.kind) == (0, "up/weight", "output")
    )
    np.testing.assert_allclose(row.size, size(inner), rtol=1e-5)
    assert {row.kind for row in found.rows} >= {"input", "output gradient", "weight gradient"}

    # From the checkpoint in the middle on: the same file, with nothing twice.
    lines = list(read_log(tmp_path / SCALES))
    shutil.rmtree(tmp_path / "checkpoints" / str(STEPS))
    train(trainer, tmp_path, pace=pace)
    assert list(read_log(tmp_path / SCALES)) == lines
    train(trainer, tmp_path, pace=pace)
    assert list(read_log(tmp_path / SCALES)) == lines
    draw_scales(found, tmp_path / "scales.png")
    assert (tmp_path / "scales.png").read_bytes().startswith(b"\x89PNG")
