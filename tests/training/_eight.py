"""A program for eight virtual devices: trains on several meshes, and prints what it found."""

import collections
import dataclasses
import json
import re
import shutil
import sys
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import optax

import scalex_eqx as sx
from scalex_eqx import nn
from scalex_eqx._usage import UsageError
from scalex_eqx.experiments import parse_recipe
from scalex_eqx.problems import Problem
from scalex_eqx.problems._text import mean_loss
from scalex_eqx.training import (
    Checkpoints,
    Pace,
    State,
    Trainer,
    Training,
    parse_mesh,
    read_log,
    train,
)

STEPS = 4
COLLECTIVE = re.compile(
    r"= (.+?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)


def training(**options) -> Training:
    given = {"width": 32, "base_width": 16, "learning_rate": 2**-6, "steps": STEPS, **options}
    return Training(parse_recipe("mup:adam:full"), **given)


def run(trainer: Trainer) -> tuple[list[float], dict[str, float], State]:
    state, losses = trainer.start(), []
    for index in range(STEPS):
        state, loss = trainer.step(state, trainer.batch(index))
        losses.append(float(loss))
    return losses, dict(trainer.evaluate(state)), state


def largest_share(tree) -> float:
    """The largest share that a device has of an array that is split, by bytes of the tree."""
    leaves = [x for x in jax.tree.leaves(tree) if x.ndim]
    here = sum(x.addressable_shards[0].data.nbytes for x in leaves)
    return here / sum(x.nbytes for x in leaves)


def collectives(text: str) -> dict[str, int]:
    """Each collective of a program with its shapes, and how often it stands there."""
    shaped = re.compile(r"\w+\[[\d,]*\]")
    found = (
        f"{kind} {' '.join(sorted(shaped.findall(shapes)))}"
        for shapes, kind in COLLECTIVE.findall(text)
    )
    return dict(sorted(collections.Counter(found).items()))


def twin(trainer: Trainer) -> str:
    """The program of the same step without specs: plain arrays, Equinox and Optax."""
    rate = trainer.training.rate
    tx = optax.adam(rate, b1=0.9, b2=0.95, eps=1e-12)
    like, mesh = trainer.shapes.model, trainer.mesh
    static = trainer._static

    def bare(tree):
        return [x.value for x in sx.weights_with_paths(tree).values()]

    places = bare(jax.tree.map(lambda x: x.sharding, like))
    structure = jax.tree.structure(like)

    def step(arrays, state, data, index):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 1), index)
        batch = trainer.batches.in_parts(trainer.problem.drawn(data, key))[0]

        def loss(arrays):
            model = sx.resolve(eqx.combine(jax.tree.unflatten(structure, arrays), static))
            return mean_loss(model, batch)

        value, gradient = jax.value_and_grad(loss)(arrays)
        gradient = jax.lax.with_sharding_constraint(gradient, places)
        updates, state = tx.update(gradient, state, arrays)
        return optax.apply_updates(arrays, updates), state, value

    shapes = bare(like)
    moments = jax.eval_shape(tx.init, shapes)

    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    adam = moments[0]._replace(count=whole, mu=places, nu=places)
    state_places = (adam, *jax.tree.map(lambda _: whole, moments[1:]))
    moments = jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        moments,
        state_places,
    )
    index = jax.ShapeDtypeStruct((), np.int32, sharding=whole)
    compiled = jax.jit(step, donate_argnums=(0, 1), out_shardings=(places, state_places, whole))
    with jax.set_mesh(mesh):
        program = compiled.lower(shapes, moments, trainer.sources[0], index).compile()
    return program.as_text() or ""


def resumed(trainer: Trainer, folder: Path) -> dict:
    """Logs and states of one training to the end, and of one from a checkpoint on."""

    def lines():
        return [
            {name: x for name, x in line.items() if name != "seconds"}
            for line in read_log(folder / "log.jsonl")
        ]

    pace = Pace(evaluate=2, save=2)
    first, said = train(trainer, folder, pace=pace), lines()
    shutil.rmtree(folder / "checkpoints" / str(STEPS))
    second = train(trainer, folder, pace=pace)
    same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), first, second)
    two = Trainer(trainer.training, trainer.problem, parse_mesh("shard=2", jax.devices()[:2]))
    checkpoints = Checkpoints(folder, two)
    on_two = checkpoints.restore()
    assert on_two is not None
    checkpoints.close()
    return {
        "same log": said == lines(),
        "lines": said,
        "same state": all(jax.tree.leaves(same)),
        "on two": all(
            jax.tree.leaves(jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), first, on_two))
        ),
        "devices": sorted({len(x.sharding.device_set) for x in jax.tree.leaves(on_two)}),
        "share of two": largest_share(on_two.model),
        "refused": [refused(trainer, folder, **x) for x in OTHERS],
    }


OTHERS = [
    {"recipe": parse_recipe("standard:adam:full")},
    {"recipe": parse_recipe("mup:lion:full")},
    {"seed": 1},
]


def refused(trainer: Trainer, folder: Path, **changed) -> str:
    other = dataclasses.replace(trainer.training, **changed)
    checkpoints = Checkpoints(folder, Trainer(other, trainer.problem, trainer.mesh))
    try:
        checkpoints.restore()
    except UsageError as error:
        return str(error)
    finally:
        checkpoints.close()
    return ""


def experts() -> Problem:
    """Two blocks with a mixture of four experts, on tokens that are drawn by Zipf's law."""

    def make(width, key):
        def block(key):
            a, b = jax.random.split(key)
            return nn.DecoderBlock(
                attention_norm=nn.RMSNorm(width),
                attention=nn.GroupedQueryAttention(
                    width, head_dimension=4, key_value_heads=2, key=a
                ),
                mlp_norm=nn.RMSNorm(width),
                mlp=nn.MixtureOfExperts(width, 2 * width, experts=4, top_k=2, key=b),
            )

        return nn.Decoder(vocabulary_size=64, width=width, depth=2, block=block, key=key)

    drawn = np.random.default_rng(0).zipf(1.5, (400, 9))
    windows = drawn.clip(max=64).astype(np.int32) - 1
    return Problem(make, mean_loss, data=windows, held_out=windows[:24], batch_size=16)


def main(folder: Path) -> dict:
    problem, options = experts(), training()
    one = Trainer(options, problem, parse_mesh("data", jax.devices()[:1]))
    sharded = Trainer(options, problem, parse_mesh("shard=8"))
    parts = dataclasses.replace(options, accumulate=2)
    mixed = Trainer(parts, problem, parse_mesh("shard=2,tensor,expert=2"))
    losses, metrics, state = run(sharded)
    starts = jax.tree.map(
        lambda a, b: bool(np.array_equal(a, b)), one.start().model, sharded.start().model
    )
    return {
        "same start": all(jax.tree.leaves(starts)),
        "one": run(one)[:2],
        "shard": (losses, metrics),
        "mixed": run(mixed)[:2],
        "weights": largest_share(state.model),
        "moments": largest_share(state.optimizer),
        "collectives": collectives(sharded.compiled.as_text()),
        "mixed collectives": collectives(mixed.compiled.as_text()),
        "twin": collectives(twin(sharded)),
        "resumed": resumed(sharded, folder),
        "matrices": [list(x.shape) for x in jax.tree.leaves(sharded.shapes.model) if x.ndim > 1],
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
