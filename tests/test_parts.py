"""Parts of a model, as equinox.partition makes them: plan, convert, save, and back together."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optax
import pytest

import scalex_eqx as sx

from .test_unresolve import SharedTied

KEY = jax.random.key(0)
PARTS = ("layers/1/weight", "layers/1/bias")


def make(width: int):
    return eqx.nn.MLP(5, 3, width, 2, key=KEY)


def build(parameterization=sx.standard, make=make):
    return sx.parameterize(make, width=24, base_width=8, parameterization=parameterization)


def split(model, paths=PARTS):
    """The weights at some paths, and the rest."""
    spec = jtu.tree_map_with_path(
        lambda path, _: (
            jtu.keystr(path, simple=True, separator="/").removesuffix("/value") in paths
        ),
        model,
    )
    return eqx.partition(model, spec)


def train(tx, part, rest, state, steps: int):
    x = jax.random.normal(jax.random.key(1), (16, 5))

    @eqx.filter_jit
    def step(part, state):
        def loss(part):
            model = sx.resolve(eqx.combine(part, rest))
            return jnp.mean((jax.vmap(model)(x) - x[:, :3]) ** 2)

        value, gradient = eqx.filter_value_and_grad(loss)(part)
        updates, state = tx.update(gradient, state, part)
        return eqx.apply_updates(part, updates), state, value

    losses = []
    for _ in range(steps):
        part, state, value = step(part, state)
        losses.append(float(value))
    return part, state, losses


@pytest.mark.parametrize("rule", [lambda: sx.adam(2.0**-6), lambda: sx.sgd(0.05, momentum=0.9)])
def test_a_part_is_converted_with_its_state_and_the_rest_without(x64, rule):
    """Losses of order 0.1 that come out equal to a few 1e-15, as in test_convert."""
    tx = rule()
    part, rest = split(build())
    part, state, _ = train(tx, part, rest, tx.init(part), 5)
    _, _, straight = train(tx, part, rest, state, 10)
    new_part, new_state = sx.convert(part, state, to=sx.ntk, tx=tx)
    new_rest, nothing = sx.convert(rest, to=sx.ntk)
    assert nothing is None
    after, _, turned = train(tx, new_part, new_rest, new_state, 10)
    assert np.ptp(straight) > 1e-3
    assert np.abs(np.subtract(straight, turned)).max() < 1e-12
    whole = eqx.combine(after, new_rest)
    laws = {w.spec.parameterization for w in sx.weights_with_paths(whole).values()}
    assert laws == {sx.ntk}
    # The controls: parts of two laws don't fit, and the old state takes other steps.
    with pytest.raises(ValueError, match="WeightSpec"):
        eqx.combine(new_part, rest)
    fresh = tx.init(new_part)
    _, _, other = train(tx, new_part, new_rest, fresh, 10)
    assert np.abs(np.subtract(straight, other)).max() > 1e-6


def test_a_model_is_converted_without_an_optimizer():
    model = build(sx.mup)
    found, _ = sx.convert(model, to=sx.mean_field)
    x = jnp.ones(5)
    np.testing.assert_allclose(sx.resolve(found)(x), sx.resolve(model)(x), rtol=1e-5)
    expected = build(sx.mean_field)
    assert jtu.tree_structure(found) == jtu.tree_structure(expected)


def test_state_and_optimizer_go_together():
    part, _ = split(build())
    tx = sx.adam(0.1)
    with pytest.raises(ValueError, match="state is given and tx is not"):
        sx.convert(part, tx.init(part), to=sx.ntk)
    with pytest.raises(ValueError, match="tx is given and state is not"):
        sx.convert(part, to=sx.ntk, tx=tx)


@pytest.mark.parametrize("to", [sx.standard, sx.mup])
def test_parts_of_a_tied_model(to):
    """The tie is in one of them only."""
    start = {sx.standard: sx.ntk, sx.mup: sx.mean_field}[to]
    model = build(start, SharedTied)
    tx = sx.adam(0.1)
    part, rest = split(model, ("shared/pytree/0/weight",))
    new_part, _ = sx.convert(part, tx.init(part), to=to, tx=tx)
    new_rest, _ = sx.convert(rest, to=to)
    found = eqx.combine(new_part, new_rest)
    token = jnp.asarray(3)
    np.testing.assert_allclose(sx.resolve(found)(token), sx.resolve(model)(token), rtol=1e-5)
    assert {w.spec.parameterization for w in sx.weights_with_paths(found).values()} == {to.tied()}
    assert to.tied().tied() == to.tied()


def test_a_plan_for_each():
    """Their rows are together those of the whole, and those of a frozen part have no steps."""
    model, tx = build(), sx.adam(1e-2)
    part, rest = split(model)
    plans = {name: sx.plan(tree, tx) for name, tree in (("part", part), ("rest", rest))}
    whole = {row.path: row for row in sx.plan(model, tx).rows}
    assert [row.path for row in plans["part"].rows] == list(PARTS)
    rows = {row.path: row for one in plans.values() for row in one.rows}
    assert rows == whole
    assert all(str(plan) and not plan.warnings for plan in plans.values())
    frozen = sx.plan(sx.freeze(rest, lambda path, _: True), tx)
    assert all(row.learning_rate is None and not row.is_trained for row in frozen.rows)
    clipped = optax.chain(optax.clip_by_global_norm(1.0), sx.adam(1e-2, eps_scaling="constant"))
    assert any("clip_by_global_norm" in line for line in sx.plan(part, clipped).warnings)


def test_a_part_is_saved_by_itself(tmp_path):
    model, tx = build(), sx.adam(1e-2)
    part, rest = split(model)
    part, state, _ = train(tx, part, rest, tx.init(part), 2)
    sx.save(tmp_path / "part.ckpt", (part, state))
    like, _ = split(build())
    found, found_state = sx.load(tmp_path / "part.ckpt", (like, tx.init(like)))
    assert eqx.tree_equal((found, found_state), (part, state))
    assert sx.fingerprint(part) == sx.fingerprint(model)
    sx.save(tmp_path / "whole.ckpt", model)
    with pytest.raises(ValueError, match=re.escape("layers/0/weight")):
        sx.load(tmp_path / "whole.ckpt", like)
