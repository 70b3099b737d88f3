"""The exponents of every weight, measured, against its law: each size by itself.

    python tests/scaling/size_exponents.py [--seeds 3] [--out docs/results/size_exponents.json]

Models grow in one size while the others are held, or as real models do. For every weight and
parameterization: the root mean square of the effective weight at first, of its first updates under
Adam, Adafactor and SGD, and of its gradient, under a fixed random cotangent of the outputs and
under the cross-entropy. Each is fitted over the widths, over all seeds together, and compared with
the law of the weight's sizes. A planted fault for each size has to be seen. Writes the tables that
the docs show.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import scalex_eqx as sx
from scalex_eqx import Role
from scalex_eqx._laws import WeightLaw, rate_of
from scalex_eqx.diagnostics import Table, record
from scalex_eqx.diagnostics._coordinates._growth import sloped, slopes
from scalex_eqx.theory._power import SIZES

if __package__:
    from ._blocks import batch, model as decoder
else:
    from _blocks import batch, model as decoder

PARAMETERIZATIONS = (sx.standard, sx.ntk, sx.mup, sx.mean_field)
INPUTS, OUTPUTS, EXAMPLES = 24, 12, 16
OPTIMIZERS = {
    "adam": sx.adam(1.0, eps=0.0),
    "adafactor": sx.adafactor(1.0, rates=sx.full_alignment, min_factored_size=1 << 20),
    "sgd": sx.sgd(1.0),
}
QUANTITIES = ("spread", *OPTIMIZERS, "gradient", "cross-entropy")
COLUMNS = (
    "case",
    "parameterization",
    "weight",
    "role",
    "grows in",
    "quantity",
    "law",
    "measured",
)
TOLERANCES = {"spread": 0.03, "adam": 0.03, "adafactor": 0.03, "sgd": 0.1, "gradient": 0.1}


@dataclasses.dataclass(frozen=True)
class Case:
    """A model that grows: `make(n, key)`, called with the sizes `grid`, and what `apply` does."""

    make: Callable[[int, Any], Any]
    apply: Callable[[Any, Any], Any]
    inputs: Callable[[Any], Any]
    grid: tuple[int, ...]
    roles: dict[str, str] = dataclasses.field(default_factory=dict)


ROLES = {f"{i}/weight": role for i, role in enumerate(("embedding", *["hidden"] * 2, "readout"))}
ROLES |= {f"{i}/bias": "vector" for i in range(3)}


def chain(sizes: Sequence[int], key: Any) -> Any:
    """Linear layers between these sizes. Biases are drawn, so that they have a spread."""
    pairs = list(itertools.pairwise(sizes))
    layers = [
        eqx.nn.Linear(*pair, use_bias=pair is not pairs[-1], key=k)
        for pair, k in zip(pairs, jax.random.split(key, len(pairs)), strict=True)
    ]
    return layers


def apply_chain(layers: Any, x: Any) -> Any:
    for layer in layers[:-1]:
        x = jnp.tanh(jax.vmap(layer)(x))
    return jax.vmap(layers[-1])(x)


def of_chain(grows: Sequence[int], grid: tuple[int, ...] = (32, 128, 512)) -> Case:
    """A chain of whose three inner sizes some grow."""

    def make(n: int, key: Any) -> Any:
        inner = [n if i in grows else grid[0] for i in range(3)]
        return chain((INPUTS, *inner, OUTPUTS), key)

    return Case(
        make, apply_chain, lambda key: jax.random.normal(key, (EXAMPLES, INPUTS)), grid, ROLES
    )


def rounded(n: int, key: Any) -> Any:
    """An inner size of 8/3 of the others, up to a multiple of 64."""
    return chain((INPUTS, n, -(-(8 * n // 3) // 64) * 64, n, OUTPUTS), key)


def of_decoder(experts: int) -> Case:
    """Query heads grow, key-value heads and experts stay in number, inner sizes are rounded."""
    return Case(
        lambda n, key: decoder(n, key, experts=experts),
        lambda model, tokens: model(tokens),
        lambda key: batch(key)[0],
        (16, 64, 256),
    )


CASES = {
    "all sizes": of_chain((0, 1, 2)),
    "the first inner size alone": of_chain((0,)),
    "the second inner size alone": of_chain((1,)),
    "the readout's fan-in alone": of_chain((2,)),
    "a rounded inner size": dataclasses.replace(of_chain(()), make=rounded),
    "a decoder with fixed key-value heads": of_decoder(experts=0),
    "the same with experts": of_decoder(experts=3),
}


def parameterized(case: Case, law: Any, n: int, key: Any) -> Any:
    return sx.parameterize(
        lambda width: case.make(width, key),
        width=n,
        base_width=case.grid[0],
        probe_width=case.grid[1],
        parameterization=law,
        roles=case.roles,
    )


def cotangent_loss(case: Case) -> Any:
    """A random sum of the outputs, the same at every width."""

    def loss(model: Any, x: Any, key: Any) -> Any:
        out = case.apply(sx.resolve(model), x)
        return jnp.sum(out * jax.random.normal(key, out.shape))

    return loss


def cross_entropy(case: Case) -> Any:
    def loss(model: Any, x: Any, key: Any) -> Any:
        out = case.apply(sx.resolve(model), x)
        labels = jax.random.randint(key, out.shape[:-1], 0, out.shape[-1])
        return optax.softmax_cross_entropy_with_integer_labels(out, labels).sum()

    return loss


def mean_squares(case: Case, law: Any, n: int, seeds: int) -> dict[str, dict[str, float]]:
    """By weight the mean squares of everything, over the entries that are not zero, and seeds."""

    def measured(key: Any) -> Any:
        keys = jax.random.split(key, 3)
        x = case.inputs(keys[1])
        params, static = eqx.partition(parameterized(case, law, n, keys[0]), eqx.is_inexact_array)

        def gradient(loss: Any) -> Any:
            return jax.grad(lambda p: loss(eqx.combine(p, static), x, keys[2]))(params)

        gradients = {
            "gradient": gradient(cotangent_loss(case)),
            "cross-entropy": gradient(cross_entropy(case)),
        }
        trees = {"spread": params, **gradients}
        for name, tx in OPTIMIZERS.items():
            trees[name], _ = tx.update(gradients["gradient"], tx.init(params), params)
        found = {name: sx.weights_with_paths(tree) for name, tree in trees.items()}
        return {
            path: {name: _mean_square(name, tree[path]) for name, tree in found.items()}
            for path in found["spread"]
        }

    found = jax.jit(jax.vmap(measured))(jax.vmap(jax.random.key)(jnp.arange(seeds)))
    return jax.tree.map(lambda x: float(x.mean()), found)


def _mean_square(name: str, weight: Any) -> Any:
    # Spread and updates are those of the effective weight, the gradient is that of the stored one.
    factor = weight.spec.multiplier if name not in ("gradient", "cross-entropy") else 1.0
    squares = jnp.square(factor * weight.value)
    moved = jnp.count_nonzero(squares).astype(squares.dtype)
    return jnp.sum(squares) / jnp.maximum(moved, 1)


def expected(law: WeightLaw, by_size: Any) -> dict[str, float]:
    """The exponents of the width, -(a + b) and so on."""
    found = {"spread": law.size, "gradient": law.gradient, "cross-entropy": law.gradient}
    for name in OPTIMIZERS:
        found[name] = of_rule(law, name)
    return {name: -sloped(power, by_size) for name, power in found.items()}


def of_rule(law: WeightLaw, name: str) -> Any:
    """The update of one of the rules: its family and the rates that it gives."""
    family = sx.theory.as_family(name).of_role(Role(law.spec.role))
    rules = [sx.optim.Rule("", family=family, rates=sx.full_alignment)]
    return dataclasses.replace(law, family=family, rate=rate_of("", law.spec, rules)).update


def exponents(case: Case, law: Any, seeds: int) -> Iterator[dict[str, Any]]:
    """A row for each weight: what was measured, and what its law says."""
    sizes = [mean_squares(case, law, n, seeds) for n in case.grid]
    specs = [
        {p: w.spec for p, w in sx.weights_with_paths(of_shapes(case, law, n)).items()}
        for n in case.grid
    ]
    for path in specs[0]:
        spec = specs[-1][path]
        by_size = slopes(case.grid, [at[path] for at in specs])
        law_of_weight = WeightLaw(spec, sx.theory.adam, sx.theory.Power())
        meant = expected(law_of_weight, by_size)
        faulty = {name: expected(law_of_weight, fault(by_size)) for name, fault in FAULTS.items()}
        for name in QUANTITIES:
            squares = [at[path][name] for at in sizes]
            if not all(squares):
                continue
            slope = np.polyfit(np.log2(case.grid), 0.5 * np.log2(squares), 1)[0]
            yield {
                "parameterization": law.name,
                "weight": path,
                "role": str(spec.role),
                "grows in": ", ".join(s for s in SIZES if by_size[s]) or "nothing",
                "quantity": name,
                "law": round(meant[name], 3),
                "measured": round(float(slope), 3),
                "faults": {fault: values[name] for fault, values in faulty.items()},
            }


def of_shapes(case: Case, law: Any, n: int) -> Any:
    return eqx.filter_eval_shape(lambda key: parameterized(case, law, n, key), jax.random.key(0))


def worst(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each case and parameterization the largest differences, over all weights."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        off = abs(row["measured"] - row["law"])
        of_case = found.setdefault((row["case"], row["parameterization"]), {})
        of_case[row["quantity"]] = max(off, of_case.get(row["quantity"], 0.0))
    return [
        {"case": case, "parameterization": law}
        | {name: round(off.get(name, 0.0), 3) for name in QUANTITIES}
        for (case, law), off in found.items()
    ]


def outside(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that are not within their tolerance."""
    return [
        row
        for row in rows
        if abs(row["measured"] - row["law"]) > TOLERANCES.get(row["quantity"], float("inf"))
    ]


