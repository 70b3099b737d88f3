"""An MLP on the labels of another: synthetic, never the same example twice, and nothing to load."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..nn import Linear, Readout
from ._problem import Problem

_INPUTS, _HIDDEN, _CLASSES, _HELD_OUT = 16, 32, 10, 1024


class Student(eqx.Module):
    """Inner layers with ReLUs and a readout, all with biases."""

    layers: list[Linear]
    readout: Readout

    def __init__(self, width: int, depth: int, key: PRNGKeyArray):
        *inner, last = jax.random.split(key, depth + 1)
        sizes = [_INPUTS, *[width] * depth]
        self.layers = [
            Linear(n, m, use_bias=True, key=key)
            for n, m, key in zip(sizes[:-1], sizes[1:], inner, strict=True)
        ]
        self.readout = Readout(width, _CLASSES, use_bias=True, key=last)

    def __call__(self, x: Float[Array, "16"]) -> Float[Array, "10"]:
        for layer in self.layers:
            x = jax.nn.relu(layer(x))
        return self.readout(x)


def teacher(batch_size: int = 64) -> Problem:
    r"""Classes that a random network gives to normal numbers, learned by an MLP of `depth` layers.

    $$x \sim N(0, I_{16}), \qquad y = \operatorname{argmax}\ V \tanh(U x)$$

    with $U$ of shape `[32, 16]` and $V$ of `[10, 32]`, fixed normal matrices of size
    $1 / \sqrt{\text{fan-in}}$. Every step's examples are new. The loss is the cross-entropy,
    2.30 by chance.
    """
    draws = np.random.default_rng(0)
    first = draws.normal(size=(_HIDDEN, _INPUTS)) / _INPUTS**0.5
    last = draws.normal(size=(_CLASSES, _HIDDEN)) / _HIDDEN**0.5
    matrices = first.astype(np.float32), last.astype(np.float32)
    x = draws.normal(size=(_HELD_OUT, _INPUTS)).astype(np.float32)
    logits = np.tanh(x @ matrices[0].T) @ matrices[1].T

    def batch(data, key):
        return _labelled(data, jax.random.normal(key, (batch_size, _INPUTS), jnp.float32))

    return Problem(
        make=Student,
        loss=lambda model, batch: _cross_entropy(jax.vmap(model)(batch[0]), batch[1]),
        data=matrices,
        held_out=(x, logits.argmax(1).astype(np.int32)),
        batch=batch,
        batch_size=batch_size,
        rebatched=teacher,
        judged_at_once=_HELD_OUT,
        identity={"version": 1, "batch_size": batch_size},
        name="teacher",
    )


def _labelled(
    matrices: tuple[Array, Array], x: Float[Array, "batch 16"]
) -> tuple[Float[Array, "batch 16"], Int[Array, " batch"]]:
    first, last = matrices
    return x, jnp.argmax(jnp.tanh(x @ first.T) @ last.T, axis=1)


def _cross_entropy(
    logits: Float[Array, "batch 10"], labels: Int[Array, " batch"]
) -> Float[Array, ""]:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
