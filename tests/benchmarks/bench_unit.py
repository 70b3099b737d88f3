"""What the factors of unit scaling cost in a training step.

    python tests/benchmarks/bench_unit.py [--width 256] [--rounds 31]

`nn.unit.Transformer` of two blocks with Adam, a batch of 16 sequences of 64 tokens, compiled and
donated, in float32: as it is, and traced once more with every factor one, so that the program has
the same products and no factors. Turn and turn about in one process; prints medians, quartiles, and
the median ratio of neighbouring steps to those without factors with its quartiles, of the time that
passes and of the time that all cores spend on it, which other work on the machine doesn't change
much. Of the compiled programs the products and the kernels are counted, and the arrays named that
only the one with factors keeps for its backward pass; the products have to be as many.
"""

import argparse
import contextlib
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
from _interleaved import compared

import scalex_eqx as sx

sys.path.insert(0, str(Path(__file__).parents[1] / "nn/unit"))
from _without_factors import without_factors  # pyright: ignore[reportMissingImports]

BATCH, LENGTH = 16, 64


def model(width: int) -> Any:
    def make(width: int) -> Any:
        return sx.nn.unit.Transformer(
            vocabulary_size=256, width=width, depth=2, head_dimension=32, key=jax.random.key(0)
        )

    return sx.parameterize(make, width=width, parameterization=sx.u_mup)


def loss(model: Any, tokens: Any) -> Any:
    return model.loss(tokens[:, :-1], tokens[:, 1:], mapped=1)


class Running:
    """A model and a state that each step replaces."""

    def __init__(self, model: Any, *, factors: bool):
        tx = sx.adam(1.0)
        self.model, self.static = eqx.partition(
            jax.tree.map(lambda x: x.copy() if eqx.is_array(x) else x, model), eqx.is_array
        )
        self.state = tx.init(self.model)
        self.tokens = jax.random.randint(jax.random.key(1), (BATCH, LENGTH + 1), 0, 256)
        self.times: list[float] = []
        self.spent: list[float] = []

        def step(model: Any, state: Any, tokens: Any) -> Any:
            gradient = eqx.filter_grad(loss)(eqx.combine(model, self.static), tokens)
            updates, state = tx.update(gradient, state, model)
            return eqx.apply_updates(model, updates), state

        with contextlib.nullcontext() if factors else without_factors():
            lowered = jax.jit(step, donate_argnums=(0, 1)).lower(
                self.model, self.state, self.tokens
            )
        self.compiled = lowered.compile()

    def lines(self, operation: str) -> Counter[str]:
        """The shapes of what an operation of the compiled program puts out."""
        found = re.findall(rf"= (\w+\[[\d,]*\])\S* {operation}\(", str(self.compiled.as_text()))
        return Counter(found)

    def kept(self) -> Counter[str]:
        """The shapes of what each turn of the loops over blocks puts into a stack."""
        return self.lines("dynamic-update-slice")

    def step(self) -> None:
        start, spent = time.perf_counter(), time.process_time()
        self.model, self.state = self.compiled(self.model, self.state, self.tokens)
        jax.block_until_ready((self.model, self.state))
        self.times.append(1e3 * (time.perf_counter() - start))
        self.spent.append(1e3 * (time.process_time() - spent))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=31)
    arguments = parser.parse_args()
    one = model(arguments.width)
    running = {
        "all one": Running(one, factors=False),
        "unit-scaled": Running(one, factors=True),
    }
    for number in range(arguments.rounds + 1):
        # Who goes first changes, since what went before is still in the caches.
        for name in sorted(running, reverse=bool(number % 2)):
            running[name].step()
    plain, with_factors = running.values()
    assert plain.lines("dot") == with_factors.lines("dot")
    print("kept besides:", dict(with_factors.kept() - plain.kept()))
    print(f"width {arguments.width}, {arguments.rounds} rounds, {jax.devices()[0].device_kind}")
    for name, one in running.items():
        counts = {kind: one.lines(kind).total() for kind in ("dot", "fusion")}
        print(f"  {name:12} {counts['dot']} products, {counts['fusion']} kernels")
        for kind in ("times", "spent"):
            times, others = getattr(one, kind)[1:], getattr(running["all one"], kind)[1:]
            print(f"  {name:12} {kind:6} {compared(times, others)}")


if __name__ == "__main__":
    main()
