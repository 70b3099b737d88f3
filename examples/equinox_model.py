"""A model of equinox.nn that knows nothing of scaling laws, and the lines that give it one.

A convolutional network learns scikit-learn's digits. `train_plain` is the training as it was, with
Optax; `train_scaled` differs from it in the lines that are marked. With 16 channels both are
the same training, up to rounding. With 128 channels, which of them still suits the learning rate
that was the best one for 16?

    python examples/equinox_model.py

takes about half a minute on two cores.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import scalex_eqx as sx


def make(width):
    keys = jax.random.split(jax.random.key(0), 3)
    return eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(1, width, 3, padding=1, key=keys[0]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Conv2d(width, width, 3, stride=2, key=keys[1]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.AvgPool2d(3),
            eqx.nn.Lambda(jnp.ravel),
            eqx.nn.Linear(width, 10, key=keys[2]),
        ]
    )


def mean_loss(model, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(model)(x), y).mean()


def train_plain(width, learning_rate, data, steps):
    schedule = optax.linear_schedule(learning_rate, 0.0, steps)
    model = make(width)
    tx = optax.adam(schedule)
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model, state, x, y):
        gradient = eqx.filter_grad(mean_loss)(model, x, y)
        updates, state = tx.update(gradient, state)
        return eqx.apply_updates(model, updates), state

    for x, y in batches(data, steps):
        model, state = step(model, state, x, y)
    return test_loss(model, data)


# --8<-- [start:scaled]
def scaled_loss(model, x, y):
    return mean_loss(sx.resolve(model), x, y)  # new: resolve


def train_scaled(width, learning_rate, data, steps, base_width):
    schedule = optax.linear_schedule(learning_rate, 0.0, steps)
    model = sx.parameterize(  # was make(width)
        make, width=width, base_width=base_width, parameterization=sx.standard
    )
    tx = sx.adam(schedule, eps=1e-8)  # was optax.adam(schedule), whose eps is 1e-8
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model, state, x, y):
        gradient = eqx.filter_grad(scaled_loss)(model, x, y)  # was mean_loss
        updates, state = tx.update(gradient, state)
        return eqx.apply_updates(model, updates), state

    for x, y in batches(data, steps):
        model, state = step(model, state, x, y)
    return test_loss(sx.resolve(model), data)  # was model


# --8<-- [end:scaled]


def load():
    """Images and labels to train on, then those to test on."""
    images, labels = load_digits(return_X_y=True)
    images = ((images - images.mean()) / images.std()).astype(np.float32).reshape(-1, 1, 8, 8)
    train, test = np.split(np.random.default_rng(0).permutation(len(images)), [1347])
    labels = labels.astype(np.int32)
    return images[train], labels[train], images[test], labels[test]


def batches(data, steps):
    random = np.random.default_rng(0)
    for _ in range(steps):
        chosen = random.integers(0, len(data[0]), 64)
        yield data[0][chosen], data[1][chosen]


def test_loss(model, data):
    return float(eqx.filter_jit(mean_loss)(model, *data[2:]))


def main(*, base_width=16, width=128, learning_rates=(2**-6, 2**-5, 2**-4, 2**-3), steps=100):
    """The test losses by learning rate: of the narrow model, and of the wide one in both ways."""
    data = load()
    scaled = sx.parameterize(make, width=width, base_width=base_width, parameterization=sx.standard)
    print(sx.plan(scaled, sx.adam(learning_rates[0], eps=1e-8), base=make(base_width)))
    print(f"\ntest loss  {base_width} channels  {width}, Optax  {width}, per-layer rates")
    found = {}
    for rate in learning_rates:
        found[rate] = (
            train_plain(base_width, rate, data, steps),
            train_plain(width, rate, data, steps),
            train_scaled(width, rate, data, steps, base_width),
        )
        narrow, plain, scaled = found[rate]
        print(f"2^{np.log2(rate):<9g}{narrow:11.3f}  {plain:10.3f}  {scaled:20.3f}", flush=True)
    best = min(found, key=lambda rate: found[rate][0])
    same = train_scaled(base_width, best, data, steps, base_width)
    _, plain, scaled = found[best]
    least = [min(losses) for losses in zip(*found.values(), strict=True)]
    print(
        f"\n{base_width} channels train best at 2^{np.log2(best):g}; there the marked lines change "
        f"the loss by {abs(same - found[best][0]):.3f}.\nAt the same rate {width} channels reach "
        f"{plain:.3f} with Optax, {scaled:.3f} with per-layer rates;\nat the best rate of the "
        f"table {least[1]:.3f} and {least[2]:.3f}."
    )
    return {"losses": found, "same": same}


if __name__ == "__main__":
    main()
