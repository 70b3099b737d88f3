"""What a training is asked for: schedules, meshes, batches, and what is refused."""

import dataclasses
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import scalex_eqx as sx
from scalex_eqx._usage import UsageError
from scalex_eqx.experiments import parse_recipe
from scalex_eqx.problems import Problem
from scalex_eqx.training import (
    Checkpoints,
    Diverged,
    Memory,
    Pace,
    Schedule,
    Trainer,
    check_fits,
    kept_memory,
    parse_mesh,
    read_log,
    train,
)

from ._two import regression, training


def factors(shape, steps, warmup, decay=0.2):
    schedule = Schedule(steps, shape, warmup, decay)
    return [float(schedule(jnp.asarray(count))) for count in range(steps)]


def test_schedules_are_their_formulas():
    steps, rise = 20, 4
    up = [t / rise for t in range(1, rise + 1)]
    after = range(rise + 1, steps + 1)
    linear = [(steps - t) / (steps - rise) for t in after]
    cosine = [0.5 * (1 + math.cos(math.pi * (t - rise) / (steps - rise))) for t in after]
    stays = [min(1.0, (steps - t) / 5) for t in after]
    for shape, rest in (("linear", linear), ("cosine", cosine), ("wsd", stays)):
        # One rounding of each operation in float32.
        decay = 0.25 if shape == "wsd" else 0.2
        np.testing.assert_allclose(factors(shape, steps, 0.2, decay), up + rest, atol=2.0**-22)
    assert factors("constant", steps, 0.2) == up + [1.0] * 16
    assert factors("linear", 1, 0.1) == [0.0]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((10, "step"), "choose from cosine"),
        ((10, "wsd", 0.9, 0.2), "at most 1 together"),
        ((10, "linear", 0.1, 0.3), "--decay is 0.3 with --schedule linear"),
    ],
)
def test_schedules_that_are_none(arguments, named: str):
    with pytest.raises(UsageError, match=named):
        Schedule(*arguments)


class Device:
    """What a mesh needs of a device."""

    platform = "cpu"


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("data", {"data": 8}),
        ("shard=8", {"shard": 8}),
        ("data=2, tensor=4", {"data": 2, "tensor": 4}),
        ("data,tensor=4", {"data": 2, "tensor": 4}),
    ],
)
def test_meshes(text: str, shape: dict[str, int]):
    assert dict(parse_mesh(text, [Device() for _ in range(8)]).shape) == shape


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("model=8", "choose from data, shard, tensor, expert"),
        ("data=2,data=4", "data twice"),
        ("data,shard", "data and shard without a number"),
        ("data=3", "makes 3 devices, and there are 8"),
        ("data,tensor=3", "expected a divisor"),
        ("data=0", "'data=0', and there are 8 devices"),
        ("data=16", "'data=16', and there are 8 devices"),
        ("", "the axis ''"),
    ],
)
def test_meshes_that_are_none(text: str, named: str):
    with pytest.raises(UsageError, match=named):
        parse_mesh(text, [Device() for _ in range(8)])


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"learning_rate": 0.0}, "--learning-rate is 0.0"),
        ({"clip": -1.0}, "--clip is -1.0"),
        ({"compute": "float16"}, "--compute is 'float16'"),
        ({"accumulate": 0}, "--accumulate is 0"),
        ({"seed": -1}, "-1"),
        ({"recipe": parse_recipe("mup:adamw:full")}, "needs a weight decay"),
        ({"warmup": 2.0}, "--warmup is 2.0"),
    ],
)
def test_trainings_that_are_none(changed, named: str):
    with pytest.raises(UsageError, match=named):
        dataclasses.replace(training(), **changed)


def trainer(problem: Problem | None = None, **changed) -> Trainer:
    mesh = parse_mesh("data", jax.devices()[:1])
    return Trainer(dataclasses.replace(training(), **changed), problem or regression(), mesh)


def test_a_batch_that_has_no_such_parts_is_refused():
    with pytest.raises(UsageError, match="a batch of 8 examples is not a multiple"):
        trainer(accumulate=3)


