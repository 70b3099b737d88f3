"""A Fourier neural operator of pdequinox, whose weights are real and imaginary parts."""

# pyright: reportMissingImports=false

import jax
import jax.numpy as jnp
from _case import Case, linear, squares
from pdequinox.arch import ClassicFNO

POINTS = 16


def make_fno(width, key):
    return ClassicFNO(
        1, 1, 1, hidden_channels=width, num_modes=5, num_blocks=2, activation=jax.nn.gelu, key=key
    )


def outputs(model, inputs, targets):
    return jax.vmap(model)(inputs)


def waves(key):
    """Sums of two waves on a circle, and what half a step of advection makes of them."""
    keys = jax.random.split(key)
    size = jax.random.normal(keys[0], (16, 2, 1))
    phase = jax.random.uniform(keys[1], (16, 2, 1), maxval=6.0)
    angle = jnp.arange(1.0, 3.0)[:, None] * jnp.arange(POINTS) * (2 * jnp.pi / POINTS)
    before, after = ((size * jnp.sin(angle + phase + by)).sum(1) for by in (0.0, 0.5))
    return before[:, None], after[:, None]


FEATURES = "summed over features"
FNO = {
    **linear("lifting", "embedding", "summed over the one channel"),
    "blocks/*/spectral_conv/weights_*": ("hidden", FEATURES + ", for each wave number"),
    **linear("blocks/*/by_pass_conv", "hidden", FEATURES),
    **linear("projection", "readout", FEATURES),
}

CASES = [
    Case(
        "Fourier neural operator",
        ("pdequinox",),
        make_fno,
        outputs,
        squares,
        waves,
        FNO,
        options={"layouts": {"*/weights_*": ("out", "in", "out")}},
    ),
]
