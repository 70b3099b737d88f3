"""A learning rate for each of a hundred weights: one rule against optax.partition.

Counts operations of the lowered step and times tracing and compilation, of `sx.adam` and of
`optax.partition` with a labelled `optax.adam` for each weight, and with one for each of four roles.
All on the same MLP of equinox.nn, with and without specs; interleaved, medians and spread.

    python tests/benchmarks/bench_partition.py [repeats]
"""

import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import optax

import scalex_eqx as sx

DEPTH = 49  # Fifty layers of a weight and a bias each.
WIDTH, BASE_WIDTH = 32, 16


def make(width: int) -> eqx.nn.MLP:
    return eqx.nn.MLP(8, 4, width, DEPTH, key=jax.random.key(0))


def rivals() -> dict[str, tuple[Any, Any]]:
    """A model's arrays and an optimizer, by name."""
    scaled = sx.parameterize(make, width=WIDTH, base_width=BASE_WIDTH, parameterization=sx.standard)
    plain = eqx.filter(make(WIDTH), eqx.is_inexact_array)
    leaves, structure = jax.tree.flatten(plain)
    each = jax.tree.unflatten(structure, list(range(len(leaves))))
    roles = [str(w.spec.role) for w in sx.weights_with_paths(scaled).values()]
    by_role = jax.tree.unflatten(structure, roles)
    return {
        "sx.adam": (eqx.filter(scaled, eqx.is_inexact_array), sx.adam(1e-3)),
        "a label for each weight": (plain, partition(range(len(leaves)), each)),
        "a label for each role": (plain, partition(sorted(set(roles)), by_role)),
    }


def partition(names: Any, labels: Any) -> optax.GradientTransformation:
    # Distinct rates, so that nothing can be shared.
    rules = {name: optax.adam(1e-3 * (1 + i)) for i, name in enumerate(names)}
    return optax.partition(rules, lambda _: labels)


def step_of(tx: Any) -> Callable:
    def step(gradient, state, params):
        updates, state = tx.update(gradient, state, params)
        return eqx.apply_updates(params, updates), state

    return step


def timed(f: Callable, *args: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = f(*args)
    return time.perf_counter() - start, result


def main(repeats: int) -> None:
    print(f"{platform.machine()}, JAX {jax.__version__}, {repeats} repeats")
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(repeats):
        for name, (params, tx) in rivals().items():
            jax.clear_caches()
            args = (params, tx.init(params), params)
            tracing, lowered = timed(lambda f, a: jax.jit(f).lower(*a), step_of(tx), args)
            compiling, _ = timed(lowered.compile)
            count = len(re.findall(r"^\s*%?\S+ = ", lowered.as_text(), re.MULTILINE))
            row = found.setdefault(name, {"operations": [], "tracing s": [], "compiling s": []})
            for column, value in zip(row, (count, tracing, compiling), strict=True):
                row[column].append(value)
    reference = found["sx.adam"]
    for name, row in found.items():
        for column, values in row.items():
            median = statistics.median(values)
            ratio = statistics.median(reference[column]) / median
            print(
                f"{name:24} {column:12} {median:9.3f} [{min(values):.3f}, {max(values):.3f}]"
                f"  sx.adam is {ratio:.2f} x"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
