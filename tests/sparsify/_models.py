"""Small models with masks, for tests."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import scalex_eqx as sx

WIDTH, BASE, DEPTH = 16, 8, 2


class Stack(eqx.Module):
    """An embedding, a stack of hidden layers that a scan runs over, and a readout."""

    embedding: sx.nn.Linear
    blocks: sx.nn.Linear
    readout: sx.nn.Readout

    def __init__(self, width: int, key: Any):
        first, last, inner = jax.random.split(key, 3)
        self.embedding = sx.nn.Linear(4, width, key=first)
        self.blocks = eqx.filter_vmap(lambda key: sx.nn.Linear(width, width, key=key))(
            jax.random.split(inner, DEPTH)
        )
        self.readout = sx.nn.Readout(width, 3, key=last)

    def __call__(self, x: Any) -> Any:
        arrays, static = eqx.partition(self.blocks, eqx.is_array)

        def step(x: Any, block: Any) -> Any:
            return jnp.tanh(eqx.combine(block, static)(x)), None

        return self.readout(jax.lax.scan(step, self.embedding(x), arrays)[0])


def dense(law: Any = sx.mup, width: int = WIDTH, key: Any = None) -> Any:
    key = jax.random.key(0) if key is None else key
    return sx.parameterize(
        lambda width: Stack(width, key), width=width, base_width=BASE, parameterization=law
    )


def masked(density: Any = "1/4", law: Any = sx.mup, **options: Any) -> Any:
    options = {"pattern": "balanced", **options}
    return sx.sparsify(dense(law), density, key=jax.random.key(1), **options)


def batch() -> tuple[Any, Any]:
    x = jax.random.normal(jax.random.key(2), (8, 4))
    return x, x[:, :3]


def loss(model: Any, x: Any, y: Any) -> Any:
    dtype = model.embedding.weight.value.dtype
    return jnp.mean(jnp.square(jax.vmap(model)(x.astype(dtype)) - y.astype(dtype)))


def trained(model: Any, tx: Any, steps: int = 3) -> tuple[Any, Any]:
    """The model and the optimizer's state after some steps."""

    @eqx.filter_jit
    def step(model: Any, state: Any) -> Any:
        gradient = eqx.filter_grad(loss)(model, *batch())
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, state = tx.update(gradient, state, params)
        return eqx.apply_updates(model, updates), state

    state = tx.init(eqx.filter(model, eqx.is_inexact_array))
    for _ in range(steps):
        model, state = step(model, state)
    return model, state
