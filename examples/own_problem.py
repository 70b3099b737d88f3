"""A model and data of your own in twenty lines, and whether its learning rate transfers.

An MLP of `equinox.nn` learns a made-up function. The problem at the top is all that a sweep needs.
The commands take this file too: scalex check mup:adam:full --problem FILE.py:problem, and others.

    python examples/own_problem.py

takes about a minute on two cores.
"""

# --8<-- [start:problem]
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from scalex_eqx.experiments import sweep
from scalex_eqx.problems import Problem

random = np.random.default_rng(0)
x = random.standard_normal((4096, 16)).astype(np.float32)
y = np.sin(x @ random.standard_normal((16, 4)) / 2).astype(np.float32)


def make(width, key):
    return eqx.nn.MLP(16, 4, width, depth=2, key=key)


def loss(model, batch):
    x, y = batch
    return jnp.mean((jax.vmap(model)(x) - y) ** 2)


train, test = slice(0, 3584), slice(3584, None)
problem = Problem(
    make, loss, data=(x[train], y[train]), held_out=(x[test], y[test]), batch_size=64, name="waves"
)
# --8<-- [end:problem]


def main(
    *,
    widths=(32, 64, 128),
    learning_rates=tuple(2.0**k for k in range(-9, -1)),
    seeds=(0, 1, 2),
    steps=200,
    folder="runs/own_problem",
):
    """The analyses of two recipes."""
    # --8<-- [start:sweep]
    return sweep(
        problem,
        ["standard:adam:global", "standard:adam:full"],
        widths=widths,
        learning_rates=learning_rates,
        seeds=seeds,
        steps=steps,
        folder=folder,
    )
    # --8<-- [end:sweep]


if __name__ == "__main__":
    main()
