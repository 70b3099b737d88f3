"""The operator network of dinox, trained on values and derivatives, in float64."""

# pyright: reportMissingImports=false

import jax
import jax.numpy as jnp
from _case import Case, linear, points
from dinox.equinox_nn_factories import (
    EquinoxMLPConfig,
    _init_linear_layer_weights,
    build_equinox_MLP_from_config,
)


def make(width, key):
    config = EquinoxMLPConfig(
        input_dimension=8,
        output_dimension=4,
        random_initializer_key=0,  # a number; the key itself is set below
        activation_name="gelu",
        layer_width=width,
        depth=2,
    )
    network = build_equinox_MLP_from_config(config)
    return _init_linear_layer_weights(network, key)


def outputs(model, inputs, targets):
    """Values and the derivatives by the inputs, of shape (batch, 4, 9)."""

    def both(x):
        value, pull = jax.vjp(model, x)
        (jacobian,) = jax.vmap(pull)(jnp.eye(len(value)))
        return jnp.concatenate([value[:, None], jacobian], 1)

    return jax.vmap(both)(inputs)


def loss(outputs, inputs, targets):
    """The mean of squares over values and derivatives: the package's H1 loss."""
    inner = (1 - targets**2)[:, :, None] * jnp.eye(4)
    derivatives = [inner, inner * 2 * inputs[:, None, 4:]]
    right = jnp.concatenate([targets[..., None], *derivatives], -1)
    return jnp.mean(jnp.sum((outputs - right) ** 2, (1, 2)))


def batch(key):
    return tuple(x.astype(float) for x in points(key))


ARRAYS = {
    **linear("layers/0", "embedding", "summed over the inputs"),
    **linear("layers/1", "hidden", "summed over features"),
    **linear("layers/2", "readout", "summed over features"),
}

CASES = [Case("MLP, H1 loss", ("dinox",), make, outputs, loss, batch, ARRAYS)]
