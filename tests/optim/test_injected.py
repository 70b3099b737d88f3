"""Numbers that `optax.inject_hyperparams` makes arrays of."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.optim._numbers import check_function, check_number

RULES: dict[str, Any] = {
    "adam": sx.adam,
    "adam_atan2": sx.adam_atan2,
    "adam_parameter_scaling": sx.adam_parameter_scaling,
    "sgd": sx.sgd,
    "lion": sx.lion,
    "sign_sgd": sx.sign_sgd,
}
DECAYING = ("adam_atan2", "adam_parameter_scaling", "sgd", "lion", "sign_sgd")
HALF = (jnp.bfloat16, jnp.float16)


def falling(peak: float) -> Any:
    return lambda step: peak * (1 - step.astype(float) / 50)


def steps(tx: Any, params: Any, n: int = 3) -> Any:
    state = tx.init(params)
    for i in range(n):
        grads = jax.tree.map(lambda x, i=i: (x * (i + 1)).astype(x.dtype), params)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", RULES)
def test_numbers_in_a_short_dtype_are_refused(weight, name: str, dtype):
    params = {"w": weight([[1.0, 2.0]], dtype=dtype)}
    tx: Any = optax.inject_hyperparams(RULES[name])(0.01)
    with pytest.raises(
        ValueError, match=r"is an array of \w*float16.*hyperparam_dtype=jnp.float32"
    ):
        tx.init(params)
    tx = optax.inject_hyperparams(RULES[name], hyperparam_dtype=jnp.float32)(0.01)
    found, expected = steps(tx, params), steps(RULES[name](0.01), params)
    # The number is the same float32 whether it is traced or not; results may be neighbours.
    a, b = (np.asarray(p["w"].value, np.float32) for p in (found, expected))
    np.testing.assert_allclose(a, b, rtol=float(jnp.finfo(dtype).eps))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda x: sx.adam(x), "learning_rate"),
        (lambda x: sx.adam(0.1, b2=x), "b2"),
        (lambda x: sx.adam(0.1, eps=x), "eps"),
        (lambda x: sx.sgd(0.1, momentum=x), "momentum"),
        (lambda x: sx.adam(0.1, role_multipliers={"hidden": x}), r"role_multipliers\['hidden'\]"),
        (lambda x: sx.sgd(0.1, weight_decay=x, decay_mode="coupled"), "weight_decay"),
        (lambda x: sx.adafactor(0.1, decay_exponent=x), "decay_exponent"),
        (lambda x: sx.clip_by_effective_norm(x), "max_norm"),
        (lambda x: sx.optim.clip_by_rms(x), "threshold"),
        (lambda x: sx.optim.add_weight_decay(x), "weight_decay"),
    ],
)
def test_every_number_is_looked_at(make, name: str):
    make(jnp.asarray(0.5, jnp.float32))
    with pytest.raises(ValueError, match=f"{name} is an array of bfloat16"):
        make(jnp.asarray(0.5, jnp.bfloat16))


@pytest.mark.parametrize("other", [jnp.asarray(True), jnp.asarray(0.5j), jnp.ones(1)])
def test_arrays_that_are_no_numbers_are_refused(other):
    """Where a runtime type checker is at work, it refuses most of them first."""
    with pytest.raises(
        ValueError, match=r"b1 is an array \w+\[1?\]; expected a number or a scalar"
    ):
        check_number("b1", other)


def test_a_schedule_that_returns_a_short_number_is_refused(weight):
    params = weight([[1.0]])
    tx = sx.adam(lambda step: jnp.asarray(0.1, jnp.bfloat16))
    with pytest.raises(ValueError, match="learning_rate, as the schedule returns it, is an array"):
        tx.update(params, tx.init(params), params)


@pytest.mark.parametrize("dtype", HALF)
def test_a_rate_is_not_rounded_to_the_weights_dtype(weight, dtype):
    """1 / 3 is off by 0.1 % in bfloat16: in 3 / 3 that shows, and 3 * (1 / 3) is 1."""
    params = weight([[3.0]], ratio=1, dtype=dtype)
    update: Any = sx.sgd(1 / 3).update(params, sx.sgd(1 / 3).init(params), params)[0]
    assert update.value.item() == -1
    rounded = jnp.asarray(1 / 3, dtype).astype(jnp.float32) * 257
    assert rounded != jnp.float32(257 / 3)


@pytest.mark.parametrize("name", DECAYING)
def test_the_state_inside_is_that_of_the_rule(weight, name: str):
    """Without a decay, with one of zero, and with one: each is a state of the other."""
    params = {"w": weight(np.ones((2, 2)))}
    for more in ({}, {"weight_decay": 0.0}, {"weight_decay": 0.1}):
        make = RULES[name]
        more = more | ({"decay_mode": "coupled"} if more else {})
        injected: Any = optax.inject_hyperparams(make)(0.1, **more)
        inside, plain = injected.init(params).inner_state, make(0.1, **more).init(params)
        assert jax.tree.structure(inside) == jax.tree.structure(plain)
        make(0.1, **more).update(params, inside, params)
    some = make(0.1, weight_decay=0.1, decay_mode="coupled").init(params)
    assert jax.tree.structure(some) == jax.tree.structure(plain)
    assert jax.tree.structure(some) != jax.tree.structure(make(0.1).init(params))


def test_a_schedule_says_how_decay_goes_with_it(weight):
    params = {"w": weight([[1.0, 2.0]])}
    numbers: dict[str, Any] = {"weight_decay": 1e-2, "decay_mode": "independent"}
    alone: Any = optax.inject_hyperparams(sx.adamw)(falling(0.1), **numbers)
    with pytest.raises(
        ValueError, match=r"weight_decay_schedule must say.*static_args=\('weight_d"
    ):
        alone.init(params)
    numbers["weight_decay_schedule"] = falling(1.0)
    called: Any = optax.inject_hyperparams(sx.adamw)(falling(0.1), **numbers)
    # Where a runtime type checker is at work, it refuses first.
    with pytest.raises((ValueError, TypeError), match="weight_decay_schedule"):
        called.init(params)
    with pytest.raises(ValueError, match=r"weight_decay_schedule is an array.*static_args"):
        check_function("weight_decay_schedule", jnp.ones(()))
    static = optax.inject_hyperparams(sx.adamw, static_args=("weight_decay_schedule",))
    found = steps(static(falling(0.1), **numbers), params)
    expected = steps(sx.adamw(falling(0.1), **numbers), params)
    np.testing.assert_allclose(found["w"].value, expected["w"].value, rtol=1e-6)


def test_both_equations_are_shown_where_none_is_chosen():
    for make in (
        lambda: sx.adamw(3e-3, 1e-4),
        lambda: sx.adamw(3e-3, 0.0),
        lambda: sx.lion(3e-3, weight_decay=1e-4),
        lambda: sx.sgd(3e-3, weight_decay=jnp.asarray(0.0)),
    ):
        with pytest.raises(ValueError) as caught:
            make()
        message = str(caught.value)
        assert "w <- w - lr * (u + weight_decay * w)      as optax.adamw" in message
        assert "w <- w - lr * u - weight_decay * w" in message
        assert "For what Optax does pass decay_mode='coupled'" in message
    with pytest.raises(ValueError, match=r"0.0001 at a learning rate of 0.003 takes away 3e-07"):
        sx.adamw(3e-3, 1e-4)
    sx.lion(3e-3, weight_decay=0.0)
    sx.lion(3e-3)


def test_coupled_decay_is_optaxs_at_the_base_width(weight):
    params = {"w": weight([[1.0, -2.0], [0.5, 3.0]], ratio=1)}
    with jax.numpy_dtype_promotion("standard"):
        expected = steps(optax.adamw(3e-3, weight_decay=0.1, eps=1e-8), params)
    found = steps(sx.adamw(3e-3, 0.1, decay_mode="coupled", eps=1e-8), params)
    np.testing.assert_allclose(found["w"].value, expected["w"].value, rtol=1e-6)
