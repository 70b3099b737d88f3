"""Optimizers at another batch size and training length."""

import dataclasses
import json
from fractions import Fraction
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import TypeCheckError

import scalex_eqx as sx
from scalex_eqx.optim._budget import budget_betas, budget_decay, budget_eps, budget_rate
from scalex_eqx.theory import DecayRule, Growth, LayerExponents, malladi, malladi_sgd

# Roots and products that are exact in binary: all comparisons below are to the last bit.
FOUR = sx.Budget(malladi, batch=Fraction(128), base_batch=32)
FOUR_SGD = sx.Budget(malladi_sgd, batch=128, base_batch=32)
SAME = sx.Budget(malladi, batch=32, base_batch=32)
SAME_SGD = sx.Budget(malladi_sgd, batch=32, base_batch=32)
COMPLETED = sx.Budget(sx.theory.completed_p, batch=4, base_batch=1, tokens=16, base_tokens=1)
RATE, EPS = 2.0**-6, 2.0**-8
BETAS: dict[str, Any] = {"b1": 1 - 2.0**-3, "b2": 1 - 2.0**-5}
SHORTER: dict[str, Any] = {"b1": 1 - 2.0**-1, "b2": 1 - 2.0**-3}


def decays(weight_decay: float) -> dict[str, Any]:
    return {"weight_decay": weight_decay, "decay_mode": "independent"}


# By hand: four times the batch.
TWINS: dict[str, tuple[Any, Any, Any]] = {
    "adam": (sx.adam, {**BETAS, "eps": EPS}, {**SHORTER, "eps": EPS / 2}),
    "adam_atan2": (sx.adam_atan2, BETAS, SHORTER),
    "adam_parameter_scaling": (
        sx.adam_parameter_scaling,
        {**BETAS, "eps": EPS},
        {**SHORTER, "eps": EPS / 2},
    ),
    "sign_sgd": (sx.sign_sgd, {}, {}),
}


def steps(tx: Any, params: Any, n: int = 2) -> Any:
    """Weights and state after some steps with gradients that differ."""
    state = tx.init(params)
    for i in range(n):
        grads = jax.tree.map(lambda x, i=i: jnp.sin((i + 1) * x).astype(x.dtype), params)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def assert_same(one: Any, other: Any) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.parametrize("name", TWINS)
def test_it_is_the_optimizer_with_other_numbers(weight, name: str):
    make, base, scaled = TWINS[name]
    params = {"w": weight([[1.0, -2.0], [0.5, 3.0]])}
    found = steps(make(RATE, budget=FOUR, **base), params)
    assert_same(found, steps(make(2 * RATE, **scaled), params))
    plain = steps(make(RATE, **base), params)
    assert not np.array_equal(found[0]["w"].value, plain[0]["w"].value)


def test_sgd_follows_the_batch_linearly_and_keeps_its_momentum(weight):
    params = {"w": weight([[1.0, -2.0]])}
    found = steps(sx.sgd(RATE, momentum=0.5, budget=FOUR_SGD), params)
    assert_same(found, steps(sx.sgd(4 * RATE, momentum=0.5), params))


@pytest.mark.parametrize("mode", ["independent", "coupled"])
def test_the_base_batch_changes_no_bit(weight, mode):
    params = {"w": weight([[1.0, -2.0]])}
    more: dict[str, Any] = {"weight_decay": 0.1, "decay_mode": mode}
    assert_same(
        steps(sx.adamw(0.3, b1=0.9, b2=0.95, budget=SAME, **more), params),
        steps(sx.adamw(0.3, b1=0.9, b2=0.95, **more), params),
    )
    assert_same(
        steps(sx.sgd(0.3, momentum=0.9, budget=SAME_SGD, **more), params),
        steps(sx.sgd(0.3, momentum=0.9, **more), params),
    )
    assert budget_betas(SAME, 0.9, 0.95) == (0.9, 0.95)
    schedule, eps = optax.linear_schedule(0.1, 0.0, 10), lambda spec: 1e-8
    assert budget_eps(SAME, eps) is eps
    assert budget_rate(SAME, schedule) is schedule