FAULTS: dict[str, Callable[[dict[Any, float]], dict[Any, float]]] = {
    **{f"{size} left out": lambda by_size, size=size: by_size | {size: 0.0} for size in SIZES},
    **{
        f"{size} counted twice": lambda by_size, size=size: by_size | {size: 2 * by_size[size]}
        for size in SIZES
    },
    **{
        f"{size} with the wrong sign": lambda by_size, size=size: by_size | {size: -by_size[size]}
        for size in SIZES
    },
    "fan-in and fan-out exchanged": lambda by_size: (
        by_size | {"fan_in": by_size["fan_out"], "fan_out": by_size["fan_in"]}
    ),
}


def planted(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each fault in a law: the exponents that it makes another, and how many are seen to be."""
    found = []
    for fault in FAULTS:
        seen = count = 0
        for row in rows:
            tolerance = TOLERANCES.get(row["quantity"])
            if tolerance is None or abs(row["faults"][fault] - row["law"]) <= 2 * tolerance:
                continue
            count += 1
            seen += abs(row["measured"] - row["faults"][fault]) > tolerance
        if count:
            found.append({"fault": fault, "exponents": count, "seen": seen})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/results/size_exponents.json"))
    arguments = parser.parse_args()
    rows = []
    for name, case in CASES.items():
        for law in PARAMETERIZATIONS:
            rows += [{"case": name} | row for row in exponents(case, law, arguments.seeds)]
        print(name, flush=True)
    wrong, faults = outside(rows), planted(rows)
    for row in wrong:
        print("outside:", {name: row[name] for name in COLUMNS})
    keys = ("case", "parameterization")
    tables = [
        Table("furthest from the law", keys, (*keys, *QUANTITIES), worst(rows)),
        Table("planted faults", ("fault",), ("fault", "exponents", "seen"), faults),
        Table("exponents", COLUMNS[:-2], COLUMNS, [{c: row[c] for c in COLUMNS} for row in rows]),
    ]
    print(tables[0].to_markdown(), tables[1].to_markdown(), sep="\n\n")
    print(f"{len(rows)} exponents, {len(wrong)} outside of their tolerance")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    command = f"python tests/scaling/size_exponents.py --seeds {arguments.seeds}"
    arguments.out.write_text(record(tables, command).to_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
