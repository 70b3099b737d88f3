"""The coordinate check sees members of a stack that the inputs choose, and pieces of a stack."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.diagnostics import CoordinateCheck, coordinate_check, gradient_exponents
from scalex_eqx.diagnostics._alignment import weight_name

from ._checks import builder

BASE, EXPERTS = 16, 3
CONSTANT_RATE = {"embedding": "1/2", "hidden": 1, "readout": "1/2", "vector": 0, "constant": 0}


class Routed(eqx.Module):
    """A layer of which a router chooses one for each example, and a bias with it."""

    first: eqx.nn.Linear
    router: eqx.nn.Linear
    experts: eqx.nn.Linear
    last: eqx.nn.Linear

    def __init__(self, width: int, key: Any):
        keys = jax.random.split(key, 4)
        self.first = eqx.nn.Linear(5, width, use_bias=False, key=keys[0])
        self.router = eqx.nn.Linear(width, EXPERTS, use_bias=False, key=keys[1])
        self.experts = eqx.filter_vmap(lambda k: eqx.nn.Linear(width, width, key=k))(
            jax.random.split(keys[2], EXPERTS)
        )
        self.last = eqx.nn.Linear(width, 2, use_bias=False, key=keys[3])

    def __call__(self, x: Any) -> Any:
        h = jnp.tanh(self.first(x))
        gate, i = jax.lax.top_k(jax.nn.softmax(self.router(h)), 1)
        chosen = jax.tree.map(lambda a: a[i[0]] if eqx.is_array(a) else a, self.experts)
        return self.last(h + gate * jnp.tanh(chosen(h)))


class Joined(eqx.Module):
    """A stack of vectors of which the first is a token of its own, and the rest are added."""

    table: Any
    last: eqx.nn.Linear

    def __init__(self, width: int, key: Any):
        self.table = jax.random.normal(key, (EXPERTS, width))
        self.last = eqx.nn.Linear(width, 2, use_bias=False, key=key)

    def __call__(self, x: Any) -> Any:
        h = jnp.concatenate([self.table[:1], x[:2, None] + self.table[1:]])
        return self.last(jnp.tanh(h).sum(0))


def loss(model: Any, x: Any) -> Any:
    return jnp.mean((jax.vmap(sx.resolve(model))(x) - jnp.sin(x[:, :2])) ** 2)


def batch(key: Any) -> tuple[Any]:
    return (jax.random.normal(key, (16, 5)),)


def check(build: Any, tx: optax.GradientTransformation) -> CoordinateCheck:
    return coordinate_check(build, loss, tx, batch, widths=(16, 64), seeds=(0, 1), steps=2)


def test_experts_have_rows_and_one_learning_rate_for_all_widths_is_found():
    right = check(builder(sx.mup, Routed, BASE), sx.adam(1e-2))
    wrong = check(
        builder(sx.mup, Routed, BASE), sx.adam(1e-2, rates={**CONSTANT_RATE, "experts/weight": 0})
    )
    rows = {row.name: row for row in right.rows}
    assert {f"experts/{name}/{e}" for name in ("weight", "bias") for e in range(EXPERTS)} <= set(
        rows
    )
    assert "not followed" not in str(right)
    assert right.findings == ()
    assert {
        (finding.kind, finding.weight) for finding in wrong.findings if "experts" in finding.weight
    } == {("rate", f"experts/weight/{e}") for e in range(EXPERTS)}


def test_pieces_of_a_stack_have_rows_where_they_are_met():
    found = check(builder(sx.mup, Joined, BASE, layouts={"table": ("out",)}), sx.adam(1e-2))
    names = [row.name for row in found.rows if row.name.startswith("table")]
    # Of one use the first member is met, of the other the rest; each has a row of its own.
    assert {name for name in names if "#" not in name} == {f"table/{i}" for i in range(EXPERTS)}
    assert len(names) > EXPERTS
    assert {weight_name(name) for name in names} == {f"table/{i}" for i in range(EXPERTS)}
    met = [row.name for row in found.rows if row.name in names and row.change is not None]
    assert sorted(map(weight_name, met)) == [f"table/{i}" for i in range(EXPERTS)]
    assert found.findings == ()
    assert all(row.update is not None for row in found.rows if "#" not in row.name)


class Closure(eqx.Module):
    last: eqx.nn.Linear
    scale: Callable[[Any], Any]

    def __init__(self, width: int, key: Any):
        self.last = eqx.nn.Linear(5, width, use_bias=False, key=key)
        drawn = jax.random.normal(key, (5,))
        self.scale = lambda x: x * drawn

    def __call__(self, x: Any) -> Any:
        return self.last(self.scale(x))


def numpy_loss(model: Any, x: Any) -> Any:
    return jnp.mean(np.asarray(jax.vmap(sx.resolve(model))(x)))


def test_what_can_not_be_traced_is_named_with_its_line_and_the_remedy():
    def make(width, key):
        return eqx.nn.Linear(width, width, key=key)

    remedy = "scalex_eqx.parameterize_model"
    with pytest.raises(ValueError, match=r"self.scale = lambda x: x \* drawn") as told:
        check(builder(sx.mup, Closure, BASE), sx.adam(1e-2))
    assert "make it a field" in str(told.value) and remedy in str(told.value)
    with pytest.raises(
        ValueError, match=r"(?s)^loss asks for the values .* return jnp.mean\(np.asarray"
    ) as told:
        coordinate_check(
            builder(sx.mup, make, BASE),
            numpy_loss,
            sx.adam(1e-2),
            lambda key: (jnp.ones((2, 16)),),
            widths=(16, 32),
            seeds=(0,),
            steps=1,
        )
    assert remedy in str(told.value)

    def seeded(width, key):
        np.random.default_rng(int(jax.random.bits(key)))
        return builder(sx.mup, make, BASE)(width, key)

    with pytest.raises(ValueError, match=r"^build asks for the values .*default_rng"):
        check(seeded, sx.adam(1e-2))
    with pytest.raises(ValueError, match=r"asks for the values .*default_rng"):
        gradient_exponents(seeded, loss, lambda z, x: z, batch, widths=(16, 32))