def test_known_betas_are_scaled_as_they_are_written():
    """Not 0.6000000000000001: an optimizer with 0.6 written in is the same one."""
    assert budget_betas(FOUR, 0.9, 0.95) == (0.6, 0.8)
    assert budget_betas(FOUR, np.float64(0.9), 0.999) == (0.6, 0.996)
    assert budget_betas(FOUR, 0.0, 0.999) == (0.0, 0.996)
    assert budget_betas(FOUR, jnp.float32(0), np.float64(0)) == (0.0, 0.0)


def test_the_compiled_step_is_that_of_other_numbers(weight):
    params = {"w": weight(np.ones((4, 4)))}

    def lowered(tx: Any) -> str:
        return jax.jit(tx.update).lower(params, tx.init(params), params).as_text()

    decay = {"weight_decay": 2.0**-10, "decay_mode": "independent"}
    found = lowered(sx.adamw(RATE, **decay, **BETAS, eps=EPS, budget=COMPLETED))
    # sqrt(B / D) = 1/2 and B / D = 1/4.
    longer: dict[str, Any] = {"b1": 1 - 2.0**-5, "b2": 1 - 2.0**-7}
    decay["weight_decay"] = 2.0**-12
    assert found == lowered(sx.adamw(RATE / 2, **decay, **longer, eps=2 * EPS))
    assert found != lowered(sx.adamw(RATE, **decay, **BETAS, eps=EPS))


def test_a_schedule_keeps_its_steps(weight):
    params = {"w": weight([[1.0, -2.0]])}

    def falling(peak: float) -> Any:
        return lambda step: peak * (1 - step.astype(float) / 4)

    found = steps(sx.sign_sgd(falling(RATE), budget=FOUR), params, 3)
    assert_same(found, steps(sx.sign_sgd(falling(2 * RATE)), params, 3))


def test_epsilon_by_weight(weight):
    params = {"w": weight([[1.0, -2.0]])}
    found = steps(sx.adam(RATE, eps=lambda spec: EPS, budget=FOUR), params)
    plain = sx.adam(2 * RATE, b1=0.6, b2=0.996, eps=lambda spec: EPS / 2)
    assert_same(found, steps(plain, params))


def test_traced_numbers(weight):
    """Through Optax, which makes arrays of all numbers and leaves the budget alone."""
    params = {"w": weight([[1.0, -2.0]])}
    numbers = {"eps": EPS, **BETAS, "weight_decay": 2.0**-9}
    make: Any = optax.inject_hyperparams(
        sx.adamw, static_args=("weight_decay_schedule",), hyperparam_dtype=jnp.float32
    )
    constant = optax.constant_schedule(1.0)
    more: dict[str, Any] = {"decay_mode": "independent", "weight_decay_schedule": constant}
    tx = make(RATE, budget=COMPLETED, **more, **numbers)
    plain = sx.adamw(RATE, budget=COMPLETED, **more, **numbers)
    found, expected = steps(tx, params)[0], steps(plain, params)[0]
    # The numbers are exact: only the order of products may differ.
    np.testing.assert_allclose(found["w"].value, expected["w"].value, rtol=1e-6)
    assert tx.init(params).hyperparams["learning_rate"] == RATE
    assert jax.tree.structure(tx.init(params).inner_state) == jax.tree.structure(plain.init(params))


