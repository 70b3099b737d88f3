"""An MLP on scikit-learn's digits: small enough for hundreds of runs in a minute."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._usage import UsageError
from ..nn import Linear, Readout
from ._problem import JUDGED, Problem

_TRAINED_ON = 1347


class Classifier(eqx.Module):
    """Two inner layers and a readout, without biases."""

    first: Linear
    inner: list[Linear]
    readout: Readout

    def __init__(self, width: int, depth: int, key: PRNGKeyArray):
        first, readout, *inner = jax.random.split(key, depth + 1)
        self.first = Linear(64, width, key=first)
        self.inner = [Linear(width, width, key=key) for key in inner]
        self.readout = Readout(width, 10, key=readout)

    def __call__(self, x: Float[Array, "64"]) -> Float[Array, "10"]:
        for layer in (self.first, *self.inner):
            x = jax.nn.relu(layer(x))
        return self.readout(x)


def digits(batch_size: int = 64) -> Problem:
    """Handwritten digits, 8 x 8 pixels, from an MLP of `depth` layers and a readout.

    1,347 images are trained on, 450 held out. `accuracy` is a metric beside the loss.

    **Raises:** `UsageError` without scikit-learn, which brings the images.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UsageError(
            "the problem digits needs scikit-learn's images: pip install scikit-learn"
        ) from None
    images, labels = load_digits(return_X_y=True)
    images = ((images - images.mean()) / images.std()).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(images))
    train, test = np.split(order, [_TRAINED_ON])
    labels = labels.astype(np.int32)

    def evaluate(model, held_out):
        x, y = held_out
        logits = jax.vmap(model)(x)
        return {JUDGED: _cross_entropy(logits, y), "accuracy": jnp.mean(logits.argmax(1) == y)}

    return Problem(
        make=Classifier,
        loss=lambda model, batch: _cross_entropy(jax.vmap(model)(batch[0]), batch[1]),
        data=(images[train], labels[train]),
        held_out=(images[test], labels[test]),
        batch_size=batch_size,
        evaluate=evaluate,
        name="digits",
    )


def _cross_entropy(
    logits: Float[Array, "batch 10"], labels: Int[Array, " batch"]
) -> Float[Array, ""]:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
