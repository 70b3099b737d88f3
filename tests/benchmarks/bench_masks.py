"""What masks cost in a training step.

    python tests/benchmarks/bench_masks.py [--width 512] [--rounds 15]

The library's Transformer of two blocks with Adam, a batch of 16 sequences of 64 tokens, compiled
and donated, in float32: dense, with every hidden matrix masked, and with masks of which all is
kept. Turn and turn about in one process; prints medians, quartiles, and the median ratio of
neighbouring steps to the dense one's with its quartiles, of the time that passes and of the time
that all cores spend on it, which other work on the machine doesn't change much.
"""

import argparse
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from _interleaved import compared

import scalex_eqx as sx

BATCH, LENGTH = 16, 64


def dense(width: int) -> Any:
    def make(width: int) -> Any:
        return sx.nn.Transformer(
            vocabulary_size=256,
            sequence_length=LENGTH,
            width=width,
            depth=2,
            head_dimension=32,
            key=jax.random.key(0),
        )

    return sx.parameterize(make, width=width, base_width=64, parameterization=sx.mup)


def loss(model: Any, tokens: Any) -> Any:
    logits = model(tokens[:, :-1])
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]))


class Running:
    """A model and a state that each step replaces."""

    def __init__(self, model: Any):
        tx = sx.adam(1e-3)
        # Donated arrays are the model's own.
        self.model = jax.tree.map(lambda x: x.copy() if eqx.is_array(x) else x, model)
        self.state = tx.init(eqx.filter(self.model, eqx.is_inexact_array))
        self.tokens = jax.random.randint(jax.random.key(1), (BATCH, LENGTH + 1), 0, 256)
        self.times: list[float] = []
        self.spent: list[float] = []

        @eqx.filter_jit(donate="all-except-first")
        def step(tokens: Any, model: Any, state: Any) -> Any:
            gradients = eqx.filter_grad(loss)(model, tokens)
            params = eqx.filter(model, eqx.is_inexact_array)
            updates, state = tx.update(gradients, state, params)
            return eqx.apply_updates(model, updates), state

        self.compiled = step

    def step(self) -> None:
        start, spent = time.perf_counter(), time.process_time()
        self.model, self.state = self.compiled(self.tokens, self.model, self.state)
        jax.block_until_ready((self.model, self.state))
        self.times.append(1e3 * (time.perf_counter() - start))
        self.spent.append(1e3 * (time.process_time() - spent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    model, key = dense(arguments.width), jax.random.key(2)
    running = {
        "dense": Running(model),
        "density 1/4": Running(sx.sparsify(model, "1/4", key=key)),
        "density 1": Running(sx.sparsify(model, 1, key=key)),
    }
    for _ in range(arguments.rounds + 1):
        for one in running.values():
            one.step()
    print(f"width {arguments.width}, {arguments.rounds} rounds, {jax.devices()[0].device_kind}")
    for name, one in running.items():
        for kind in ("times", "spent"):
            # The first step compiles.
            times, others = getattr(one, kind)[1:], getattr(running["dense"], kind)[1:]
            print(f"  {name:12} {kind:6} {compared(times, others)}")


if __name__ == "__main__":
    main()
