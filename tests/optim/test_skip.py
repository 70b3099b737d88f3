"""Steps with a gradient that is not finite leave no trace but a count."""

import functools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.optim import skip_nonfinite

RULES = {
    "adam": lambda: sx.adamw(0.01, 0.001, decay_mode="independent"),
    "adam_atan2": lambda: sx.adam_atan2(0.01),
    "momentum": lambda: sx.sgd(0.1, momentum=0.9),
    "lion": lambda: sx.lion(0.01),
    "sign_sgd": lambda: sx.sign_sgd(0.01),
    "adafactor": lambda: sx.adafactor(0.01, min_factored_size=2),
    "clipped": lambda: optax.chain(sx.clip_by_effective_norm(1.0), sx.adam(0.01)),
    "optax": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.01)),
    "noisy": lambda: optax.noisy_sgd(0.1, key=jax.random.key(0)),
    "every two": lambda: optax.MultiSteps(sx.adam(0.01), 2).gradient_transformation(),
}


@pytest.fixture
def params(weight):
    return {"w": weight(np.ones((3, 4))), "b": weight(np.ones(4), "vector")}


@pytest.fixture(params=RULES)
def rule(request) -> Any:
    return RULES[request.param]


def gradients(params, seed: int, *bad: float) -> Any:
    """Normal numbers, some of the last weight's replaced by `bad`."""
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=x.shape) for x in jtu.tree_leaves(params)]
    arrays[-1].flat[: len(bad)] = bad
    leaves = [jnp.asarray(x, jnp.float32) for x in arrays]
    return jtu.tree_unflatten(jtu.tree_structure(params), leaves)


def assert_same_bits(tree, other):
    assert jtu.tree_structure(tree) == jtu.tree_structure(other)
    for a, b in zip(map(raw, jtu.tree_leaves(tree)), map(raw, jtu.tree_leaves(other)), strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


def raw(x: Any) -> np.ndarray:
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x)


def run(tx: Any, params: Any, sequence: list[Any]) -> tuple[list[Any], list[Any]]:
    step, state = jax.jit(tx.update), tx.init(params)
    found, states = [], [state]
    with jax.numpy_dtype_promotion("standard"):
        for gradient in sequence:
            updates, state = step(gradient, state, params)
            found.append(updates)
            states.append(state)
    return found, states


@pytest.mark.parametrize(
    "bad", [(np.inf,), (-np.inf,), (np.nan,), (np.inf, -np.inf), (np.nan, np.inf)]
)
def test_a_bad_step_changes_nothing_but_the_count(rule, params, bad):
    sequence = [gradients(params, 0), gradients(params, 1, *bad), gradients(params, 2)]
    updates, states = run(skip_nonfinite(rule()), params, sequence)
    assert_same_bits(states[1].inner_state, states[2].inner_state)
    assert_same_bits(updates[1], jax.tree.map(jnp.zeros_like, updates[1]))
    assert [int(state.skipped) for state in states] == [0, 0, 1, 1]


def test_the_other_steps_are_those_of_the_rule(rule, params):
    """One formula in two programs: equal up to the fusing of a few operations."""
    good = [gradients(params, seed) for seed in range(4)]
    bad = gradients(params, 9, np.nan)
    updates, states = run(skip_nonfinite(rule()), params, [*good[:2], bad, bad, *good[2:]])
    expected, plain = run(rule(), params, good)
    for a, b in zip(updates[:2] + updates[4:], expected, strict=True):
        jtu.tree_map(functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-9), a, b)
    assert int(states[-1].skipped) == 2
    assert any(np.any(np.asarray(x) != 0) for x in jtu.tree_leaves(expected))
    assert jtu.tree_structure(states[-1].inner_state) == jtu.tree_structure(plain[-1])


def test_the_control_without_it_is_spoilt(params):
    sequence = [gradients(params, 0), gradients(params, 1, np.nan), gradients(params, 2)]
    updates, _ = run(sx.adam(0.01), params, sequence)
    assert np.isnan(updates[2]["w"].value).any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_large_gradients_are_not_taken_for_infinite(weight, dtype: str, x64):
    """Their sum overflows, and each of them is finite."""
    largest = float(jnp.finfo(dtype).max)
    params = weight(np.zeros((4, 4)), dtype=dtype)
    tx = skip_nonfinite(sx.sign_sgd(1.0, sx.global_rate))
    good = weight(np.full((4, 4), largest), dtype=dtype)
    updates, state = jax.jit(tx.update)(good, tx.init(params), params)
    np.testing.assert_array_equal(np.asarray(updates.value, np.float64), -1)
    bad = weight([*np.full((3, 4), largest).tolist(), [np.inf] * 4], dtype=dtype)
    updates, state = jax.jit(tx.update)(bad, state, params)
    np.testing.assert_array_equal(np.asarray(updates.value, np.float64), 0)
    assert int(state.skipped) == 1


