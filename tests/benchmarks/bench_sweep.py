"""How near the mapped training of a sweep comes to the machine's matrix-product rate.

Run: `.venv/bin/python tests/benchmarks/bench_sweep.py [width] [members] [batch]
[repeats]`. Prints one
training chunk's rate as a fraction of the float32 matrix products measured in the same process,
interleaved: median and range. The rate counts matrix products only, forward and backward.
"""

import os
import sys
import time

import jax

jax.config.update("jax_num_cpu_devices", min(os.cpu_count() or 1, 8))

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from scalex_eqx.experiments import Member, Setting, load_corpus, parse_recipe
from scalex_eqx.experiments._train import _mapped, _shared_out, _Trainer

STEPS = 5


def main(width: int = 256, members: int = 18, batch: int = 8, repeats: int = 7) -> None:
    setting = Setting(
        base_width=64,
        depth=2,
        head_dimension=16,
        sequence_length=64,
        batch_size=batch,
        steps=STEPS,
    )
    recipe, corpus = parse_recipe("standard:adam:full"), load_corpus(None)
    mesh = Mesh(np.array(jax.devices()), ("runs",))
    run = _shared_out([Member(recipe, width, 0.01, seed) for seed in range(members)], mesh)
    trainer = _Trainer(setting, recipe, width, corpus)
    state = jax.jit(_mapped(trainer.start, mesh, in_runs=1))(run)
    advance = jax.jit(
        _mapped(trainer.advance, mesh, in_runs=2, out_runs_axis=(0, 1)), donate_argnums=0
    )
    tokens, steps = jnp.asarray(corpus.train), jnp.arange(STEPS)
    state, losses = advance(state, run, tokens, steps)
    jax.block_until_ready(losses)
    square = jnp.ones((2048, 2048))
    product = jax.jit(jnp.matmul)
    product(square, square).block_until_ready()

    work = members * STEPS * matrix_products(setting, width, corpus.vocabulary_size)
    rates, peaks = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready([product(square, square) for _ in range(10)])
        peaks.append(10 * 2 * 2048**3 / (time.perf_counter() - start) / 1e9)
        start = time.perf_counter()
        state, losses = advance(state, run, tokens, steps)
        jax.block_until_ready(losses)
        rates.append(work / (time.perf_counter() - start) / 1e9)
    ratios = np.array(rates) / np.array(peaks)
    print(f"matrix products 2048 x 2048: {np.median(peaks):.0f} GFLOP/s")
    print(f"width {width}, {members} runs, batches of {batch}: {np.median(rates):.0f} GFLOP/s")
    print(f"ratio: {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})")


def matrix_products(setting: Setting, width: int, vocabulary_size: int) -> float:
    """Floating-point operations in the matrix products of one run's step."""
    tokens = setting.batch_size * setting.sequence_length
    weights = 12 * width**2 * setting.depth + width * vocabulary_size
    attention = 2 * width * setting.sequence_length * setting.depth
    return 6.0 * tokens * (weights + attention)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
