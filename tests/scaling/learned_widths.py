"""What learned rules do at widths, horizons and depths beyond those they were trained at.

    python tests/scaling/learned_widths.py --out docs/results/learned_widths.json

A rule of 953 parameters is meta-trained on MLPs of widths 16 and 32 for each arm and seed, and then
trains wider, longer and deeper ones. Arms:

- `law`: hidden step sizes fall as 1 / fan-in, the readout starts at zero: the published form.
- `none`: one step size for all, the same lambda_1, the usual initial readout.
- `none, zero readout`: the same with a readout that starts at zero, which the published comparison
  does not separate from the law.
- `law, drawn readout`: the law with the usual initial readout.

Adam stands beside them, its learning rate tuned at width 32, with its law and without.
"""

import argparse
import functools
import json
import os
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax

if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", min(os.cpu_count() or 1, 8))

import jax.numpy as jnp
import numpy as np

import scalex_eqx as sx
from scalex_eqx.meta_training import Settings, Task, courses, meta_train
from scalex_eqx.meta_training._task import bounded
from scalex_eqx.problems import teacher

BASE, DEPTH, STEPS = 16, 3, 100
TRAINED_AT = (16, 32)
WIDTHS = (32, 128, 512)
# As in the published rule: 1 / fan-in absolutely, where the law counts from the base width.
ABSOLUTE = {"hidden": 1 / BASE, "readout": 1 / BASE}
ARMS: dict[str, dict[str, Any]] = {
    "law": {"role_multipliers": ABSOLUTE},
    "none": {
        "parameterization": sx.standard,
        "rates": sx.global_rate,
        "zero_readout": False,
    },
    "none, zero readout": {"parameterization": sx.standard, "rates": sx.global_rate},
    "law, drawn readout": {"role_multipliers": ABSOLUTE, "zero_readout": False},
}
ADAM = {"adam with its law": sx.full_alignment, "adam without": sx.global_rate}
RATES = [2.0**-k for k in range(4, 12)]


@functools.cache
def problem():
    return teacher()


@functools.cache
def task(arm: str, width: int, depth: int = DEPTH) -> Task:
    return Task(problem(), {"width": width, "depth": depth}, BASE, **ARMS[arm])


def last(losses: Any, steps: int) -> float:
    """The mean loss of the last ten steps before `steps`, over all trainings."""
    return float(jnp.mean(bounded(losses[:, steps - 10 : steps])))


# The sizes that are tried, and what the losses are called by the number of steps.
CELLS = [
    *(((n, DEPTH), {k: f"width {n}, {k} steps" for k in (STEPS, 5 * STEPS)}) for n in WIDTHS),
    ((32, 4 * DEPTH), {STEPS: f"width 32, depth {4 * DEPTH}"}),
]


def missing(found: dict[str, Any]) -> list[tuple[tuple[int, int], dict[int, str]]]:
    return [(sizes, names) for sizes, names in CELLS if not {*names.values()} <= {*found}]


def measured(make: Any, tx_of: Any, numbers: Any, found: dict[str, Any], keep: Any) -> None:
    """Adds the losses that `found` lacks, and keeps it after each training."""
    for sizes, names in missing(found):
        one = make(*sizes)
        losses = courses(one, tx_of(one), numbers, steps=max(names), seeds=2)
        found.update({name: round(last(losses, count), 4) for count, name in names.items()})
        keep(found)


def meta_trained(arm: str, seed: int, folder: Path | None) -> tuple[Any, float, float]:
    """The rule, the meta-loss of the last 50 outer steps, and the seconds it took."""
    start = time.monotonic()
    keep = None if folder is None else folder / f"{arm.replace(', ', '-')}-{seed}.npz"
    found = meta_train([task(arm, width) for width in TRAINED_AT], Settings(seed=seed), keep=keep)
    return found.rule, float(found.losses[-50:].mean()), time.monotonic() - start


def tuned_adam(rates: Any, found: dict[str, Any], keep: Any) -> None:
    """Adds the best learning rate at width 32, and what it does elsewhere."""

    @functools.cache
    def make(width: int, depth: int = DEPTH) -> Task:
        return Task(
            problem(),
            {"width": width, "depth": depth},
            BASE,
            parameterization=sx.standard,
            rates=rates,
            zero_readout=False,
        )

    def adam(rate: Any):
        return sx.adam(rate, rates)

    if "learning_rate" not in found:
        losses = {
            r: last(courses(make(32), adam, jnp.float32(r), steps=STEPS, seeds=2), STEPS)
            for r in RATES
        }
        found["learning_rate"] = str(Fraction(min(losses, key=lambda r: losses[r])))
    best = jnp.float32(Fraction(found["learning_rate"]))
    measured(make, lambda one: adam, best, found, keep)


def coordinate_growth(seed: int = 0) -> dict[str, float]:
    """How an untrained rule's change of the second layer's output grows: the power of the width."""
    rule = sx.optim.LearnedRule(16, key=jax.random.key(seed))
    widths, slopes = (32, 64, 128, 256, 512), {}
    for arm in ("law", "none"):
        moved = [_moved(task(arm, width), rule) for width in widths]
        slopes[arm] = round(float(np.polyfit(np.log(widths), np.log(moved), 1)[0]), 3)
    return slopes


def _moved(one: Task, rule: Any, steps: int = 20) -> float:
    """The root mean square change of the second layer's output after some steps."""
    key = jax.random.key(3)
    x = jax.random.normal(jax.random.key(4), (64, 16))
    tx = one.learned(rule)

    @jax.jit
    def change():
        begun = one.begin(tx, key)
        data = jax.tree.map(jnp.asarray, one.problem.data)
        after, _ = one.train(tx, begun, data, jax.random.split(key, steps))

        def output(model):
            first, second, *_ = sx.resolve(model).layers
            y = jax.nn.relu(x @ first.weight.T + first.bias[None])
            return y @ second.weight.T + second.bias[None]

        return jnp.sqrt(jnp.mean((output(after.model) - output(begun.model)) ** 2))

    return float(change())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    done: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}

    def kept(key: str, value: Any) -> None:
        done[key] = value
        options.out.write_text(json.dumps(done, indent=1) + "\n")
        print(key, value, flush=True)

    if "coordinates" not in done:
        kept("coordinates", coordinate_growth())
    for name, rates in ADAM.items():
        tuned_adam(rates, done.get(name, {}), functools.partial(kept, name))
    for seed in options.seeds:
        for arm in options.arms:
            key = f"{arm}, meta-seed {seed}"
            found = done.get(key, {})
            if not missing(found):
                continue
            rule, loss, seconds = meta_trained(arm, seed, options.keep)
            kept(key, {"meta_loss": round(loss, 4), "seconds": round(seconds), **found})
            measured(
                functools.partial(task, arm),
                lambda one: one.learned,
                rule,
                done[key],
                functools.partial(kept, key),
            )


if __name__ == "__main__":
    main()
