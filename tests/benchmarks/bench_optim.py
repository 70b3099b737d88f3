"""What a step of each update rule costs, beside the same rule in Optax.

    python tests/benchmarks/bench_optim.py [--millions 33] [--arrays 8] [--rounds 15] [--rules ...]

Times update and application, compiled and donated, on an Equinox model whose layers have a matrix
each, float32 unless the name says bfloat16: turn and turn about in one process. Optax's rules get
the model without scaling laws. Prints medians, quartiles, the median ratio of neighbouring calls to
`optax.adam`, the bytes of state a parameter, and the roofline: the least time in which the
parameters, gradients and state can be read and written, at the rate of an in-place change of the
parameters that is measured along with the rules, as a share of the time that the step took.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import scalex_eqx as sx
from scalex_eqx import optim

SPEC = sx.WeightSpec(
    (-1,),
    (-2,),
    std=1.0,
    role=sx.Role.hidden,
    parameterization=sx.standard,
    width_ratio=Fraction(4),
)
REFERENCE, COPY = "optax.adam", "in-place change"
RULES: dict[str, Callable[[], Any]] = {
    COPY: lambda: optax.stateless(lambda g, p: jax.tree.map(lambda x: -0.5 * x, p)),
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
    "adam bytes": lambda: optim.adam(1e-3, moment_dtype="int8"),
    "adam bfloat16 moments": lambda: optim.adam(1e-3, moment_dtype="bfloat16"),
}


class Layer(eqx.Module):
    weight: Any


class Running:
    """A rule with parameters and a state that each step replaces."""

    def __init__(self, name: str, arrays: int, size: int):
        tx, dtype = RULES[name](), jnp.bfloat16 if "bfloat16" in name else jnp.float32
        self.params, self.gradients = (
            [
                Layer(self.leaf(name, scale * jax.random.normal(key, (size, size), dtype)))
                for key in jax.random.split(jax.random.key(seed), arrays)
            ]
            for seed, scale in enumerate((0.02, 1e-3))
        )
        self.state = tx.init(self.params)
        self.times: list[float] = []

        def step(params, state, gradients):
            updates, state = tx.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        self.compiled = jax.jit(step, donate_argnums=(0, 1))

    def leaf(self, name: str, value: jax.Array) -> Any:
        return value if name.startswith("optax") or name == COPY else sx.Weight(value, SPEC)

    def step(self) -> float:
        start = time.perf_counter()
        self.params, self.state = self.compiled(self.params, self.state, self.gradients)
        jax.block_until_ready((self.params, self.state))
        return 1e3 * (time.perf_counter() - start)

    def bytes_moved(self, name: str) -> int:
        """The least: parameters and state are read and written, gradients are read."""
        gradients = 0 if name == COPY else size_of(self.gradients)
        return 2 * size_of(self.params) + 2 * size_of(self.state) + gradients


def size_of(tree: Any) -> int:
    return sum(x.nbytes for x in jax.tree.leaves(tree))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--millions", type=float, default=33.0)
    parser.add_argument("--arrays", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--rules", nargs="*", default=list(RULES), choices=list(RULES))
    arguments = parser.parse_args()
    size = round((1e6 * arguments.millions / arguments.arrays) ** 0.5)
    names = dict.fromkeys([COPY, REFERENCE, *arguments.rules])
    running = {name: Running(name, arguments.arrays, size) for name in names}
    for rule in running.values():
        rule.step()
    gc.collect()
    for _ in range(arguments.rounds):
        for rule in running.values():
            rule.times.append(rule.step())
    show(running, arguments.arrays * size * size, arguments)


def show(running: dict[str, Running], count: int, arguments: argparse.Namespace) -> None:
    device = jax.devices()[0].device_kind
    print(
        f"{count:,} parameters in {arguments.arrays} matrices, {arguments.rounds} rounds, {device}"
    )
    print(f"{'':26}  {'median':>8}  {'quartiles':^14}  ratio  state  roofline")
    copy = running[COPY]
    for name, rule in running.items():
        low, median, high = statistics.quantiles(rule.times, n=4)
        ratio = median_ratio(rule.times, running[REFERENCE].times)
        # The bytes of this step over those of the copy, by the ratio of their times.
        share = rule.bytes_moved(name) / copy.bytes_moved(COPY)
        roofline = share / median_ratio(rule.times, copy.times)
        print(
            f"{name:26}  {median:5.1f} ms  [{low:5.1f}, {high:5.1f}]  {ratio:5.2f}  "
            f"{size_of(rule.state) / count:5.2f}  {roofline:8.2f}"
        )


def median_ratio(times: list[float], others: list[float]) -> float:
    return statistics.median(t / u for t, u in zip(times, others, strict=True))


if __name__ == "__main__":
    main()
