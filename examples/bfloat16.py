"""What rounding takes from weights in bfloat16, and how to get it back.

An MLP learns scikit-learn's digits with weights in float32 and in bfloat16, at the same learning
rates. A step that is smaller than half the distance between two neighbouring bfloat16 numbers is
lost when it is added to a weight; `scalex_eqx.optim.low_precision` keeps it. Every training is
done twice, the second time with the loss scaled by 2^-40: Adam's epsilon feels that, and
Adam-atan2 has none.

    python examples/bfloat16.py

takes about twenty seconds on two cores.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import scalex_eqx as sx

# --8<-- [start:rules]
RULES = {
    "Adam, float32": (jnp.float32, sx.adam),
    "Adam, bfloat16": (jnp.bfloat16, sx.adam),
    "Adam-atan2, float32": (jnp.float32, sx.adam_atan2),
    "Adam-atan2, bfloat16": (jnp.bfloat16, sx.adam_atan2),
    "Adam-atan2, bfloat16, Kahan": (
        jnp.bfloat16,
        lambda rate: sx.optim.low_precision(sx.adam_atan2(rate), "kahan"),
    ),
    "Adam-atan2, bfloat16, master copy": (
        jnp.bfloat16,
        lambda rate: sx.optim.low_precision(sx.adam_atan2(rate), "master"),
    ),
}
# --8<-- [end:rules]


def mean_loss(model, x, y):
    x = x.astype(model.up.weight.value.dtype)
    logits = jax.vmap(model)(x).astype(jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def train(learning_rate, loss_scale, data, *, dtype, rule, width, base_width, steps):
    """The mean loss on all images after training."""
    x, y = data
    model = sx.parameterize(
        lambda width: sx.nn.MLP(64, width, 10, key=jax.random.key(0)),
        width=width,
        base_width=base_width,
        parameterization=sx.standard,
    )
    model = jax.tree.map(lambda array: array.astype(dtype), model)
    tx = rule(learning_rate)

    def step(carry, key):
        model, state = carry
        batch = jax.random.randint(key, (64,), 0, len(x))
        gradient = eqx.filter_grad(lambda m: loss_scale * mean_loss(m, x[batch], y[batch]))(model)
        updates, state = tx.update(gradient, state, model)
        return (eqx.apply_updates(model, updates), state), None

    keys = jax.random.split(jax.random.key(1), steps)
    (trained, _), _ = jax.lax.scan(step, (model, tx.init(model)), keys)
    return mean_loss(trained, x, y)


def load():
    images, labels = load_digits(return_X_y=True)
    images = ((images - images.mean()) / images.std()).astype(np.float32)
    return jnp.asarray(images), jnp.asarray(labels.astype(np.int32))


def main(*, width=128, base_width=32, learning_rates=(2**-8, 2**-10, 2**-12), steps=600):
    """The final training losses of each rule by learning rate, plain and with the loss scaled."""
    data = load()
    rates = [f"2^{np.log2(rate):g}" for rate in learning_rates]
    span = 8 * len(rates)
    print(f"{'training loss at':34}{'plain loss':>{span}}{'loss x 2^-40':>{span}}")
    print(f"{'the learning rate':34}" + "".join(f"{rate:>8}" for rate in rates * 2))
    found = {}
    for name, (dtype, rule) in RULES.items():
        setting = {"dtype": dtype, "rule": rule, "width": width, "base_width": base_width}
        run = jax.jit(functools.partial(train, **setting, steps=steps))
        found[name] = np.array(
            [
                [run(jnp.float32(rate), jnp.float32(scale), data) for rate in learning_rates]
                for scale in (1, 2**-40)
            ]
        )
        print(f"{name:34}" + "".join(f"{loss:8.4f}" for loss in found[name].ravel()), flush=True)

    last = {name: losses[0, -1] for name, losses in found.items()}
    exact = last["Adam-atan2, float32"]
    print(
        f"\nThe loss of Adam-atan2 at {rates[-1]}, in units of that of float32:\n"
        f"{last['Adam-atan2, bfloat16'] / exact:.2f} in bfloat16, "
        f"{last['Adam-atan2, bfloat16, Kahan'] / exact:.2f} with Kahan compensation, "
        f"{last['Adam-atan2, bfloat16, master copy'] / exact:.2f} with a master copy.\n"
        "Equal to the last bit with the loss scaled:"
    )
    for name, (plain, scaled) in found.items():
        print(f"  {name:34}{'yes' if np.array_equal(plain, scaled) else 'no'}")
    return found


if __name__ == "__main__":
    main()