class Odd(NamedTuple):
    first: jax.Array
    second: jax.Array
    constant: jax.Array
    same: jax.Array


def odd_rule() -> optax.GradientTransformation:
    """One result for two fields, a field that becomes a constant, and one that never changes."""

    def init(params):
        del params
        return Odd(*(jnp.asarray(x, jnp.float32) for x in (1.0, 2.0, 3.0, 4.0)))

    def update(updates, state, params=None):
        del params
        both = state.first + state.second
        return updates, Odd(both, both, jnp.zeros((), jnp.float32), state.same)

    return optax.GradientTransformation(init, update)


@pytest.mark.parametrize("jit", [jax.jit, lambda f: f])
def test_states_of_any_kind(params, jit):
    tx: Any = skip_nonfinite(odd_rule())
    start = tx.init(params)
    _, state = jit(tx.update)(gradients(params, 0, np.inf), start, params)
    assert_same_bits(state.inner_state, start.inner_state)
    _, state = jit(tx.update)(gradients(params, 0), start, params)
    assert [float(x) for x in state.inner_state] == [3.0, 3.0, 0.0, 4.0]


def test_members_of_a_vmap_are_dropped_one_by_one(params):
    tx: Any = skip_nonfinite(sx.adam(0.01))
    members = [gradients(params, 0), gradients(params, 1, np.nan), gradients(params, 2)]
    stacked = jtu.tree_map(lambda *xs: jnp.stack(xs), *members)
    update = jax.vmap(lambda g: tx.update(g, tx.init(params), params))
    updates, state = jax.jit(update)(stacked)
    assert state.skipped.tolist() == [0, 1, 0]
    sizes = np.abs(np.asarray(updates["w"].value)).max((1, 2))
    assert (sizes > 0).tolist() == [True, False, True] and np.isfinite(sizes).all()


def test_in_a_scan(params):
    tx: Any = skip_nonfinite(sx.adam(0.01))
    members = [gradients(params, 0), gradients(params, 1, np.nan), gradients(params, 2)]
    stacked = jtu.tree_map(lambda *xs: jnp.stack(xs), *members)

    def step(state, gradient):
        updates, state = tx.update(gradient, state, params)
        return state, updates

    state, _ = jax.lax.scan(step, tx.init(params), stacked)
    assert int(state.skipped) == 1 and int(state.inner_state[0].count) == 2


def test_extra_arguments_reach_the_rule(params):
    plateau = optax.chain(sx.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1))
    tx = skip_nonfinite(plateau)
    state: Any = tx.init(params)
    with jax.numpy_dtype_promotion("standard"):
        _, state = tx.update(gradients(params, 0), state, params, value=jnp.asarray(1.0))
    assert float(state.inner_state[-1].best_value) == 1.0


def test_a_state_that_changes_its_structure_is_refused(params):
    def update(updates, state, params=None):
        del state, params
        return updates, {"new": jnp.ones(1)}

    tx = skip_nonfinite(optax.GradientTransformation(lambda params: {}, update))
    with pytest.raises(ValueError, match="another structure after the update"):
        tx.update(gradients(params, 0), tx.init(params))


def naive(tx: Any) -> Any:
    """The same by a choice behind the step."""

    def update(updates, state, params=None):
        finite = jnp.all(jnp.asarray([jnp.isfinite(x).all() for x in jtu.tree_leaves(updates)]))
        new_updates, new_state = tx.update(updates, state, params)
        return (
            jax.tree.map(lambda x: jnp.where(finite, x, 0 * x), new_updates),
            jax.tree.map(lambda x, y: jnp.where(finite, x, y), new_state, state),
        )

    return optax.GradientTransformation(tx.init, update)


@pytest.mark.parametrize("name", ["adam", "adam_atan2", "momentum"])
def test_the_compiled_step_copies_no_state(weight, name: str):
    def copies(tx: Any) -> int:
        def step(params, state, gradient):
            updates, state = tx.update(gradient, state, params)
            return optax.apply_updates(params, updates), state

        params = weight(np.ones((64, 64)))
        step = jax.jit(step, donate_argnums=(0, 1))
        text = str(step.lower(params, tx.init(params), params).compile().as_text())
        return len(re.findall(r"f32\[64,64\]\S* copy\(", text))

    assert copies(skip_nonfinite(RULES[name]())) == copies(RULES[name]()) == 0
    if name != "momentum":
        assert copies(naive(RULES[name]())) > 0
