"""A learning rate that is tuned on a narrow network and used on one sixteen times as wide.

An MLP learns scikit-learn's digits at three widths and eight learning rates, with one learning
rate for all weights and with a learning rate for each layer. Where is the best learning rate at
each width, and what does the widest network pay for using the narrowest one's?

    python examples/digits.py

takes about a minute on two cores and draws `runs/digits.png`.
"""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

import scalex_eqx as sx

RECIPES = {
    "one learning rate for all": sx.global_rate,
    "per-layer rates, full alignment": sx.full_alignment,
}


class Classifier(eqx.Module):
    first: sx.nn.Linear
    second: sx.nn.Linear
    readout: sx.nn.Readout

    def __init__(self, width, *, key):
        keys = jax.random.split(key, 3)
        self.first = sx.nn.Linear(64, width, key=keys[0])
        self.second = sx.nn.Linear(width, width, key=keys[1])
        self.readout = sx.nn.Readout(width, 10, key=keys[2])

    def __call__(self, x):
        return self.readout(jax.nn.relu(self.second(jax.nn.relu(self.first(x)))))


def load():
    """Images and labels to train on, then those to test on."""
    images, labels = load_digits(return_X_y=True)
    images = ((images - images.mean()) / images.std()).astype(np.float32)
    train, test = np.split(np.random.default_rng(0).permutation(len(images)), [1347])
    labels = labels.astype(np.int32)
    return images[train], labels[train], images[test], labels[test]


def mean_loss(model, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(model)(x), y).mean()


def train(learning_rate, seed, data, *, width, base_width, rates, steps, batch_size=64):
    """Test loss and accuracy of one training."""
    x, y, test_x, test_y = data
    model_key, batch_key = jax.random.split(jax.random.key(seed))
    # --8<-- [start:law]
    model = sx.parameterize(
        lambda width: Classifier(width, key=model_key),
        width=width,
        base_width=base_width,
        parameterization=sx.standard,
    )
    tx = sx.adam(optax.linear_schedule(learning_rate, 0.0, steps), rates)
    # --8<-- [end:law]

    def step(carry, key):
        model, state = carry
        batch = jax.random.randint(key, (batch_size,), 0, len(x))
        gradient = eqx.filter_grad(mean_loss)(model, x[batch], y[batch])
        updates, state = tx.update(gradient, state, model)
        return (eqx.apply_updates(model, updates), state), None

    keys = jax.random.split(batch_key, steps)
    (model, _), _ = jax.lax.scan(step, (model, tx.init(model)), keys)
    accuracy = jnp.mean(jax.vmap(model)(test_x).argmax(-1) == test_y)
    return mean_loss(model, test_x, test_y), accuracy


def sweep(data, learning_rates, seeds, **fixed):
    """Test losses and accuracies by learning rate and seed: all trainings as one program."""

    @jax.jit
    def run(learning_rates, seeds, data):
        by_seed = jax.vmap(lambda rate, seed: train(rate, seed, data, **fixed), (None, 0))
        return jax.vmap(by_seed, (0, None))(learning_rates, seeds)

    return run(jnp.array(learning_rates, jnp.float32), jnp.arange(seeds), data)


def describe(name, losses, accuracies, widths, learning_rates):
    """Prints the table of a recipe, and what the widest network pays for reuse."""
    best = losses.mean(-1).argmin(-1)
    print(f"\n{name}: test loss and accuracy, * the best of its width")
    print("learning rate" + "".join(f"{f'width {width}':>18}" for width in widths))
    for i, rate in enumerate(learning_rates):
        row = f"2^{np.log2(rate):<11g}"
        for w in range(len(widths)):
            cell = f"{losses[w, i].mean():.3f} {accuracies[w, i].mean():.1%}"
            row += f"{cell:>17}" + ("*" if i == best[w] else " ")
        print(row.rstrip())
    reused, tuned = losses[-1, best[0]], losses[-1, best[-1]]
    error = (reused - tuned).std(ddof=1) / np.sqrt(reused.size)
    print(
        f"Width {widths[-1]} at the best learning rate of width {widths[0]}: "
        f"{reused.mean():.4f}, at its own: {tuned.mean():.4f}.\n"
        f"Reuse costs {(reused - tuned).mean():.4f} ± {error:.4f} nats."
    )


def draw(found, widths, learning_rates, path):
    figure, panels = plt.subplots(1, len(found), sharey=True, figsize=(9, 4), squeeze=False)
    for panel, (name, (losses, _)) in zip(panels[0], found.items(), strict=True):
        for width, loss in zip(widths, losses.mean(-1), strict=True):
            (line,) = panel.plot(learning_rates, loss, label=f"width {width}")
            panel.plot(learning_rates[loss.argmin()], loss.min(), "o", color=line.get_color())
        panel.set(title=name, xlabel="learning rate", yscale="log")
        panel.set_xscale("log", base=2)
    panels[0, 0].set_ylabel("test loss (nats)")
    panels[0, 0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)


def main(
    *,
    widths=(32, 128, 512),
    learning_rates=tuple(2.0**k for k in range(-10, -2)),
    seeds=4,
    steps=60,
    picture="runs/digits.png",
):
    """Test losses and accuracies of each recipe, by width, learning rate and seed."""
    data = tuple(map(jnp.asarray, load()))

    def swept(width, name):
        print(f"width {width}, {name}: {len(learning_rates) * seeds} trainings ...", flush=True)
        setting = {"width": width, "base_width": widths[0], "rates": RECIPES[name], "steps": steps}
        return sweep(data, learning_rates, seeds, **setting)

    # At the base width all recipes are the same training.
    base = swept(widths[0], next(iter(RECIPES)))
    found = {}
    for name in RECIPES:
        cells = [base, *(swept(width, name) for width in widths[1:])]
        found[name] = tuple(np.stack(part) for part in zip(*cells, strict=True))
    for name, (losses, accuracies) in found.items():
        describe(name, losses, accuracies, widths, learning_rates)
    draw(found, widths, learning_rates, Path(picture))
    print(f"\ndrawn: {picture}")
    return found


if __name__ == "__main__":
    main()
