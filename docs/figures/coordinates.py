"""Draws docs/images/coordinate_passes.png and coordinate_rejected.png.

    python docs/figures/coordinates.py

The model is that of the page on diagnostics. It also prints the page's table of how the change of
the logits fades in training.
"""

import jax
import jax.numpy as jnp
import optax

import scalex_eqx as sx


def build(width, key):
    def make(width):
        keys = jax.random.split(key, 3)
        return {
            "in": sx.nn.Linear(8, width, key=keys[0]),
            "mid": sx.nn.Linear(width, width, key=keys[1]),
            "out": sx.nn.Readout(width, 4, key=keys[2]),
        }

    return sx.parameterize(make, width=width, base_width=32, parameterization=sx.standard)


def loss(model, x, y):
    x = jnp.tanh(jax.vmap(model["in"])(x))
    x = jnp.tanh(jax.vmap(model["mid"])(x))
    logits = jax.vmap(model["out"])(x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def batch(key):
    x = jax.random.normal(key, (64, 8))
    return x, jnp.argmax(x[:, :4], axis=-1)


def main():
    for name, tx in {
        "passes": sx.adam(0.01),
        "rejected": sx.adam(0.01, sx.global_rate),
    }.items():
        check = sx.diagnostics.coordinate_check(
            build, loss, tx, batch, widths=(32, 64, 128, 256, 512), seeds=range(4), steps=10
        )
        figure = sx.diagnostics.coordinate_figure(check)
        figure.savefig(f"docs/images/coordinate_{name}.png", dpi=110)
    for learning_rate in (0.01, 0.001):
        for steps in (1, 10, 100):
            check = sx.diagnostics.coordinate_check(
                build,
                loss,
                sx.adam(learning_rate),
                batch,
                widths=(64, 256),
                seeds=range(3),
                steps=steps,
            )
            row = {row.name: row for row in check.rows}["out/weight"]
            print(f"{learning_rate} {steps} {row.change} explained {row.change_explained:+.2f}")


if __name__ == "__main__":
    main()
