"""What a step of each update rule costs, beside the same rule in Optax.

    python tests/benchmarks/bench_optim.py [--millions 33] [--rounds 15] [--rules adam adam_atan2]

Times update and application, compiled and donated, over parameters in 8 matrices, float32 unless
the name says bfloat16: turn and turn about in one process. Prints medians, quartiles, and the
median ratio of neighbouring calls to `optax.adam`, which is about as fast as the memory.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import optax

import scalex_eqx as sx
from scalex_eqx import optim

MATRICES = 8
SPEC = sx.WeightSpec(
    (-1,),
    (-2,),
    std=1.0,
    role=sx.Role.hidden,
    parameterization=sx.standard,
    width_ratio=Fraction(4),
)
RULES: dict[str, Callable[[], Any]] = {
    "optax.adam": lambda: optax.adam(1e-3),
    "adam": lambda: optim.adam(1e-3),
    "adam_atan2": lambda: optim.adam_atan2(1e-3),
    "optax.sgd": lambda: optax.sgd(1e-3, momentum=0.9),
    "sgd": lambda: optim.sgd(1e-3, momentum=0.9),
    "optax.lion": lambda: optax.lion(1e-3),
    "lion": lambda: optim.lion(1e-3),
    "optax.adafactor": lambda: optax.adafactor(1e-3),
    "adafactor": lambda: optim.adafactor(1e-3),
    "adam_parameter_scaling": lambda: optim.adam_parameter_scaling(1e-3),
    "adam skip_nonfinite": lambda: optim.skip_nonfinite(optim.adam(1e-3)),
    "adam_atan2 skip_nonfinite": lambda: optim.skip_nonfinite(optim.adam_atan2(1e-3)),
    "optax.adam skip_nonfinite": lambda: optim.skip_nonfinite(optax.adam(1e-3)),
    "optax.adam apply_if_finite": lambda: optax.apply_if_finite(optax.adam(1e-3), 5),
    "adam bfloat16": lambda: optim.adam(1e-3),
    "adam bfloat16 master": lambda: optim.low_precision(optim.adam(1e-3), "master"),
    "adam bfloat16 kahan": lambda: optim.low_precision(optim.adam(1e-3), "kahan"),
    "adam bfloat16 stochastic": lambda: optim.low_precision(
        optim.adam(1e-3), "stochastic", key=jax.random.key(0)
    ),
    "adam bfloat16 moments": lambda: optim.adam(1e-3, moment_dtype="bfloat16"),
}


class Running:
    """A rule with parameters and a state that each step replaces."""

    def __init__(self, name: str, size: int):
        tx, dtype = RULES[name](), jnp.bfloat16 if "bfloat16" in name else jnp.float32
        self.params, self.gradients = (
            [
                sx.Weight(scale * jax.random.normal(key, (size, size), dtype), SPEC)
                for key in jax.random.split(jax.random.key(seed), MATRICES)
            ]
            for seed, scale in enumerate((0.02, 1e-3))
        )
        self.state = tx.init(self.params)
        self.times: list[float] = []

        def step(params, state, gradients):
            updates, state = tx.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        self.compiled = jax.jit(step, donate_argnums=(0, 1))

    def step(self) -> float:
        start = time.perf_counter()
        self.params, self.state = self.compiled(self.params, self.state, self.gradients)
        jax.block_until_ready((self.params, self.state))
        return 1e3 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--millions", type=float, default=33.0)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--rules", nargs="*", default=list(RULES), choices=list(RULES))
    arguments = parser.parse_args()
    size = round((1e6 * arguments.millions / MATRICES) ** 0.5)
    reference = "optax.adam"
    running = {name: Running(name, size) for name in dict.fromkeys([reference, *arguments.rules])}
    for rule in running.values():
        rule.step()
    gc.collect()
    for _ in range(arguments.rounds):
        for rule in running.values():
            rule.times.append(rule.step())
    count = MATRICES * size * size
    print(f"{count:,} parameters in {MATRICES} matrices, {arguments.rounds} rounds, on {device()}")
    for name, rule in running.items():
        low, median, high = statistics.quantiles(rule.times, n=4)
        pairs = zip(rule.times, running[reference].times, strict=True)
        ratio = statistics.median(t / u for t, u in pairs)
        print(f"  {name:26}  {median:7.1f} ms  [{low:.1f}, {high:.1f}]  ratio {ratio:.2f}")


def device() -> str:
    return jax.devices()[0].device_kind


if __name__ == "__main__":
    main()