def test_a_traced_beta_that_leaves_its_range_is_no_plausible_number(weight):
    params = {"w": weight([[1.0, -2.0]])}

    @jax.jit
    def update(b1):
        tx: Any = sx.adam(RATE, b1=b1, b2=0.9, budget=FOUR)
        return tx.update(params, tx.init(params), params)[0]["w"].value

    assert np.isfinite(update(jnp.float32(0.75))).all()
    assert np.isnan(update(jnp.float32(0.7))).all()
    # Without a memory there is none that could get shorter.
    assert np.isfinite(update(jnp.float32(0.0))).all()
    with pytest.raises(ValueError, match=r"b1 is 0\.7 at the base, .* makes it -0\.2, as 1 - b1"):
        sx.adam(RATE, b1=jnp.float32(0.7), b2=0.9, budget=FOUR)


@pytest.mark.parametrize("role", ["embedding", "hidden", "readout", "vector"])
def test_independent_decay_follows_each_size_by_itself(weight, role: str):
    """With no gradient a step is the decay: omega r^w B^x D^y of the weight."""
    value = [8.0] if role == "vector" else [[8.0]]
    params = {"w": weight(value, role, ratio=16)}
    zero = jax.tree.map(jnp.zeros_like, params)
    rule = DecayRule("mine", width=LayerExponents(0, "-1/2", 1), batch=1, tokens="-1/2")
    budget = sx.Budget(
        malladi.with_horizon("-1/2").with_decay(rule),
        **{"batch": 4, "base_batch": 1, "tokens": 16, "base_tokens": 1},
    )
    tx = sx.adamw(RATE, **decays(2.0**-9), b1=0.9, b2=0.9, budget=budget)
    (update,) = jax.tree.leaves(tx.update(zero, tx.init(params), params)[0])
    expected = {"embedding": 1.0, "hidden": 16**-0.5, "readout": 16.0, "vector": 0.0}[role]
    # B^1 D^-1/2 = 4 / 4.
    assert update.item() == -8 * 2.0**-9 * expected


def test_coupled_decay_is_divided_by_what_the_rate_gains(weight):
    params = {"w": weight([[8.0]])}
    rule = dataclasses.replace(malladi, decay=DecayRule("per example", batch=1))
    budget = sx.Budget(rule, batch=4, base_batch=1)
    assert budget_decay(budget, 0.25, coupled=True) == 0.5
    assert budget_decay(budget, 0.25, coupled=False) == 1.0
    more: dict[str, Any] = {"decay_mode": "coupled", "eps": EPS}
    found = steps(sx.adamw(RATE, 0.25, budget=budget, **more, **BETAS), params)
    more["eps"] = EPS / 2
    assert_same(found, steps(sx.adamw(2 * RATE, 0.5, **more, **SHORTER), params))


def test_no_decay_needs_no_rule_for_it(weight):
    params = {"w": weight([[1.0]])}
    sx.sgd(RATE, weight_decay=0.0, budget=FOUR_SGD).init(params)
    assert budget_decay(FOUR, np.float64(0), coupled=True) == 0
    sx.sign_sgd(RATE, budget=FOUR).init(params)
    with pytest.raises(ValueError, match="'malladi SGD' doesn't say how weight decay follows"):
        sx.sgd(RATE, weight_decay=0.1, decay_mode="coupled", budget=FOUR_SGD)


def test_a_budget_leaves_the_state_as_it_is(weight):
    """A checkpoint of one loads into the other; what has changed is told."""
    params = {"w": weight([[1.0, -2.0]])}
    with_budget, without = sx.sign_sgd(RATE, budget=FOUR), sx.sign_sgd(2 * RATE)
    a, b = with_budget.init(params), without.init(params)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    old = sx.export_laws(b)
    assert "budget" not in json.dumps(old)
    with pytest.warns(UserWarning, match=r"budget is None in the export, \(batch 4, "):
        sx.check_laws(a, old)
    twin = sx.Budget(dataclasses.replace(malladi, name="twin"), batch=4, base_batch=1)
    exported = json.loads(json.dumps(sx.export_laws(a)))
    sx.check_laws(sx.sign_sgd(RATE, budget=twin).init(params), exported)
    decaying = sx.adamw(RATE, **decays(2.0**-9), budget=COMPLETED, **BETAS).init(params)
    rules = sx.export_laws(decaying)["rules"]
    assert rules["2/rule"]["budget"]["decay"] == "batch^1 tokens^-1 width^0"


