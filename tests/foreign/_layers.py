"""Every layer of equinox.nn that has weights, with the roles that they must get."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from scalex_eqx import Role

BASE = 8
FIXED = 3
EMBEDDING, HIDDEN, READOUT = Role.embedding, Role.hidden, Role.readout
VECTOR, CONSTANT = Role.vector, Role.constant


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """A layer as a function of the width, and a call of it.

    `inputs` returns the arguments of the call at a width.
    """

    make: Callable[[int, Any], Any]
    inputs: Callable[[int], tuple[Any, ...]]
    roles: dict[str, Role]
    call: Callable[..., Any] = lambda model, *inputs: model(*inputs)


def ramp(*shape: int) -> jax.Array:
    return jnp.linspace(-1.0, 1.0, int(jnp.prod(jnp.asarray(shape)))).reshape(shape)


def batch_norm(width: int, key: Any) -> Any:
    return eqx.nn.make_with_state(eqx.nn.BatchNorm)(width, "batch", mode="batch")


def call_batch_norm(model: Any, x: Any) -> Any:
    layer, state = model
    return jax.vmap(layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)[0]


AFFINE = {"weight": VECTOR, "bias": VECTOR}
CELL = {"weight_ih": EMBEDDING, "weight_hh": HIDDEN, "bias": VECTOR}
PROJECTIONS = ("query_proj", "key_proj", "value_proj", "output_proj")

LAYERS = {
    "linear input": Layer(
        lambda n, key: eqx.nn.Linear(FIXED, n, key=key),
        lambda n: (ramp(FIXED),),
        {"weight": EMBEDDING, "bias": VECTOR},
    ),
    "linear hidden": Layer(
        lambda n, key: eqx.nn.Linear(n, 2 * n, key=key),
        lambda n: (ramp(n),),
        {"weight": HIDDEN, "bias": VECTOR},
    ),
    "linear readout": Layer(
        lambda n, key: eqx.nn.Linear(n, FIXED, key=key),
        lambda n: (ramp(n),),
        {"weight": READOUT, "bias": CONSTANT},
    ),
    "linear from a scalar": Layer(
        lambda n, key: eqx.nn.Linear("scalar", n, key=key),
        lambda n: (jnp.ones(()),),
        {"weight": EMBEDDING, "bias": VECTOR},
    ),
    "linear to a scalar": Layer(
        lambda n, key: eqx.nn.Linear(n, "scalar", use_bias=False, key=key),
        lambda n: (ramp(n),),
        {"weight": READOUT},
    ),
    "embedding": Layer(
        lambda n, key: eqx.nn.Embedding(FIXED, n, key=key),
        lambda n: (jnp.asarray(1),),
        {"weight": EMBEDDING},
    ),
    "conv1d": Layer(
        lambda n, key: eqx.nn.Conv1d(n, n, kernel_size=3, key=key),
        lambda n: (ramp(n, 5),),
        {"weight": HIDDEN, "bias": VECTOR},
    ),
    "conv2d input": Layer(
        lambda n, key: eqx.nn.Conv2d(FIXED, n, kernel_size=(2, 3), key=key),
        lambda n: (ramp(FIXED, 4, 4),),
        {"weight": EMBEDDING, "bias": VECTOR},
    ),
    "conv1d by channel": Layer(
        lambda n, key: eqx.nn.Conv1d(n, n, kernel_size=3, groups=n, key=key),
        lambda n: (ramp(n, 5),),
        {"weight": EMBEDDING, "bias": VECTOR},
    ),
    "transposed conv1d": Layer(
        lambda n, key: eqx.nn.ConvTranspose1d(n, FIXED, kernel_size=3, key=key),
        lambda n: (ramp(n, 5),),
        {"weight": READOUT, "bias": CONSTANT},
    ),
    "gru": Layer(
        lambda n, key: eqx.nn.GRUCell(FIXED, n, key=key),
        lambda n: (ramp(FIXED), ramp(n)),
        {**CELL, "bias_n": VECTOR},
    ),
    "lstm": Layer(
        lambda n, key: eqx.nn.LSTMCell(FIXED, n, key=key),
        lambda n: (ramp(FIXED), (ramp(n), ramp(n))),
        CELL,
    ),
    "layer norm": Layer(lambda n, _: eqx.nn.LayerNorm(n), lambda n: (ramp(n),), AFFINE),
    "layer norm of a matrix": Layer(
        lambda n, _: eqx.nn.LayerNorm((2, n)), lambda n: (ramp(2, n),), AFFINE
    ),
    "rms norm": Layer(lambda n, _: eqx.nn.RMSNorm(n), lambda n: (ramp(n),), AFFINE),
    "group norm": Layer(lambda n, _: eqx.nn.GroupNorm(4, n), lambda n: (ramp(n, 3),), AFFINE),
    "batch norm": Layer(
        batch_norm,
        lambda n: (ramp(6, n),),
        {"0/weight": VECTOR, "0/bias": VECTOR},
        call_batch_norm,
    ),
    "prelu": Layer(lambda n, _: eqx.nn.PReLU(), lambda n: (ramp(n),), {"negative_slope": CONSTANT}),
    "prelu by channel": Layer(
        lambda n, _: eqx.nn.PReLU(jnp.full(n, 0.25)),
        lambda n: (ramp(n),),
        {"negative_slope": VECTOR},
    ),
    "attention": Layer(
        lambda n, key: eqx.nn.MultiheadAttention(n // 4, n, use_output_bias=True, key=key),
        lambda n: (ramp(5, n),) * 3,
        {f"{name}/weight": HIDDEN for name in PROJECTIONS} | {"output_proj/bias": VECTOR},
    ),
    "mlp": Layer(
        lambda n, key: eqx.nn.MLP(FIXED, 2, n, depth=2, key=key),
        lambda n: (ramp(FIXED),),
        {
            "layers/0/weight": EMBEDDING,
            "layers/0/bias": VECTOR,
            "layers/1/weight": HIDDEN,
            "layers/1/bias": VECTOR,
            "layers/2/weight": READOUT,
            "layers/2/bias": CONSTANT,
        },
    ),
}
