#!/bin/sh
# Optax 0.2.8, JAX 0.10.2, on the CPU: `optax.microbatching.micro_grad`, which takes the gradient of
# each example by itself and sums functions of them, has an argument for how many are looked at at
# once. Whoever raises it for speed gets the opposite. For a perceptron with three matrices of
# 256 x 256 and a batch of 64, four at once take some thirty times as long as one at a time, since
# XLA computes the products for several examples there by plain loops.
#
# Seen: four at once took over 5 times as long as one at a time: True
#
# Exits with another status than 0 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    optax==0.2.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import statistics
import sys
import time

import jax
import jax.numpy as jnp
from optax import microbatching

WIDTH, BATCH, ROUNDS = 256, 64, 7


def loss(matrices, x):
    for matrix in matrices:
        x = jnp.tanh(matrix @ x)
    return jnp.sum(jnp.square(x))


def squares(at_once):
    """Mean gradient and mean of its squares over the examples, with so many at once."""
    return jax.jit(
        microbatching.micro_grad(
            loss,
            keep_batch_dim=False,
            microbatch_size=at_once,
            accumulator=microbatching.AccumulationType.MEAN,
            transform_fn=lambda g: (g, jax.tree.map(jnp.square, g)),
        )
    )


keys = jax.random.split(jax.random.key(0), 4)
matrices = [jax.random.normal(key, (WIDTH, WIDTH)) / WIDTH**0.5 for key in keys[:3]]
examples = jax.random.normal(keys[3], (BATCH, WIDTH))
runs = {at_once: squares(at_once) for at_once in (1, 4)}
taken = {at_once: [] for at_once in runs}
for _ in range(ROUNDS + 1):
    for at_once, run in runs.items():
        start = time.process_time()
        jax.block_until_ready(run(matrices, examples))
        taken[at_once].append(time.process_time() - start)
one, four = (statistics.median(times[1:]) for times in taken.values())
print(f"one at a time {1e3 * one:.1f} ms, four at once {1e3 * four:.1f} ms of processor time")
print(f"four at once took over 5 times as long as one at a time: {four > 5 * one}")
sys.exit(not four > 5 * one)
PYTHON
