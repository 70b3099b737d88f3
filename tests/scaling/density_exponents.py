"""What one masked layer does as it gets sparser, with the law of the density and without.

    python tests/scaling/density_exponents.py [--out docs/results/density_exponents.json]

A fixed input, a masked matrix of width 1024 (base width 128) and a fixed readout, at densities 1,
1/2 to 1/64 with five seeds: the size of what comes out at first, and what one step of Adam changes
of it, under muP; the negative control keeps the largest entries instead of random ones, which are
larger than the law says. Then the same of width 512 (base width 64) at densities 1, 1/4 and 1/16
for other parameterizations and rules. Numbers are exponents p of sizes that go as density^p, so
that 0 is what transfers. Writes the tables that the docs show.
"""

import argparse
from fractions import Fraction
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import scalex_eqx as sx
from scalex_eqx.diagnostics import Table, record
from scalex_eqx.diagnostics._exponent import fit_exponent
from scalex_eqx.optim._catalogue import catalogue

WIDTH, BASE, DENSITIES, SEEDS = 1024, 128, tuple(Fraction(1, 2**i) for i in range(7)), range(5)
OTHERS: Any = {"width": 512, "base": 64, "densities": (1, Fraction(1, 4), Fraction(1, 16))}
LAWS = {law.name: law for law in (sx.standard, sx.ntk, sx.mup, sx.mean_field)}
RULES = ("adam", "sgd", "adafactor", "muon")
CORRECTIONS = ("none", "spread alone", "rate alone", "spread and rate")
# The law of random masks, for masks that keep the largest entries.
LARGEST = "largest entries kept"
# Adafactor's statistics count what is kept, and its RMS(w) everything.
MIXED = "counted twice over"
INPUTS, OUTPUTS, EXAMPLES = 32, 8, 32


class Layer(eqx.Module):
    """Everything but the hidden weight is frozen."""

    embedding: sx.nn.Linear
    hidden: sx.nn.Linear
    readout: sx.nn.Readout

    def __init__(self, width: int, key: Any):
        keys = jax.random.split(key, 3)
        self.embedding = sx.nn.Linear(INPUTS, width, use_bias=False, key=keys[0])
        self.hidden = sx.nn.Linear(width, width, use_bias=False, key=keys[1])
        self.readout = sx.nn.Readout(width, OUTPUTS, use_bias=False, key=keys[2])

    def features(self, x: Any) -> Any:
        return self.hidden(jax.nn.relu(self.embedding(x)))

    def __call__(self, x: Any) -> Any:
        return self.readout(jax.nn.relu(self.features(x)))


def build(law: Any, width: int, base: int, density: Fraction, correction: str, key: Any) -> Any:
    model = sx.parameterize(
        lambda width: Layer(width, key),
        width=width,
        base_width=base,
        parameterization=law,
        frozen=["embedding/*", "readout/*"],
    )
    if correction == LARGEST:
        return sx.with_masks(model, sx.magnitude_masks(model, float(density)))
    has_law = correction not in ("none", "rate alone")
    model = sx.sparsify(
        model, density, key=jax.random.fold_in(key, 1), base_density=1 if has_law else None
    )
    if correction != "spread alone":
        return model
    # The spread of the law, under the spec of the one that leaves the density out.
    dense = sx.sparsify(
        sx.parameterize(
            lambda width: Layer(width, key),
            width=width,
            base_width=base,
            parameterization=law,
            frozen=["embedding/*", "readout/*"],
        ),
        density,
        key=jax.random.fold_in(key, 1),
        base_density=None,
    )
    return eqx.tree_at(lambda m: m.hidden.weight.value, dense, model.hidden.weight.value)


def rule(name: str, correction: str, density: Fraction) -> Any:
    # What a root mean square over all entries is short of that over those that are kept.
    powers = {"rate alone": -1.0, MIXED: 0.5}
    gamma = {"hidden": float(density) ** powers.get(correction, 0.0)}
    entry = catalogue[name]
    return entry.optimizer(1e-3, sx.full_alignment, role_multipliers=gamma, **entry.presets)


def measured(
    law: Any, name: str, correction: str, density: Fraction, width: int, base: int, seeds: Any
) -> tuple[list[float], list[float]]:
    """By seed the size of what comes out of the layer at first, and of its change in a step."""
    tx = rule(name, correction, density)

    @eqx.filter_jit
    def one(model: Any, key: Any) -> Any:
        x, y = (
            jax.random.normal(jax.random.fold_in(key, i), (EXAMPLES, n))
            for i, n in ((2, INPUTS), (3, OUTPUTS))
        )

        def loss(model: Any) -> Any:
            return jnp.mean(jnp.square(jax.vmap(model)(x) - y))

        params = eqx.filter(model, eqx.is_inexact_array)
        update, _ = tx.update(eqx.filter_grad(loss)(model), tx.init(params), params)
        before, after = (jax.vmap(m.features)(x) for m in (model, eqx.apply_updates(model, update)))
        return jnp.mean(jnp.abs(before)), jnp.mean(jnp.abs(after - before))

    keys = [jax.random.key(seed) for seed in seeds]
    found = [one(build(law, width, base, density, correction, key), key) for key in keys]
    return [float(y) for y, _ in found], [float(dy) for _, dy in found]


def exponents(
    law: Any,
    name: str,
    correction: str,
    *,
    densities: Any = DENSITIES,
    width: int = WIDTH,
    base: int = BASE,
    seeds: Any = SEEDS,
) -> tuple[Any, Any]:
    """Those of the size and of the change."""
    found = [measured(law, name, correction, d, width, base, seeds) for d in densities]
    numbers = [float(density) for density in densities]
    return tuple(fit_exponent(numbers, [row[i] for row in found]) for i in range(2))  # pyright: ignore


def row(law: str, name: str, correction: str, **sizes: Any) -> dict[str, Any]:
    size, change = exponents(LAWS[law], name, correction, **sizes)
    found = {"parameterization": law, "rule": name, "corrected": correction}
    for what, exponent in (("size", size), ("change", change)):
        found |= {what: exponent.value, f"{what} low": exponent.interval[0]}
        found |= {f"{what} high": exponent.interval[1]}
    print(found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/density_exponents.json"))
    arguments = parser.parse_args()
    rows = [row("mup", "adam", correction) for correction in (*CORRECTIONS, LARGEST)]
    rows.append(row("mup", "adafactor", MIXED, **OTHERS))
    rows += [
        row(law, name, "spread and rate", **OTHERS)
        for law in LAWS
        for name in RULES
        if (law, name) != ("mup", "adam")
    ]
    keys = ("parameterization", "rule", "corrected")
    table = Table("exponents of the density", keys, tuple(rows[0]), rows)
    print(table.to_markdown())
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    command = "python tests/scaling/density_exponents.py"
    arguments.out.write_text(record([table], command).to_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
