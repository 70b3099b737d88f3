"""The log, its picture, and the count of operations."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalex_eqx._usage import UsageError
from scalex_eqx.nn import Transformer
from scalex_eqx.training import draw, read_log
from scalex_eqx.training._log import Log
from scalex_eqx.training._operations import operations
from scalex_eqx.training._picture import smooth


def written(folder: Path, step: int, *steps: int) -> None:
    log = Log(folder, step)
    for number in steps:
        log.write(number, loss=1.0 / number)
    log.close()


def test_a_log_goes_on_behind_its_checkpoint(tmp_path: Path):
    written(tmp_path, 0, 1, 2, 3)
    path = tmp_path / "log.jsonl"
    # What a process that was killed leaves: a line that is cut.
    path.write_text(path.read_text() + '{"step": 4, "lo')
    written(tmp_path, 2, 3)
    assert [line["step"] for line in read_log(path)] == [1, 2, 3]
    written(tmp_path, 0, 1)
    assert [line["step"] for line in read_log(path)] == [1]


def test_no_number_is_text_and_no_log_is_refused(tmp_path: Path):
    log = Log(tmp_path, 0)
    log.write(1, loss=float("nan"))
    log.close()
    path = tmp_path / "log.jsonl"
    assert json.loads(path.read_text()) == {"step": 1, "loss": "nan"}
    path.write_text("hello\n")
    with pytest.raises(UsageError, match="line 1 is no line of a training's log"):
        list(read_log(path))


def test_the_running_mean():
    values = np.arange(40.0) ** 2
    found = smooth(values)
    assert found[0] == 0.0
    np.testing.assert_allclose(found[1:], (values[1:] + values[:-1]) / 2, rtol=1e-12)


def test_the_picture_is_drawn(tmp_path: Path):
    lines = [{"step": n, "loss": 1 / n, "seconds": 0.1} for n in range(1, 9)]
    draw([*lines, {"step": 8, "held_out_loss": 0.2}], tmp_path / "a.png", examples=4)
    draw([], tmp_path / "b.png", examples=None)
    assert (tmp_path / "a.png").stat().st_size > (tmp_path / "b.png").stat().st_size > 1000


def test_operations_of_a_transformer_are_those_by_hand():
    """2 for each weight and token in the forward pass, attention's two products beside, and twice
    that in the backward pass, which doesn't ask for the tokens' gradient."""
    vocabulary, seq, width, depth, batch = 32, 8, 16, 3, 2
    model = Transformer(
        vocabulary_size=vocabulary,
        sequence_length=seq,
        width=width,
        depth=depth,
        head_dimension=4,
        key=jax.random.key(0),
    )
    tokens = jnp.zeros((batch, seq), jnp.int32)
    weights = depth * 12 * width**2 + vocabulary * width
    forward = 2 * batch * seq * (weights + depth * 2 * seq * width)
    assert operations(lambda tokens: model(tokens), tokens) == forward

    def step(x, w):
        return jnp.where(x[0, 0] > 0, jax.lax.fori_loop(0, 3, lambda _, y: y @ w, x), x)

    square = jnp.ones((4, 4))
    assert operations(step, square, square) == 3 * 2 * 4**3
    kernel = jnp.ones((5, 3, 2, 2))
    image = jnp.ones((1, 3, 6, 6))
    conv = lambda x, w: jax.lax.conv(x, w, (1, 1), "VALID")  # noqa: E731
    assert operations(conv, image, kernel) == 2 * (5 * 5 * 5) * (3 * 2 * 2)
