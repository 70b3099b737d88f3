"""Is it enough to search for a unit-scaled model's learning rate alone?

    python tests/power/unit_search.py [--draws 120] [--steps 120] [--seeds 0]

Two blocks of width 64 on the text of the Python library, Adam, held-out losses; seeds are initial
draws and data. Nine learning rates with all multipliers one; then each multiplier by itself at the
best of them, and the best of each together, as the paper searches; against random draws out of the
joint grid of rate and multipliers, whose expected best of n is over all orders of the draws.

All runs are one program: the model is written out with its hyperparameters as arrays, and compared
with `nn.unit` before anything is trained. Its gradients are those of the layers up to a constant
for each weight, which Adam doesn't see. Writes the table and the picture that the docs show.
"""

import argparse
import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import scalex_eqx as sx
from scalex_eqx.diagnostics import Table, record
from scalex_eqx.nn.unit import Multipliers
from scalex_eqx.problems._corpus import load_corpus
from scalex_eqx.problems._text import text

WIDTH, DEPTH, D, LENGTH, AT_ONCE = 64, 2, 16, 64, 12
RATES = tuple(2.0**i for i in range(-4, 5))
VALUES = (0.25, 0.5, 1.0, 2.0, 4.0)
NAMES = tuple(field.name for field in dataclasses.fields(Multipliers))


def written_out(weights: Any, tokens: Any, mults: Any) -> Any:
    """The mean cross-entropy of the unit-scaled Transformer, every factor by its formula."""
    activation, attention, residual, ratio, of_loss = mults

    def w(name: str, i: int | None = None) -> Any:
        value = weights[f"{name}/weight"].value
        return value if i is None else value[i]

    def norm(x: Any) -> Any:
        return x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6)

    def attended(x: Any, i: int) -> Any:
        q, k, v = (
            (x @ w(f"blocks/attention/{name}", i).T * WIDTH**-0.5).reshape(*x.shape[:-1], -1, D)
            for name in ("query", "key", "value")
        )
        logits = attention / D * jnp.einsum("bqhd,bkhd->bhqk", turned(q), turned(k))
        seen = np.tril(np.ones(logits.shape[-2:], bool))
        weights = jax.nn.softmax(jnp.where(seen, logits, -1e30))
        flat = math.log(LENGTH) / LENGTH
        factor = flat ** (-(1 - 1 / (1 + 4 * D / attention**2)) / 2)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights * factor, v).reshape(x.shape)
        return mixed @ w("blocks/attention/output", i).T * WIDTH**-0.5

    def gated(x: Any, i: int) -> Any:
        up, gate = (x @ w(f"blocks/mlp/{name}", i).T * WIDTH**-0.5 for name in ("up", "gate"))
        share = 1 / (1 + 1 / activation**2)
        inner = 2 ** (1 - share / 2) * up * gate * jax.nn.sigmoid(activation * gate)
        return inner @ w("blocks/mlp/down", i).T * (4 * WIDTH) ** -0.5

    x, square = w("token_embedding")[tokens[:, :-1]], float(DEPTH)
    of_mlp = residual * jnp.sqrt(2 / (1 + ratio**2))
    for i in range(DEPTH):
        for branch, part in ((attended, ratio * of_mlp), (gated, of_mlp)):
            tau = part / jnp.sqrt(square)
            x = (tau * branch(norm(x), i) + x) / jnp.sqrt(1 + tau**2)
            square = square + part**2
    logits = of_loss * (norm(x) @ w("readout").T / WIDTH)
    own = jnp.take_along_axis(logits, tokens[:, 1:, None], -1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(logits, -1) - own)


def turned(x: Any) -> Any:
    """Rotary positions."""
    a, b = x[..., : D // 2], x[..., D // 2 :]
    angle = np.arange(LENGTH)[:, None] * 1e4 ** (-np.arange(0, D, 2) / D)
    cos, sin = (f(angle).astype(np.float32)[:, None, :] for f in (np.cos, np.sin))
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1)


def model(key: Any, multipliers: Multipliers | None = None) -> Any:
    def make(width: int) -> Any:
        return sx.nn.unit.Transformer(
            vocabulary_size=256,
            width=width,
            depth=DEPTH,
            head_dimension=D,
            multipliers=multipliers,
            key=key,
        )

    return sx.parameterize(make, width=WIDTH, parameterization=sx.u_mup)


def check(windows: Any) -> None:
    """The model written out is that of the layers, at other hyperparameters than one too."""
    for multipliers in (Multipliers(), Multipliers(0.5, 4.0, 0.7, 1.5, 2.0)):
        own = model(jax.random.key(1), multipliers)
        expected = own.loss(windows[:, :-1], windows[:, 1:], mapped=1)
        mults = jnp.array(dataclasses.astuple(multipliers))
        found = written_out(sx.weights_with_paths(own), windows, mults)
        # A mean of some hundred numbers near 5, each with a few roundings of 2^-24.
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def trainer(steps: int) -> Any:
    """Held-out losses of as many runs as there are rates, by one program."""
    task = text(load_corpus(None), unit=True, sequence_length=LENGTH, held_out_windows=64)
    data, held_out = jax.tree.map(jnp.asarray, (task.data, task.held_out))
    check(held_out[:4])

    def run(rate: Any, mults: Any, key: Any) -> Any:
        def learning_rate(count: Any) -> Any:
            time = (count + 1) / steps
            return rate * jnp.minimum(time * 10, 0.5 * (1 + jnp.cos(jnp.pi * time)))

        tx: Any = sx.adam(learning_rate, b2=0.95)
        weights = sx.weights_with_paths(model(key))

        def step(carry: Any, index: Any) -> Any:
            weights, state = carry
            batch = task.drawn(data, jax.random.fold_in(key, index))
            gradient = jax.grad(written_out)(weights, batch, mults)
            updates, state = tx.update(gradient, state, weights)
            return (jax.tree.map(jnp.add, weights, updates), state), None

        (weights, _), _ = jax.lax.scan(step, (weights, tx.init(weights)), jnp.arange(steps))
        return written_out(weights, held_out, mults)

    return jax.jit(jax.vmap(run, in_axes=(0, 0, None)))


