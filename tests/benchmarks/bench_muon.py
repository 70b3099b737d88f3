"""What a step of Muon costs, beside `optax.contrib.muon`.

    python tests/benchmarks/bench_muon.py [--rounds 15]

Times update and application, compiled and donated, in float32: turn and turn about in one process.
Both get the same matrices, (out, in) with Optax told so by its dimension numbers; weights that are
stacked are given to Optax stacked too, and one by one. Prints medians, quartiles, and the median
ratio of neighbouring calls to Optax's with its quartiles.
"""

import argparse
import time
from typing import Any

import jax
import optax
from _interleaved import compared
from bench_optim import SPEC
from optax.contrib import MuonDimensionNumbers

import scalex_eqx as sx

# Matrices' shapes, those of a stack with its length in front.
CASES = {
    "8 matrices, 512 x 512": [(512, 512)] * 8,
    "4 up and 4 down, 256 and 1024": [(1024, 256), (256, 1024)] * 4,
    "a stack of 8, 256 x 256": [(8, 256, 256)],
    "a stack of 32, 64 x 64": [(32, 64, 64)],
}


class Running:
    """A rule with parameters and a state that each step replaces."""

    def __init__(self, tx: optax.GradientTransformation, params: Any):
        self.params = params
        self.gradients = jax.tree.map(
            lambda x: jax.random.normal(jax.random.key(1), x.shape), params
        )
        self.state = tx.init(params)
        self.times: list[float] = []

        def step(params, state, gradients):
            updates, state = tx.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        self.compiled = jax.jit(step, donate_argnums=(0, 1))

    def step(self) -> None:
        start = time.perf_counter()
        self.params, self.state = self.compiled(self.params, self.state, self.gradients)
        jax.block_until_ready((self.params, self.state))
        self.times.append(1e3 * (time.perf_counter() - start))


def rivals(shapes: list[tuple[int, ...]]) -> dict[str, Running]:
    def arrays() -> list[jax.Array]:
        return [0.02 * jax.random.normal(jax.random.key(i), s) for i, s in enumerate(shapes)]

    def theirs(params: Any) -> Running:
        numbers = jax.tree.map(lambda x: MuonDimensionNumbers(x.ndim - 1, x.ndim - 2), params)
        return Running(optax.contrib.muon(0.02, muon_weight_dimension_numbers=numbers), params)

    found = {"optax": theirs(arrays())}
    if len(shapes[0]) == 3:
        found["optax, one by one"] = theirs([x for stack in arrays() for x in stack])
    for method in ("newton_schulz", "minimax"):
        weights = [sx.Weight(x, SPEC) for x in arrays()]
        found[method] = Running(sx.muon(0.02, method=method), weights)
    narrow = [sx.Weight(x, SPEC) for x in arrays()]
    found["newton_schulz, bfloat16"] = Running(sx.muon(0.02, compute_dtype="bfloat16"), narrow)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    for name, shapes in CASES.items():
        running = rivals(shapes)
        for _ in range(arguments.rounds + 1):
            for rule in running.values():
                rule.step()
        print(f"{name}, {arguments.rounds} rounds, {jax.devices()[0].device_kind}")
        for rule, one in running.items():
            # The first step compiles.
            times, others = one.times[1:], running["optax"].times[1:]
            print(f"  {rule:24}  {compared(times, others)}")


if __name__ == "__main__":
    main()
