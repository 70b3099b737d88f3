"""Compiles a training of ten billion parameters for machines that need not be there.

    make numerics-aot ARGS=--collect-only
    JAX_PLATFORMS=cpu .venv-aot/bin/python tests/benchmarks/aot_train.py v5e --out FILE.json

The second needs the environment that the first makes. The step of `scalex train` is compiled for 16
chips of a TPU v5e, or for 8 H100s, fully sharded, in bfloat16 with float32 weights, blocks computed
again. Printed are the bytes on each device, from the compiled program, and its collectives with how
often they stand in it; those in a loop over blocks run once for each block.
"""

import argparse
import collections
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from numerics.aot.compiled import CUDA_FLAGS, ENVIRONMENT

os.environ.update(ENVIRONMENT)
if "h100" in sys.argv:
    os.environ["XLA_FLAGS"] = CUDA_FLAGS

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh
from numerics.aot.targets import TARGETS, _gpu

from scalex_eqx import nn
from scalex_eqx.experiments import parse_recipe
from scalex_eqx.problems import Problem
from scalex_eqx.problems._text import mean_loss
from scalex_eqx.training import Trainer, Training

VOCABULARY, LENGTH, HEAD = 32_768, 2_048, 128
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


def devices(name: str, count: int) -> list[Any]:
    """Of a machine that is not there."""
    if name == "v5e":
        return list(topologies.get_topology_desc(platform="tpu", topology_name="v5e:4x4").devices)
    capability = TARGETS["sm_90"].capability
    assert capability is not None
    found = topologies.get_topology_desc(
        platform="cuda",
        topology_name="",
        topology=f"1x{count}x1",
        target_config=_gpu(*capability),
    )
    return list(found.devices)


def problem(depth: int, examples: int) -> Problem:
    """A decoder as Llama's family has them, on tokens of which only the shape is known."""

    def make(width: int, key: Any) -> nn.Decoder:
        def block(key: Any) -> nn.DecoderBlock:
            attention, mlp = jax.random.split(key)
            return nn.DecoderBlock(
                attention_norm=nn.RMSNorm(width),
                attention=nn.GroupedQueryAttention(
                    width, head_dimension=HEAD, key_value_heads=8, key=attention
                ),
                mlp_norm=nn.RMSNorm(width),
                mlp=nn.GatedMLP(width, 4 * width, width, key=mlp),
            )

        return nn.Decoder(
            vocabulary_size=VOCABULARY, width=width, depth=depth, block=block, key=key
        )

    windows = np.zeros((examples, LENGTH + 1), np.int32)
    return Problem(make, mean_loss, data=windows, held_out=windows, batch_size=examples)


def compiled(name: str, width: int, depth: int, each: int) -> dict[str, Any]:
    """The step for one machine, with so many examples on each device."""
    count = 16 if name == "v5e" else 8
    chips = devices(name, count)
    mesh = Mesh(np.array(chips), ("shard",))
    training = Training(
        parse_recipe("mup:adam:full"),
        width=width,
        base_width=1024,
        learning_rate=2**-7,
        steps=1000,
        compute="bfloat16",
        recompute=True,
    )
    trainer = Trainer(training, problem(depth, each * count), mesh)
    program = trainer.lowered().compile()
    memory = program.memory_analysis()
    text = program.as_text()
    found = collections.Counter(
        kind for kind in COLLECTIVES for _ in re.findall(rf"= [^\n]*? {kind}(?:-start)?\(", text)
    )
    sizes = [x.size for x in jax.tree.leaves(trainer.shapes.model)]
    # One that runs in the background is written with the part that a device hands in first.
    gathered = re.findall(r"= \(?([a-z0-9]+\[[\d,]*\])[^\n]*? all-gather(?:-start)?\(", text)
    return {
        "devices": f"{count} x {chips[0].device_kind}",
        "parameters": sum(sizes),
        "examples on a device": each,
        "arguments": memory.argument_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "collectives": dict(found),
        "gathered": dict(collections.Counter(gathered)),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=("v5e", "h100"))
    parser.add_argument("--width", type=int, default=5120)
    parser.add_argument("--depth", type=int, default=26)
    parser.add_argument("--each", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    result = compiled(given.name, given.width, given.depth, given.each)
    print(json.dumps(result, indent=1))
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")
