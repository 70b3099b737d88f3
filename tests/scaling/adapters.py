"""What low-rank adapters on a trained model do as it gets wider, and as their rank grows.

    python tests/scaling/adapters.py [--out docs/results/adapters.json]

A network of 16 inputs, two hidden layers and 8 outputs is trained on a random teacher, for 300
steps of Adam at 2^-7 under full alignment, at widths 64, 256 and 1024 (base width 64, standard
parameterization). Then adapters of rank 4 on all three layers are trained on another teacher, which
is the first one moved halfway, and everything else is frozen. `law` has the learning rates of full
alignment; `one rate` has one for all.

- `changes`: exponents over the widths, of the change of `A x` and of each layer's output after four
  steps at 2^-12, eight seeds.
- `rates`: the loss after 100 steps at rates from 2^-12 to 2^-2, averaged over four seeds; the best
  rate is that of a parabola through the lowest three.
- `ranks`: at width 256, exponents over the ranks 2, 8 and 32 of the change of the logits after one
  step and after sixteen, with the factor 1, 1 / sqrt(rank) and 1 / rank.

Writes the tables that the docs show.
"""

import argparse
import functools
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import scalex_eqx as sx
from scalex_eqx.diagnostics import Table, record

WIDTHS, BASE, RANK, INPUTS, OUTPUTS = (64, 256, 1024), 64, 4, 16, 8
RANKS = (2, 8, 32)
RATES = tuple(2.0**k for k in range(-12, -1))
TRAINING, FINE_TUNING, BATCH = 300, 100, 64
LAWS = {"law": sx.full_alignment, "one rate": sx.global_rate}
FAST_COMPILE = {"xla_backend_optimization_level": 0}


class Network(eqx.Module):
    layers: list[Any]

    def __init__(self, width: int, key: Any):
        keys = jax.random.split(key, 3)
        self.layers = [
            sx.nn.Linear(INPUTS, width, key=keys[0]),
            sx.nn.Linear(width, width, key=keys[1]),
            sx.nn.Readout(width, OUTPUTS, key=keys[2]),
        ]

    def features(self, x: Any) -> list[Any]:
        """What each layer puts out, and what each adapter's `A` does."""
        outputs, inner = [], []
        for number, layer in enumerate(self.layers):
            if isinstance(layer, sx.nn.LoRA):
                inner.append(sx.effective(layer.lora_a) @ x)
            x = layer(x)
            outputs.append(x)
            x = jax.nn.relu(x) if number < 2 else x
        return [*inner, *outputs]

    def __call__(self, x: Any) -> Any:
        return self.features(x)[-1]


def adapted(model: Network, rank: int, scale: float, key: Any) -> Network:
    layers = [
        sx.nn.LoRA(layer, rank, scale=scale, key=key)
        for layer, key in zip(model.layers, jax.random.split(key, 3), strict=True)
    ]
    return eqx.tree_at(lambda model: model.layers, model, layers)


def law(width: int, make: Any, **options: Any) -> Any:
    return sx.parameterize(
        make, width=width, base_width=BASE, parameterization=sx.standard, **options
    )


def teachers(key: Any) -> tuple[Network, Network]:
    """The first task, and the second."""
    one, other = (Network(32, jax.random.fold_in(key, i)) for i in (1, 2))
    mixed = jax.tree.map(lambda a, b: 0.8 * a + 0.6 * b if eqx.is_array(a) else a, one, other)
    return one, mixed


def train(model: Any, teacher: Any, tx: Any, steps: int, key: Any) -> tuple[Any, Any]:
    """The model after training, and the mean loss of the last ten steps."""
    trained = jax.tree.map(
        lambda node: node.spec.is_trained if isinstance(node, sx.Weight) else False,
        model,
        is_leaf=lambda node: isinstance(node, sx.Weight),
    )
    params, rest = eqx.partition(model, trained)

    def loss(params: Any, key: Any) -> Any:
        x = jax.random.normal(key, (BATCH, INPUTS))
        found = jax.vmap(eqx.combine(params, rest))(x)
        return jnp.mean((found - jax.vmap(teacher)(x)) ** 2)

    def step(carry: Any, key: Any) -> Any:
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, key)
        updates, state = tx.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), value

    carry, losses = jax.lax.scan(step, (params, tx.init(params)), jax.random.split(key, steps))
    return eqx.combine(carry[0], rest), jnp.mean(losses[-10:])


@functools.cache
def pretrained(width: int, seed: int) -> Network:
    return _pretrained(width, seed)


@functools.partial(jax.jit, static_argnums=0, compiler_options=FAST_COMPILE)
def _pretrained(width: int, seed: Any) -> Network:
    """The effective weights of a network that has learned the first task."""
    key = jax.random.key(seed)
    draw = jax.random.fold_in(key, width)
    model = law(width, lambda width: Network(width, draw))
    model, _ = train(
        model, teachers(key)[0], sx.adam(2.0**-7), TRAINING, jax.random.fold_in(key, 3)
    )
    return sx.resolve(model)


