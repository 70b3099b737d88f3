"""Scaling laws for a Flax module, whose parameters are a dictionary.

An attention classifier of flax.linen reads scikit-learn's digits as eight rows of eight pixels.
Its layers are told by their names and shapes; `layouts` names the axes of the one array that is no
layer's. In the loss, `resolve` turns the weights back into the arrays that `module.apply` wants.
The learning rate of width 32 is then used at width 256, in muP and with one learning rate.

    python examples/flax_parameters.py

takes about half a minute on two cores.
"""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import scalex_eqx as sx

ROWS = 8


class Classifier(nn.Module):
    width: int

    @nn.compact
    def __call__(self, rows):
        x = nn.Dense(self.width, name="pixels")(rows)
        x = x + self.param("positions", nn.initializers.normal(0.5), (ROWS, self.width))
        attention = nn.MultiHeadDotProductAttention(num_heads=self.width // 16, name="attention")
        x = x + attention(nn.LayerNorm(name="attention_norm")(x))
        x = nn.relu(nn.LayerNorm(name="norm")(x))
        return nn.Dense(10, name="readout")(x.mean(-2))


# --8<-- [start:law]
LAYOUTS = {"*/positions": ("in", "out")}  # as an embedding's


def make(width):
    return Classifier(width).init(jax.random.key(0), jnp.zeros((ROWS, 8)))


def build(width, base_width, parameterization):
    return sx.parameterize(
        make,
        width=width,
        base_width=base_width,
        parameterization=parameterization,
        layouts=LAYOUTS,
    )


def mean_loss(parameters, module, x, y):
    logits = jnp.asarray(module.apply(sx.resolve(parameters), x))
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


# --8<-- [end:law]


def train(parameters, module, tx, data, steps):
    """The loss on the test images after training."""

    @eqx.filter_jit
    def step(parameters, state, x, y):
        gradient = eqx.filter_grad(mean_loss)(parameters, module, x, y)
        updates, state = tx.update(gradient, state, parameters)
        return eqx.apply_updates(parameters, updates), state

    x, y, test_x, test_y = data
    state = tx.init(parameters)
    random = np.random.default_rng(0)
    for _ in range(steps):
        batch = random.integers(0, len(x), 64)
        parameters, state = step(parameters, state, x[batch], y[batch])
    return float(eqx.filter_jit(mean_loss)(parameters, module, test_x, test_y))


def load():
    """Images and labels to train on, then those to test on."""
    images, labels = load_digits(return_X_y=True)
    images = ((images - images.mean()) / images.std()).astype(np.float32).reshape(-1, ROWS, 8)
    train, test = np.split(np.random.default_rng(0).permutation(len(images)), [1347])
    labels = labels.astype(np.int32)
    return images[train], labels[train], images[test], labels[test]


def main(*, base_width=32, width=256, learning_rates=(2**-7, 2**-6, 2**-5, 2**-4), steps=100):
    """The test losses: of the narrow model by learning rate, and of the wide one in both ways."""
    data = load()
    mup = build(width, base_width, sx.mup)
    print(sx.plan(mup, sx.adam(learning_rates[0])))

    def trained(parameters, width, rates, learning_rate):
        tx = sx.adam(optax.linear_schedule(learning_rate, 0.0, steps), rates)
        return train(parameters, Classifier(width), tx, data, steps)

    print(f"\nwidth {base_width}: test loss by learning rate")
    base = build(base_width, base_width, sx.mup)
    narrow = {}
    for rate in learning_rates:
        narrow[rate] = trained(base, base_width, sx.full_alignment, rate)
        print(f"  2^{np.log2(rate):<4g}{narrow[rate]:.3f}", flush=True)
    best = min(narrow, key=narrow.__getitem__)

    print(f"width {width}: test loss at the best of them, 2^{np.log2(best):g}")
    standard = build(width, base_width, sx.standard)
    wide = {
        "standard, one learning rate": trained(standard, width, sx.global_rate, best),
        "muP, per-layer rates": trained(mup, width, sx.full_alignment, best),
    }
    for name, loss in wide.items():
        print(f"  {name:28} {loss:.3f}")
    plain, scaled = (narrow[best] - loss for loss in wide.values())
    print(
        f"From width {base_width} to {width} the loss falls by {plain:.3f} with one learning "
        f"rate,\nand by {scaled:.3f} in muP."
    )
    return {"narrow": narrow, "wide": wide}


if __name__ == "__main__":
    main()
