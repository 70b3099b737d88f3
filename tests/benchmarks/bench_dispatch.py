"""What Weight nodes cost the host at each call of a compiled step.

    python tests/benchmarks/bench_dispatch.py [--weights 400] [--rounds 300]

Times a jitted step over many small weights against the same step over plain arrays in an equal
container, turn and turn about in one process, and prints medians, quartiles and the median ratio
of neighbouring calls. The target is a ratio of at most 1.3. A list of one-element lists shows
what any Python object around each array costs.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import scalex_eqx as sx


def containers(count: int) -> dict[str, Any]:
    arrays = [jnp.full((4, 4), float(i)) for i in range(count)]
    specs = [sx.WeightSpec(fan_in=(-1,), fan_out=(-2,), std=float(i % 7)) for i in range(count)]
    weights = [sx.Weight(a, s) for a, s in zip(arrays, specs, strict=True)]
    return {
        "plain arrays": arrays,
        "Weight": weights,
        "[array]": [[a] for a in arrays],
    }


@jax.jit
def decay(params):
    return jax.tree.map(lambda w: 0.9 * w, params)


@jax.jit
def descend(params, gradients):
    return jax.tree.map(lambda w, g: w - 0.1 * g, params, gradients)


@jax.jit
def adam(params, mu, nu, gradients):
    mu = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mu, gradients)
    nu = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g * g, nu, gradients)
    params = jax.tree.map(lambda w, m, v: w - m / jnp.sqrt(v), params, mu, nu)
    return params, mu, nu


def time_call(step: Callable[..., Any], arguments: tuple[Any, ...]) -> float:
    """Microseconds until the call returns; the device's work is awaited after the clock."""
    start = time.perf_counter()
    out = step(*arguments)
    elapsed = time.perf_counter() - start
    jax.block_until_ready(out)
    return 1e6 * elapsed


def models(count: int) -> dict[str, Any]:
    """Equinox layers of one weight each, and their twins with the arrays in place."""
    layers = [sx.nn.Linear(4, 4, key=jax.random.key(i)) for i in range(count)]
    return {"resolved layers": sx.resolve(layers), "layers": layers}


def compare(step: Callable[..., Any], copies: int, trees: dict[str, Any], rounds: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in trees}
    for tree in trees.values():
        jax.block_until_ready(step(*[tree] * copies))
    gc.collect()
    for _ in range(rounds):
        for name, tree in trees.items():
            times[name].append(time_call(step, (tree,) * copies))
    twin = next(iter(times))
    for name, measured in times.items():
        low, median, high = statistics.quantiles(measured, n=4)
        ratio = statistics.median(t / u for t, u in zip(measured, times[twin], strict=True))
        print(f"  {name:12}  {median:6.0f} us  [{low:.0f}, {high:.0f}]  ratio {ratio:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--weights", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=300)
    arguments = parser.parse_args()
    trees = containers(arguments.weights)
    print(f"{arguments.weights} weights, {arguments.rounds} rounds: median, quartiles")
    for title, step, copies in (
        ("one tree in, one out", decay, 1),
        ("two trees in, one out", descend, 2),
        ("four trees in, three out", adam, 4),
    ):
        print(title)
        compare(step, copies, trees, arguments.rounds)
        compare(step, copies, models(arguments.weights), arguments.rounds)


if __name__ == "__main__":
    main()
