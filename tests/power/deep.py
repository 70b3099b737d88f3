"""Residual branches stacked for a scan, right and with faults of the depth's law.

For the tests of the check over the depth, and for depth_power.py.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import scalex_eqx as sx

WIDTH, BASE, DEPTHS = 16, 2, (2, 8)
ADAM = sx.adam(0.01)


class Branch(eqx.Module):
    norm: sx.nn.RMSNorm
    up: sx.nn.Linear
    down: sx.nn.Linear

    def __init__(self, width: int, key: Any, ends: bool):
        first, second = jax.random.split(key)
        self.norm = sx.nn.RMSNorm(width)
        self.up = sx.nn.Linear(width, 2 * width, key=first)
        down = sx.nn.Linear(2 * width, width, key=second)
        self.down = sx.nn.ends_branch(down) if ends else down

    def __call__(self, x: Any) -> Any:
        return self.down(jnp.tanh(self.up(self.norm(x))))


class Residual(eqx.Module):
    embedding: sx.nn.Linear
    one: Branch
    other: Branch
    norm: sx.nn.RMSNorm
    readout: sx.nn.Readout
    factor: float = eqx.field(static=True)

    def __init__(
        self, width: int, depth: int, key: Any, *, factor: float = 1.0, left_out: bool = False
    ):
        first, last, one, other = jax.random.split(key, 4)

        def stacked(key: Any, ends: bool) -> Branch:
            return eqx.filter_vmap(lambda key: Branch(width, key, ends))(
                jax.random.split(key, depth)
            )

        self.embedding = sx.nn.Linear(8, width, key=first)
        self.one, self.other = stacked(one, True), stacked(other, not left_out)
        self.norm = sx.nn.RMSNorm(width)
        self.readout = sx.nn.Readout(width, 4, key=last)
        self.factor = factor

    def __call__(self, x: Any) -> Any:
        arrays, static = eqx.partition((self.one, self.other), eqx.is_array)

        def step(x: Any, arrays: Any) -> Any:
            one, other = eqx.combine(arrays, static)
            x = x + self.factor * one(x)
            return x + self.factor * other(x), None

        x, _ = jax.lax.scan(step, self.embedding(x), arrays)
        return self.readout(self.norm(x))


def build(law: Any, depth: int, key: Any, *, twice: bool = False, left_out: bool = False) -> Any:
    def make(width: int, depth: int = depth) -> Any:
        factor = (depth / BASE) ** -float(law.branch) if twice else 1.0
        return Residual(width, depth, key, factor=factor, left_out=left_out)

    depths: Any = {} if law.branch is None else {"depth": depth, "base_depth": BASE}
    return sx.parameterize(make, width=WIDTH, base_width=WIDTH, parameterization=law, **depths)


def loss(model: Any, x: Any, y: Any) -> Any:
    logits = jax.vmap(model)(x)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))


def batch(key: Any) -> Any:
    x = jax.random.normal(key, (64, 8))
    return x, jnp.argmax(x[:, :4], axis=-1)


def by_depth(exponent: float) -> optax.GradientTransformation:
    """Updates of the stack, times a power of the depth ratio: what no rule here does."""

    def factor(w: Any) -> Any:
        ratio = float(w.spec.size_ratio("depth"))
        return sx.Weight(w.value * ratio**exponent, w.spec)

    return optax.stateless(
        lambda updates, _: jax.tree.map(factor, updates, is_leaf=lambda x: isinstance(x, sx.Weight))
    )


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is wrong with a model or its optimizer.

    **Arguments:**

    - `law`, `tx`: of the check.
    - `culprits`: how the paths of the weights begin that may be named.
    - `options`: of `build`.
    """

    law: Any
    tx: Any
    culprits: tuple[str, ...]
    options: dict[str, bool] = dataclasses.field(default_factory=dict)


INSIDE = ("one/", "other/")
FAULTS = {
    "a factor left out": Fault(sx.mup.deep(1), ADAM, ("other/",), {"left_out": True}),
    "the depth counted twice": Fault(sx.mup.deep(1), ADAM, INSIDE, {"twice": True}),
    "the wrong sign of the rate": Fault(
        sx.mup.deep("1/2"),
        optax.chain(
            sx.scale_by_adam(),
            sx.scale_by_width("adam", sx.full_alignment),
            by_depth(1.0),
            optax.scale(-0.01),
        ),
        INSIDE,
    ),
    "Adam's rate under SGD": Fault(
        sx.mup.deep("1/2"),
        optax.chain(sx.scale_by_width("adam", sx.full_alignment), optax.scale(-0.1)),
        INSIDE,
    ),
    "no law": Fault(sx.mup, ADAM, INSIDE),
}
