"""How the best learning rate follows the batch size, for Adam and rules by examples' gradients.

    python tests/scaling/example_batches.py [--out docs/results/example_batches.json]

A noisy quadratic: example i's loss is 1/2 sum_j h_j w_j^2 + sigma sum_j e_ij w_j, with 200
curvatures h spread evenly in their logarithm over [0.1, 1], e standard normal, sigma = 5, and
w = 1 at first. 2^14 examples in batches of 2, 4, 8, 16 and 32; 1 - beta_1 = B / 100 and
1 - beta_2 = B / 1000; a constant learning rate, by octaves from 2^-13 to 1; the last quadratic
loss, averaged over 3 repeats. The best rate is the vertex of the parabola through the lowest loss
and its neighbours, in logarithms; its exponent is the slope of log2 of it over log2 of the batch
size.

Expected: 1/2 for Adam, whose second moment shrinks as the batch grows, and 1 for MicroAdam and its
variant by the variance, whose second moments don't. The control is MicroAdam that is given the
square of the mean gradient for the mean of the squares: it has to lie outside of 1 +- 0.1.
"""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import scalex_eqx as sx
from scalex_eqx.diagnostics import Table, record

SIGMA, TOLERANCE = 5.0, 0.1
CONTROL = "micro_adam of the mean's square"
# By name: what it should be; None where nothing is derived.
EXPECTED = {
    "adam": 0.5,
    "micro_adam, square": 1.0,
    "micro_adam, variance": 1.0,
    "micro_adam, mean": None,
    CONTROL: 1.0,
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """The sizes of the experiment."""

    dimension: int = 200
    examples: int = 2**14
    batches: tuple[int, ...] = (2, 4, 8, 16, 32)
    exponents: tuple[int, ...] = tuple(range(-13, 1))
    repeats: int = 3


def optimizer(name: str, rate: Any, batch: int) -> Any:
    b1, b2 = 1 - batch / 100, 1 - batch / 1000
    options: dict[str, Any] = {"b1": b1, "b2": b2, "unannotated": "constant"}
    if name == "adam":
        return sx.adam(rate, **options)
    second: Any = "square" if name == CONTROL else name.split(", ")[1]
    return sx.micro_adam(rate, second=second, **options)


def losses(name: str, batch: int, setting: Setting) -> np.ndarray:
    """The mean last loss at each learning rate."""
    curvature = jnp.logspace(-1, 0, setting.dimension)

    def of_example(w: Any, e: Any) -> Any:
        return jnp.sum(0.5 * curvature * w**2 + SIGMA * e * w)

    def run(rate: Any, key: Any) -> Any:
        tx = optimizer(name, rate, batch)

        def step(carry: Any, key: Any) -> Any:
            w, state = carry
            e = jax.random.normal(key, (batch, setting.dimension))
            found = sx.gradient_statistics(of_example, w, e, statistics=("square",))
            if name == CONTROL:
                found = dataclasses.replace(found, square=found.gradient**2)
            updates, state = tx.update(found.gradient, state, w, statistics=found)
            return (w + updates, state), None

        w = jnp.ones(setting.dimension)
        keys = jax.random.split(key, setting.examples // batch)
        (w, _), _ = jax.lax.scan(step, (w, tx.init(w)), keys)
        return 0.5 * jnp.sum(curvature * w**2)

    keys = jax.random.split(jax.random.key(0), setting.repeats)
    over_keys = jax.vmap(run, in_axes=(None, 0))
    rates = 2.0 ** jnp.asarray(setting.exponents, jnp.float32)
    found = jax.jit(jax.vmap(over_keys, in_axes=(0, None)))(rates, keys)
    return np.asarray(jnp.mean(found, axis=1), float)


def best(exponents: Sequence[int], values: np.ndarray) -> float:
    """log2 of the best rate; NaN at the end of the grid."""
    lowest = int(np.nanargmin(values))
    if lowest in (0, len(values) - 1):
        return float("nan")
    a, b, c = np.log(values[lowest - 1 : lowest + 2])
    return exponents[lowest] + 0.5 * (a - c) / (a - 2 * b + c)


def exponent(name: str, setting: Setting, say: Callable[..., None] = lambda *_: None) -> Any:
    """The slope, and a row for each batch size."""
    rows = []
    for batch in setting.batches:
        values = losses(name, batch, setting)
        rows.append(
            {
                "rule": name,
                "batch size": batch,
                "log2 of the best rate": best(setting.exponents, values),
                "loss": float(np.nanmin(values)),
                "losses": " ".join(f"{x:.4g}" for x in values),
            }
        )
        say(rows[-1])
    optima = [row["log2 of the best rate"] for row in rows]
    return float(np.polyfit(np.log2(setting.batches), optima, 1)[0]), rows


def holds(name: str, slope: float) -> bool | None:
    expected = EXPECTED[name]
    return None if expected is None else bool(abs(slope - expected) <= TOLERANCE)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/example_batches.json"))
    out, rows, slopes = parser.parse_args().out, [], []
    for name, expected in EXPECTED.items():
        slope, found = exponent(name, Setting(), lambda row: print(row, flush=True))
        rows += found
        held = holds(name, slope)
        slopes.append({"rule": name, "expected": expected, "exponent": slope, "holds": held})
        print(slopes[-1], flush=True)
    tables = [
        Table("exponents in the batch size", ["rule"], tuple(slopes[0]), slopes),
        Table("best rates", ["rule", "batch size"], tuple(rows[0]), rows),
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    command = "python tests/scaling/example_batches.py"
    out.write_text(record(tables, command).to_json(), encoding="utf-8")
    assert all(row["holds"] in (True, None) for row in slopes if row["rule"] != CONTROL)
    assert not slopes[-1]["holds"]


if __name__ == "__main__":
    main()