def test_a_converted_model_keeps_its_budget():
    def make(width: int) -> eqx.nn.MLP:
        return eqx.nn.MLP(2, 1, width, depth=1, key=jax.random.key(0))

    rule = malladi.with_decay(DecayRule("mine", width=LayerExponents(0, "-1/2", "1/2"), batch=1))
    tx = sx.adamw(RATE, **decays(2.0**-9), b1=0.75, budget=sx.Budget(rule, batch=4, base_batch=1))
    model = sx.parameterize(make, width=16, base_width=4, parameterization=sx.standard)
    model = eqx.filter(model, eqx.is_inexact_array)
    converted, state = sx.convert(model, tx.init(model), to=sx.ntk, tx=tx)

    def moved(model: Any, state: Any) -> list[np.ndarray]:
        updates, _ = tx.update(jax.tree.map(jnp.zeros_like, model), state, model)
        new = sx.resolve(optax.apply_updates(model, updates))
        return [np.asarray(x) for x in jax.tree.leaves(new)]

    for x, y in zip(moved(model, tx.init(model)), moved(converted, state), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


def tx_with(**more: Any) -> Any:
    return sx.adamw(RATE, 1e-3, decay_mode="coupled", budget=COMPLETED, **more)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: sx.adam(RATE, b1=0.7, budget=FOUR),
            r"b1 is 0\.7 at the base, and budget rule 'malladi' makes it -0\.2, as 1 - b1 grows by "
            r"4; .*nearer to 1, or a larger base_batch: 128 is too large a batch",
        ),
        (
            lambda: sx.adam_atan2(RATE, b2=0.1, budget=FOUR),
            r"b2 is 0\.1 at the base.* makes it -2\.6",
        ),
        (
            lambda: sx.adam(
                RATE,
                budget=sx.Budget(
                    sx.theory.completed_p, batch=1, base_batch=1, tokens=1e20, base_tokens=1
                ),
            ),
            r"makes it 1, as 1 - b1 grows by 1e-20; .*further from 1: the training is too long",
        ),
        (lambda: sx.adam(RATE, b1=1.5, budget=FOUR), r"b1 is 1\.5; expected a finite number"),
        (lambda: sx.adam(-1.0, budget=FOUR), r"learning_rate is -1\.0; expected"),
        (lambda: sx.adam(RATE, eps=-1.0, b1=0.8, budget=FOUR), r"eps is -1\.0; expected"),
        (
            lambda: sx.sgd(RATE, budget=FOUR),
            r"'malladi' is for updates of one size, .*of family sgd, .*theory\.malladi_sgd",
        ),
        (
            lambda: sx.adam(RATE, budget=FOUR_SGD),
            r"'malladi SGD' is for updates as large as the gradient, .*theory\.malladi or",
        ),
        (tx_with, r"'Complete\(d\)P' says how .* the width \(width\^0\); coupled decay's follows"),
        (
            lambda: sx.sign_sgd(
                RATE,
                **decays(0.5),
                budget=sx.Budget(
                    malladi.with_decay(DecayRule("mine", batch=1)), batch=4, base_batch=1
                ),
            ),
            r"weight_decay is 0\.5 at the base and 2 with the budget: a step would take away more",
        ),
    ],
)
def test_errors(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_a_rule_does_not_say_of_a_beta():
    silent = dataclasses.replace(malladi, one_minus_b2=Growth(None))
    with pytest.raises(ValueError, match="how one_minus_b2 follows the batch size"):
        sx.adam(RATE, b1=0.75, budget=sx.Budget(silent, batch=4, base_batch=1))
    with pytest.raises((ValueError, TypeCheckError)):
        sx.adam(RATE, budget=4)  # pyright: ignore[reportArgumentType]
