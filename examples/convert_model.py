"""A model that changes its parameterization in mid-training, and goes on as if nothing happened.

An MLP of equinox.nn learns scikit-learn's digits in the standard parameterization. Half-way,
`scalex_eqx.convert` takes model and optimizer state to the NTK parameterization, in which weights,
gradients and learning rates have other sizes. Both go on, and their losses agree to rounding.
The control goes on from the same place with an epsilon that does not follow the law: `convert`
refuses such an optimizer, and the losses show why.

    python examples/convert_model.py

takes about ten seconds on two cores. It computes in float64, so that rounding is easily told from
anything else.
"""

import equinox as eqx
import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

import scalex_eqx as sx


def make(width):
    return eqx.nn.MLP(64, 10, width, depth=2, key=jax.random.key(0))


def mean_loss(model, x, y):
    logits = jax.vmap(sx.resolve(model))(x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def step_of(tx):
    @eqx.filter_jit
    def step(model, state, x, y):
        loss, gradient = eqx.filter_value_and_grad(mean_loss)(model, x, y)
        updates, state = tx.update(gradient, state, model)
        return eqx.apply_updates(model, updates), state, loss

    return step


def train(model, state, step, batches):
    """Model and state after a step on each batch, and the losses on the way."""
    losses = []
    for x, y in batches:
        model, state, loss = step(model, state, x, y)
        losses.append(float(loss))
    return model, state, np.array(losses)


def load(steps):
    """A batch a step, in float64."""
    images, labels = load_digits(return_X_y=True)
    images = (images - images.mean()) / images.std()
    chosen = np.random.default_rng(0).integers(0, len(images), (steps, 64))
    return [(images[batch], labels[batch].astype(np.int32)) for batch in chosen]


def refusal(model, tx):
    """What `convert` says of an optimizer whose step is another one in other units."""
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))
    try:
        sx.convert(model, state, to=sx.ntk, tx=tx)
    except ValueError as error:
        return str(error)
    return None


def main(*, width=256, base_width=32, learning_rate=2**-7, eps=1e-8, steps=100):
    """The losses after the conversion, and the largest differences, with each kind of epsilon."""
    with jax.enable_x64(True):
        batches = load(steps)
        first, second = batches[: steps // 2], batches[steps // 2 :]
        # --8<-- [start:convert]
        tx = sx.adam(learning_rate, eps=eps)
        step = step_of(tx)
        model = sx.parameterize(
            make, width=width, base_width=base_width, parameterization=sx.standard
        )
        state = tx.init(eqx.filter(model, eqx.is_inexact_array))
        model, state, _ = train(model, state, step, first)
        ntk_model, ntk_state = sx.convert(model, state, to=sx.ntk, tx=tx)
        # --8<-- [end:convert]

        print("what conversion changed in the hidden matrix")
        for name, tree in (("standard", model), ("NTK", ntk_model)):
            weight = sx.weights_with_paths(tree)["layers/1/weight"]
            print(
                f"  {name:9} entries of size {weight.value.std():.4f}, multiplier "
                f"{weight.spec.multiplier:.4f}: effective {sx.effective(weight).std():.4f}"
            )

        found = {}
        constant = sx.adam(learning_rate, eps=eps, eps_scaling="constant")
        steps_by = {"eps follows the law": step, "eps is constant": step_of(constant)}
        for name, after in steps_by.items():
            *_, losses = train(model, state, after, second)
            *_, ntk_losses = train(ntk_model, ntk_state, after, second)
            difference = float(abs(losses - ntk_losses).max())
            found[name] = {"standard": losses, "ntk": ntk_losses, "difference": difference}
            print(f"\n{name}\n  step  standard             NTK                  difference")
            for i in (0, len(second) // 2, len(second) - 1):
                print(
                    f"{steps // 2 + i + 1:6}  {losses[i]:.15f}  {ntk_losses[i]:.15f}  "
                    f"{losses[i] - ntk_losses[i]:.0e}"
                )
        found["refusal"] = refusal(model, constant)
    follows, breaks = (found[name]["difference"] for name in list(found)[:2])
    print(
        f"\nIn {len(second)} steps after the conversion the losses differ by at most "
        f"{follows:.0e},\nand by {breaks:.0e} if epsilon is constant. "
        "convert says of that optimizer:\n"
        f"{found['refusal']}"
    )
    return found


if __name__ == "__main__":
    main()