def test_a_batch_without_examples_has_no_parts():
    def read(seed, step):
        return np.ones((8, 4), np.float32), np.ones(3, np.float32)

    def loss(model, batch):
        return jnp.mean(jax.vmap(model)(batch[0])) + jnp.mean(batch[1])

    def evaluate(model, _):
        return jnp.mean(jax.vmap(model)(jnp.ones((2, 4))))

    own = Problem(regression().make, loss, read=read, evaluate=evaluate, identity={"data": 1})
    with pytest.raises(UsageError, match="no first axis in common"):
        trainer(own, accumulate=2)
    assert trainer(own).batches.examples is None


def test_a_model_without_blocks_has_none_to_compute_again():
    with pytest.raises(UsageError, match="no stack of blocks"):
        trainer(recompute=True)


def test_a_mesh_of_explicit_axes_is_refused():
    mesh = jax.make_mesh((1,), ("data",))
    assert mesh.axis_types == (AxisType.Explicit,)
    with pytest.raises(UsageError, match=r"another kind than AxisType\.Auto, data"):
        Trainer(training(), regression(), mesh)


def test_a_training_that_diverges_ends_and_keeps_what_was_good(tmp_path: Path):
    own = trainer(learning_rate=1e36, schedule="constant", warmup=0.0)
    with pytest.raises(Diverged, match=r"the loss is (nan|inf) at step \d; give a smaller"):
        train(own, tmp_path, pace=Pace(save=1))
    last = list(read_log(tmp_path / "log.jsonl"))[-1]
    assert last["loss"] in ("nan", "inf")
    checkpoints = Checkpoints(tmp_path, own)
    assert checkpoints.last == last["step"] - 1
    checkpoints.close()


def test_what_does_not_fit_is_refused_with_a_remedy():
    found = kept_memory(trainer())
    # Two matrices of 16 x 4 and 2 x 16, in float32; Adam keeps two of each, and two counts.
    assert found.weights == 4 * 96 and found.moments == 8 * 96 + 8
    check_fits(trainer(), dataclasses.replace(found, free=found.needed))
    for free, temporary, remedy in (
        (found.needed - 1, 0, "more devices"),
        (found.needed + 1, 2, "--recompute"),
    ):
        short = dataclasses.replace(found, free=free, temporary=temporary)
        with pytest.raises(UsageError, match=f"out of memory.*{remedy}"):
            check_fits(trainer(), short)
    assert Memory(1, 2, 3, 4, None).needed == 10
    check_fits(trainer(), Memory(1, 2, 3, 4, None))


def test_clipping_and_parts_and_low_precision():
    """The clip is the library's, a sum of parts is the whole, and bfloat16 computes with weights of
    float32."""
    plain, parts = trainer(clip=1e-3), trainer(clip=1e-3, accumulate=4)
    short = trainer(compute="bfloat16")
    model, batch = plain.start().model, plain.batch(0)
    (loss, gradient), (other, summed) = (
        one.gradient(model, one.batch(0)) for one in (plain, parts)
    )
    # A mean of 16 squares in another order.
    np.testing.assert_allclose(loss, other, rtol=16 * 2.0**-24)
    values, sums = map(jax.tree.leaves, (gradient, summed))
    for a, b in zip(values, sums, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=16 * 2.0**-24 * float(jnp.abs(a).max()))
    low, rough = short.gradient(model, batch)
    assert {x.dtype.name for x in jax.tree.leaves(rough)} == {"float32"}
    # Eight bits, in a chain of a few products; but it isn't float32.
    assert 0 < abs(float(low) - float(loss)) < 0.05 * float(loss)
    state = plain.optimizer.init(model)
    tx = sx.clip_by_effective_norm(1e-3)
    clipped, _ = tx.update(gradient, tx.init(model))
    found, _ = plain.optimizer.update(gradient, state, model)
    own = plain.training.recipe.transformation(plain.training.rate)
    expected, _ = own.update(clipped, own.init(model), model)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    assert jax.tree.leaves(found)[0].dtype == jnp.float32
