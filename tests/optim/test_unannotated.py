"""Arrays that no scaling law is known for, where they are asked for."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optax
import pytest

import scalex_eqx as sx

from ._every import every

RULES: dict[str, Any] = {
    **every(
        0.1,
        adamw={"weight_decay": 0.1, "decay_mode": "independent"},
        sgd={"momentum": 0.9},
    ),
    "scale_by_width": lambda **k: sx.scale_by_width("adam", sx.full_alignment, **k),
    "low_precision": lambda **k: sx.optim.low_precision(sx.adam(0.1), "kahan", **k),
}


@pytest.fixture
def tree(weight):
    return {
        "w": weight(np.ones((2, 3))),
        "bare": [jnp.ones((3, 4)), jnp.ones(()), jnp.ones(2)],
        "count": jnp.zeros((), jnp.int32),
        "name": None,
    }


def normal(tree, seed: int = 0):
    rng = np.random.default_rng(seed)
    return jtu.tree_map(
        lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype) if eqx.is_inexact_array(x) else x,
        tree,
    )


@pytest.mark.parametrize("name", RULES)
def test_a_bare_array_is_a_constant_and_weights_keep_their_law(name: str, tree, weight):
    tx = RULES[name](unannotated="constant")
    grads = normal(tree)
    updates, state = jax.jit(tx.update)(grads, tx.init(tree), tree)
    assert jtu.tree_structure(updates) == jtu.tree_structure(tree)

    spec = [
        sx.WeightSpec(
            (),
            tuple(range(-x.ndim, 0)),
            role=sx.Role.constant,
            parameterization=sx.mup,
            width_ratio=tree["w"].spec.width_ratio,
        )
        for x in tree["bare"]
    ]

    def with_law(tree):
        bare = [sx.Weight(x, s) for x, s in zip(tree["bare"], spec, strict=True)]
        return tree | {"bare": bare}

    plain = RULES[name]()
    expected, _ = plain.update(with_law(grads), plain.init(with_law(tree)), with_law(tree))
    np.testing.assert_allclose(updates["w"].value, expected["w"].value, rtol=1e-5)
    for a, b in zip(updates["bare"], expected["bare"], strict=True):
        np.testing.assert_allclose(a, b.value, rtol=1e-5)
    _, again = jax.jit(tx.update)(grads, state, tree)
    assert jtu.tree_structure(again) == jtu.tree_structure(state)


@pytest.mark.parametrize("name", RULES)
def test_they_are_refused_unless_asked_for(name: str, tree):
    for tx in (RULES[name](), RULES[name](unannotated="error")):
        with pytest.raises(ValueError, match="arrays without a scaling law: bare/0, bare/1"):
            tx.init(tree)


@pytest.mark.parametrize("name", RULES)
def test_a_weight_that_is_not_completed_is_refused_still(name: str):
    fresh = sx.nn.Linear(2, 2, key=jax.random.key(0))
    with pytest.raises(ValueError, match="not completed: weight"):
        RULES[name](unannotated="constant").init(fresh)


def test_another_word_is_refused():
    with pytest.raises(Exception, match=r"(?s)unannotated.*constant"):
        sx.adam(0.1, unannotated="vector")  # pyright: ignore[reportArgumentType]


def test_a_plain_dictionary_trains():
    params = {"w": jnp.ones((2, 2)), "b": jnp.zeros(2)}
    tx = sx.adam(0.05, unannotated="constant")

    def loss(p):
        return jnp.sum(jnp.square(p["w"] @ jnp.ones(2) + p["b"] - 5.0))

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(200):
        params, state = step(params, state)
    assert float(loss(params)) < 1e-3
