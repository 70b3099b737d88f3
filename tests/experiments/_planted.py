"""A problem whose best constants are known by construction: its layers are stored rescaled."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from scalex_eqx import Weight
from scalex_eqx.nn import Linear, Readout
from scalex_eqx.problems import Problem

SIZE = 8


class Model(eqx.Module):
    """Three matrices, stored multiplied by numbers."""

    first: Linear
    inner: Linear
    readout: Readout

    def __init__(self, width, scales, key):
        keys = jax.random.split(key, 3)
        layers = (
            Linear(SIZE, width, key=keys[0]),
            Linear(width, width, key=keys[1]),
            Readout(width, SIZE, key=keys[2]),
        )
        self.first, self.inner, self.readout = map(_times, scales, layers)


def _times(scale, layer):
    weight = layer.weight
    spec = dataclasses.replace(weight.spec, std=weight.spec.std * scale)
    return eqx.tree_at(lambda x: x.weight, layer, Weight(weight.value * scale, spec))


def rescaled(embedding=1.0, hidden=1.0, readout=0.125):
    """Every entry, divided by its layer's number, is to come close to one under noise.

    Adam's steps are as large whatever the gradient, and so the loss of a layer at the rate of x
    times its number is the same function of x for all layers of one shape: the best constants are
    proportional to the numbers.
    """
    scales = embedding, hidden, readout
    noise = np.random.default_rng(0).standard_normal((64, 3, SIZE, SIZE)).astype(np.float32)

    def loss(model, batch):
        layers = model.first, model.inner, model.readout
        parts = [
            jnp.mean((layer.weight / scale - 1 - batch[:, place].mean(0)) ** 2)
            for place, (scale, layer) in enumerate(zip(scales, layers, strict=True))
        ]
        return sum(parts, start=jnp.zeros(()))

    return Problem(
        make=lambda width, key: Model(width, scales, key),
        loss=loss,
        data=noise,
        held_out=np.zeros((1, 3, SIZE, SIZE), np.float32),
        batch_size=1,
        identity={"scales": list(scales)},
        name="rescaled",
    )


problem = rescaled()
