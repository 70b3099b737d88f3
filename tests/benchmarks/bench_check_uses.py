"""What it costs the coordinate check to read from the loss what each weight is used for.

    python tests/benchmarks/bench_check_uses.py

The check's first part alone, before any training, for a Transformer with stacked blocks and for
perceptrons of many layers. Seconds of the processor, so that others on the machine don't count.
"""

import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import scalex_eqx as sx
from scalex_eqx.diagnostics._coordinates._conflicts import conflicts
from scalex_eqx.diagnostics._coordinates._law import laws, optimizer_parts
from scalex_eqx.diagnostics._coordinates._models import shapes

WIDTHS = (32, 64)
TX = sx.adam(0.01)


def transformer(width: int, key: Any) -> Any:
    return sx.nn.Transformer(
        vocabulary_size=64, sequence_length=16, width=width, depth=4, head_dimension=16, key=key
    )


def perceptron(layers: int) -> Any:
    return lambda width, key: eqx.nn.MLP(8, 4, width, layers - 1, key=key)


def tokens(key: Any) -> Any:
    return jax.random.randint(key, (8, 16), 0, 64), jax.random.randint(key, (8, 16), 0, 64)


def examples(key: Any) -> Any:
    return jax.random.normal(key, (8, 8)), jnp.zeros(8, int)


def loss(model: Any, x: Any, y: Any) -> Any:
    logits = jax.vmap(sx.resolve(model))(x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def seconds(make: Any, batch: Any) -> tuple[int, float]:
    """How many weights there are, and the time."""

    def build(width: int, key: Any) -> Any:
        return sx.parameterize(
            lambda width: make(width, key), width=width, base_width=32, parameterization=sx.mup
        )

    models = shapes(build, WIDTHS)
    chain = optimizer_parts(models[-1], TX)
    law = laws(WIDTHS, models, chain, None, None)
    jax.clear_caches()
    start = time.process_time()
    found = conflicts(loss, batch, models, law, chain, "width")
    taken = time.process_time() - start
    assert found == ((), ())
    return len(sx.weights_with_paths(models[-1])), taken


def main() -> None:
    for name, make, batch in (
        ("Transformer, 4 stacked blocks", transformer, tokens),
        ("perceptron, 200 layers", perceptron(200), examples),
        ("perceptron, 2500 layers", perceptron(2500), examples),
    ):
        weights, taken = seconds(make, batch)
        print(f"{name}: {weights} weights, {taken:.2f} s", flush=True)


if __name__ == "__main__":
    main()