def tuned(
    width: int,
    model: Network,
    rank: int,
    scale: float,
    rate: Any,
    rates: Any,
    steps: int,
    seed: Any,
) -> tuple[Any, Any, Any]:
    """The model with its adapters before and after, and the loss."""
    key = jax.random.key(seed)
    draw = jax.random.fold_in(key, width)

    def make(width: int) -> Network:
        return adapted(Network(width, draw), rank, scale, jax.random.fold_in(draw, 1))

    start = law(
        width,
        make,
        trained=adapted(model, rank, scale, jax.random.fold_in(draw, 1)),
        frozen=lambda path, _: "lora" not in path,
    )
    end, loss = train(
        start, teachers(key)[1], sx.adam(rate, rates), steps, jax.random.fold_in(key, 4)
    )
    return start, end, loss


def changes(width: int, rank: int, scale: float, rates: Any, steps: int, seeds: int) -> np.ndarray:
    """log2 of the RMS change of everything in `features`, averaged over the seeds."""

    def one(model: Any, seed: Any) -> Any:
        x = jax.random.normal(jax.random.key(99), (32, INPUTS))
        start, end, _ = tuned(width, model, rank, scale, 2.0**-12, rates, steps, seed)
        before, after = (jax.vmap(m.features)(x) for m in (start, end))
        return jnp.stack(
            [jnp.sqrt(jnp.mean((a - b) ** 2)) for a, b in zip(after, before, strict=True)]
        )

    run = jax.jit(one, compiler_options=FAST_COMPILE)
    found = [run(pretrained(width, seed), seed) for seed in range(seeds)]
    # In the first step only `B` moves.
    return np.mean(np.log2(np.maximum(jax.device_get(found), 1e-30)), axis=0)


def losses(width: int, rates: Any, seeds: int) -> np.ndarray:
    """log2 of the loss at each rate, averaged over the seeds."""

    def one(model: Any, seed: Any) -> Any:
        def at(rate: Any) -> Any:
            return tuned(width, model, RANK, 1.0, rate, rates, FINE_TUNING, seed)[2]

        return jax.lax.map(at, jnp.asarray(RATES))

    run = jax.jit(one, compiler_options=FAST_COMPILE)
    found = [run(pretrained(width, seed), seed) for seed in range(seeds)]
    return np.mean(np.log2(jax.device_get(found)), axis=0)


def best(logs: np.ndarray) -> float:
    """log2 of the best rate, by a parabola through the lowest loss and its neighbours."""
    i = int(np.clip(np.nanargmin(logs), 1, len(RATES) - 2))
    a, b, _ = np.polyfit(np.log2(RATES[i - 1 : i + 2]), logs[i - 1 : i + 2], 2)
    return float(-b / (2 * a))


def exponents(sizes: Any, logs: list[np.ndarray]) -> list[float]:
    return [float(x) for x in np.polyfit(np.log2(sizes), np.stack(logs), 1)[0]]


NAMES = ("0 A x", "1 A x", "2 A x", "0 output", "1 output", "logits")


def change_rows(seeds: int = 8) -> list[dict[str, Any]]:
    by_law = {
        name: exponents(WIDTHS, [changes(w, RANK, 1.0, rates, 4, seeds) for w in WIDTHS])
        for name, rates in LAWS.items()
    }
    return [
        {"change of": what, **{name: found[i] for name, found in by_law.items()}}
        for i, what in enumerate(NAMES)
    ]


def rate_rows(seeds: int = 4) -> list[dict[str, Any]]:
    rows = []
    for width in WIDTHS:
        row: dict[str, Any] = {"width": width}
        for name, rates in LAWS.items():
            logs = losses(width, rates, seeds)
            row |= {
                f"{name}: log2 of the best": best(logs),
                f"{name}: loss": float(2 ** np.nanmin(logs)),
            }
            print(width, name, np.round(logs, 2), flush=True)
        rows.append(row)
    return rows


def rank_rows(seeds: int = 8) -> list[dict[str, Any]]:
    scales = {"1": 0.0, "1 / sqrt(rank)": 0.5, "1 / rank": 1.0}
    return [
        {
            "factor": name,
            **{
                f"after {steps}": exponents(
                    RANKS,
                    [changes(256, r, r**-power, sx.full_alignment, steps, seeds) for r in RANKS],
                )[-1]
                for steps in (1, 16)
            },
        }
        for name, power in scales.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/adapters.json"))
    arguments = parser.parse_args()
    tables = [
        Table(name, [next(iter(rows[0]))], list(rows[0]), rows)
        for name, rows in (
            ("changes", change_rows()),
            ("ranks", rank_rows()),
            ("rates", rate_rows()),
        )
    ]
    for table in tables:
        print(table.to_markdown())
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    command = "python tests/scaling/adapters.py"
    arguments.out.write_text(record(tables, command).to_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