def expected_best(losses: np.ndarray) -> np.ndarray:
    """The mean over all orders of the best of the first n, for n from 1 to all."""
    ordered, count = np.sort(losses), len(losses)
    found = []
    for n in range(1, count + 1):
        # The i-th best is the best of n others if the rest of them are among the worse.
        shares = [math.comb(count - 1 - i, n - 1) / math.comb(count, n) for i in range(count)]
        found.append(float(np.dot(shares, ordered)))
    return np.array(found)


class Runs:
    """Everything that was trained, with what it is a part of."""

    def __init__(self, train: Any, seeds: list[int]):
        self._train, self._seeds = train, seeds
        self.rows: list[dict[str, Any]] = []

    def add(self, part: str, points: list[tuple[float, ...]]) -> np.ndarray:
        """The losses at points (rate, multipliers), a row a seed."""
        losses = []
        for seed in self._seeds:
            found: list[float] = []
            for start in range(0, len(points), AT_ONCE):
                some = points[start : start + AT_ONCE]
                # Always as many, so that there is one program.
                padded = np.array(some + [some[0]] * (AT_ONCE - len(some)), np.float32)
                got = self._train(padded[:, 0], padded[:, 1:], jax.random.key(seed))
                found += np.asarray(got, float)[: len(some)].tolist()
            losses.append(found)
            for number, (point, loss) in enumerate(zip(points, found, strict=True)):
                settings = dict(zip(("rate", *NAMES), map(float, point), strict=True))
                row = {"part": part, "number": number, "seed": seed, **settings, "loss": loss}
                self.rows.append(row)
        print(part, np.round(np.mean(losses, axis=0), 4).tolist(), flush=True)
        return np.nan_to_num(np.array(losses), nan=np.inf)


def independent(runs: Runs) -> list[tuple[int, np.ndarray]]:
    """How many runs there were, and the best loss of each seed; by the mean over seeds."""
    ones = (1.0,) * len(NAMES)
    losses = runs.add("rate", [(rate, *ones) for rate in RATES])
    best = int(np.argmin(losses.mean(0)))
    rate, course = RATES[best], [(len(RATES), losses[:, best])]
    chosen = dict.fromkeys(NAMES, 1.0)
    for name in NAMES:
        others = [value for value in VALUES if value != 1]
        points = [(rate, *(value if one == name else 1.0 for one in NAMES)) for value in others]
        found = runs.add(name, points).mean(0)
        if found.min() < course[0][1].mean():
            chosen[name] = others[int(np.argmin(found))]
        least = min(found.min(), course[-1][1].mean())
        course.append((course[-1][0] + len(others), np.array([least])))
    # Together they may want another rate.
    rates = [rate / 2, rate, rate * 2]
    together = runs.add("together", [(one, *chosen.values()) for one in rates])
    found = together[:, int(np.argmin(together.mean(0)))]
    course.append((course[-1][0] + len(rates), found))
    print("chosen", rate, chosen, flush=True)
    return course


def draw(course: Any, expected: np.ndarray, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(np.arange(1, len(expected) + 1), expected, color="C1", label="random, all at once")
    counts, losses = [n for n, _ in course], [np.mean(x) for _, x in course]
    axes.plot(counts, losses, "o-", color="C0", label="rate, then one at a time")
    axes.plot(counts[:1], losses[:1], "s", color="C0", ms=8, label="rate alone")
    axes.set(xlabel="runs", ylabel="best held-out loss (nats)", xscale="log")
    axes.set_xlim(4, 1.1 * len(expected))
    axes.set_ylim(min(*losses, expected[-1]) - 0.03, max(losses) + 0.05)
    axes.set_xticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
    axes.minorticks_off()
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--draws", type=int, default=120)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/unit_search.json"))
    parser.add_argument("--picture", type=Path, default=Path("docs/images/unit_search.png"))
    arguments = parser.parse_args()
    began = time.process_time()
    runs = Runs(trainer(arguments.steps), arguments.seeds)
    course = independent(runs)
    rng = np.random.default_rng(0)
    points = [
        (float(rng.choice(RATES)), *(float(rng.choice(VALUES)) for _ in NAMES))
        for _ in range(arguments.draws)
    ]
    expected = expected_best(runs.add("random", points).mean(0))
    summary = [
        {"search": "one at a time", "runs": n, "best loss": float(np.mean(x))} for n, x in course
    ]
    summary += [
        {"search": "random", "runs": n, "best loss": float(expected[n - 1])}
        for n in sorted({*(min(n, len(points)) for n, _ in course), len(points)})
    ]
    best = Table("best loss by runs", ("search", "runs"), tuple(summary[0]), summary)
    every = Table("runs", ("part", "number", "seed"), tuple(runs.rows[0]), runs.rows)
    print(best.to_markdown(), f"{time.process_time() - began:.0f} s of processor time")
    results = record([best, every], "python tests/power/unit_search.py")
    arguments.out.write_text(results.to_json(), encoding="utf-8")
    draw(course, expected, arguments.picture)


if __name__ == "__main__":
    main()
