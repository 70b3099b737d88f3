"""One of two processes that train a small model together, over loopback."""

import contextlib
import json
import sys
from pathlib import Path

import jax
import numpy as np

import scalex_eqx as sx
from scalex_eqx._usage import UsageError
from scalex_eqx.experiments import parse_recipe
from scalex_eqx.experiments._lock import reporting
from scalex_eqx.problems import Problem
from scalex_eqx.training import (
    Pace,
    Trainer,
    Training,
    check_agreement,
    connect,
    failing_together,
    parse_mesh,
    train,
)

STEPS = 4


def regression() -> Problem:
    """A matrix that is to be found, from examples that each host reads."""

    def make(width, key):
        return sx.nn.MLP(4, width, 2, key=key)

    def loss(model, batch):
        x, y = batch
        return jax.numpy.mean((jax.vmap(model)(x) - y) ** 2)

    def read(seed, step):
        x = np.random.default_rng((seed, step)).normal(size=(8, 4)).astype(np.float32)
        return x, x[:, :2] - x[:, 2:]

    return Problem(make, loss, read=read, held_out=read(7, 7), identity={"version": 1})


def training() -> Training:
    return Training(
        parse_recipe("mup:adam:full"), width=16, base_width=8, learning_rate=2**-6, steps=STEPS
    )


def main(port: str, process: int, folder: Path) -> dict:
    connect(f"127.0.0.1:{port}", 2, process)
    found: dict[str, object] = {"devices": jax.device_count(), "processes": jax.process_count()}
    try:
        check_agreement({"data": process, "the command": "one"})
    except UsageError as error:
        found["disagreement"] = str(error)
    try:
        with failing_together():
            if process == 1:
                raise UsageError("no data here")
    except UsageError as error:
        found["failure"] = str(error)
    problem = regression()
    check_agreement({"data": problem.facts})
    trainer = Trainer(training(), problem, parse_mesh("shard=2"))
    state = train(trainer, folder, pace=Pace(save=2))
    value = state.model.up.weight.value
    found["shard"] = list(value.addressable_shards[0].data.shape)
    found["again"] = int(train(trainer, folder).step)
    # Process 0 alone looks whether somebody else trains there.
    with reporting(folder) if process == 0 else contextlib.nullcontext():
        try:
            train(trainer, folder)
        except UsageError as error:
            found["in use"] = str(error)
    jax.distributed.shutdown()
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
