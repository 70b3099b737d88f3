"""Rules that look at each example's gradient, against float64 NumPy and against their relatives."""

import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx._needed import statistics_needed

from .._statistics import statistics_of, with_statistics

B, STEPS = 4, 3
B1, B2, EPS = 0.8, 0.9, 1e-6


@pytest.fixture
def params(weight):
    random = np.random.default_rng(0)
    shapes = {"embedding": (4, 3), "hidden": (4, 6)}
    return {role: weight(random.normal(size=shape), role) for role, shape in shapes.items()}


def total(model: Any, g: Any) -> Any:
    products = [jnp.vdot(model[role].value, g[role].value) for role in model]
    return jnp.sum(jnp.stack(products))


def of_examples(params: Any, gradients: Any) -> sx.GradientStatistics:
    """The statistics of examples whose gradients are given, by the library's own call."""
    return sx.gradient_statistics(
        total,
        params,
        gradients,
        statistics=("square", "sign", "clipped"),
        clip=3.0,
    )


def batches(params: Any) -> list[Any]:
    random = np.random.default_rng(1)
    return [
        jax.tree.map(lambda x: jnp.asarray(random.normal(0.3, 1.0, (B, *x.shape)), x.dtype), params)
        for _ in range(STEPS)
    ]


def updates_of(tx: Any, params: Any) -> list[Any]:
    state, step, seen = tx.init(params), jax.jit(tx.update), []
    for gradients in batches(params):
        found = of_examples(params, gradients)
        updates, state = step(found.gradient, state, params, statistics=found)
        seen.append(updates)
    return seen


def second_input(second: str, g: np.ndarray) -> np.ndarray:
    """What is averaged, from the examples themselves: NumPy's variance and its own formulas."""
    mean, square = g.mean(0), (g**2).mean(0)
    if second == "square":
        return square
    variance = g.var(0, ddof=1)
    if second == "variance":
        return np.maximum(variance, square / 100)
    return np.maximum(mean**2 - variance / len(g), mean**2 / 100)


@pytest.mark.parametrize("second", ["square", "variance", "mean"])
def test_micro_adam_is_its_formula(second: Any, params):
    tx = sx.optim.scale_by_micro_adam(
        B1, B2, EPS, second=second, eps_scaling="constant", moment_dtype=None
    )
    found = updates_of(tx, params)
    for role in params:
        m, v = 0.0, 0.0
        for t, gradients in enumerate(batches(params), start=1):
            g = np.asarray(gradients[role].value, np.float64)
            m = B1 * m + (1 - B1) * g.mean(0)
            v = B2 * v + (1 - B2) * second_input(second, g)
            expected = m / (1 - B1**t) / (np.sqrt(v / (1 - B2**t)) + EPS)
            # Differences of sums of four float32 numbers lose a few of 24 bits.
            np.testing.assert_allclose(found[t - 1][role].value, expected, rtol=3e-5)
            other = "variance" if second == "square" else "square"
            assert np.abs(second_input(other, g) / second_input(second, g) - 1).max() > 0.1


def test_estimates_are_of_what_they_say():
    """Means over many batches; the bound of the last leaves the share that the docstring states."""
    random, mu, sigma, n, size = np.random.default_rng(2), 0.5, 2.0, 200_000, 8
    g = mu + sigma * random.normal(size=(size, n))
    # Standard errors: of the square 2.1 / sqrt(n B), of the others below 8 / sqrt(n).
    assert second_input("square", g).mean() == pytest.approx(mu**2 + sigma**2, abs=0.03)
    assert second_input("variance", g).mean() == pytest.approx(sigma**2, abs=0.03)
    unbounded = g.mean(0) ** 2 - g.var(0, ddof=1) / size
    assert unbounded.mean() == pytest.approx(mu**2, abs=0.01)
    # Over many examples the bound of 1/100 leaves 2 phi(1) + 0.002 of the variance of the mean.
    z2 = random.normal(size=10**6) ** 2
    assert np.maximum(z2 - 1, z2 / 100).mean() == pytest.approx(0.486, abs=0.005)


@pytest.mark.parametrize("placement", ["last", "mean", "example"])
def test_sign_ema_is_its_formula(placement: Any, params):
    found = updates_of(sx.optim.scale_by_sign_ema(B1, placement=placement), params)
    for role in params:
        m = 0.0
        for t, gradients in enumerate(batches(params), start=1):
            g = np.asarray(gradients[role].value, np.float64)
            signed = {
                "last": g.mean(0),
                "mean": np.sign(g.mean(0)),
                "example": np.sign(g).mean(0),
            }
            assert not np.array_equal(signed["mean"], signed["example"])
            m = B1 * m + (1 - B1) * signed[placement]
            expected = np.sign(m) if placement == "last" else m / (1 - B1**t)
            np.testing.assert_allclose(found[t - 1][role].value, expected, atol=1e-6)


def test_clipped_mean_has_the_mean_and_the_noise_that_it_says(weight):
    wide = {"hidden": weight(np.zeros((300, 200)), "hidden")}
    gradient = jax.tree.map(jnp.ones_like, wide)
    found = statistics_of(gradient)
    key = jax.random.key(3)
    tx = sx.optim.clipped_mean(3.0, noise_multiplier=0.5, key=key)
    state = tx.init(wide)
    one: Any
    one, state = tx.update(gradient, state, wide, statistics=found)
    two: Any
    two, _ = tx.update(gradient, state, wide, statistics=found)
    noise = [np.asarray(x["hidden"].value) - 1 for x in (one, two)]
    # 60,000 numbers: their deviation is known to 0.3 %, and 0.5 * 3 / 2 examples is 0.75.
    assert noise[0].std() == pytest.approx(0.75, rel=0.015)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.02
    again: Any
    again, _ = tx.update(gradient, tx.init(wide), wide, statistics=found)
    assert np.array_equal(again["hidden"].value, one["hidden"].value)
    plain: Any
    plain, _ = sx.optim.clipped_mean(3.0).update(
        gradient, sx.optim.clipped_mean(3.0).init(wide), wide, statistics=found
    )
    assert np.array_equal(plain["hidden"].value, gradient["hidden"].value)
    assert statistics_needed(optax.chain(tx, sx.adam(1e-3)), wide) == {
        "statistics": ("clipped",),
        "clip": 3.0,
    }


def test_with_examples_that_agree_it_is_adam(params):
    """Bit for bit: their mean square is the square of their mean."""
    gradient = jax.tree.map(lambda x: x + 0.5, params)
    same = eqx.tree_at(
        lambda s: s.square, statistics_of(gradient), jax.tree.map(jnp.square, gradient)
    )
    states = [tx.init(params) for tx in (sx.adam(0.1), sx.micro_adam(0.1))]
    adam: Any
    adam, _ = sx.adam(0.1).update(gradient, states[0], params)
    micro: Any
    micro, _ = sx.micro_adam(0.1).update(gradient, states[1], params, statistics=same)
    for a, b in zip(jax.tree.leaves(adam), jax.tree.leaves(micro), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("name", ["micro_adam", "sign_ema", "clipped_mean"])
def test_statistics_that_are_missing_are_asked_for(name: str, params):
    tx = {
        "micro_adam": sx.micro_adam(0.1),
        "sign_ema": sx.sign_ema(0.1, placement="example"),
        "clipped_mean": sx.optim.clipped_mean(1.0),
    }[name]
    needed = {"micro_adam": "square", "sign_ema": "sign", "clipped_mean": "clipped"}[name]
    gradient, state = jax.tree.map(jnp.ones_like, params), tx.init(params)
    call = rf"gradient_statistics\(loss, model, batch, statistics=\('{needed}',"
    with pytest.raises(ValueError, match=rf"none are given. Take found = scalex_eqx.{call}"):
        tx.update(gradient, state, params)
    lacking = eqx.tree_at(
        lambda s: getattr(s, needed), statistics_of(gradient), None, is_leaf=lambda x: x is None
    )
    with pytest.raises(ValueError, match=f"those given lack '{needed}'"):
        tx.update(gradient, state, params, statistics=lacking)
    other = statistics_of({"hidden": gradient["hidden"]})
    with pytest.raises(ValueError, match=f"statistics.{needed} is no tree like the gradients"):
        tx.update(gradient, state, params, statistics=other)
    shapes = statistics_of(jax.tree.map(lambda x: x[:1], gradient))
    with pytest.raises(ValueError, match=r"at embedding; expected an array like the gradient's"):
        tx.update(gradient, state, params, statistics=shapes)


def test_one_example_has_no_variance(params):
    tx, gradient = sx.micro_adam(0.1, second="variance"), jax.tree.map(jnp.ones_like, params)
    one = jax.tree.map(lambda x: x[:1], batches(params)[0])
    found = of_examples(params, one)
    with pytest.raises(ValueError, match=r"at least 2 examples .* statistics are of 1"):
        tx.update(gradient, tx.init(params), params, statistics=found)


def wrong(value: str) -> Any:
    """Of no type that is checked before it is run."""
    return value


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sx.micro_adam(0.1, second=wrong("var")), "second is 'var'; expected 'square'"),
        (
            lambda: sx.sign_ema(0.1, placement=wrong("first")),
            "placement is 'first'; expected",
        ),
        (lambda: sx.optim.clipped_mean(0.0), "clip is 0.0; expected a norm greater than 0"),
        (lambda: sx.optim.clipped_mean(1.0, noise_multiplier=1.0), "pass key="),
        (lambda: sx.optim.clipped_mean(1.0, key=jax.random.key(0)), "leave key out"),
    ],
)
def test_what_is_not_meant_is_refused(make: Any, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_arrays_without_a_law_and_masks_take_statistics_too(params):
    bare = {"a": jnp.ones(3), "b": jnp.ones(2)}
    tx = with_statistics(sx.micro_adam(0.1, unannotated="constant"))
    updates: Any
    updates, _ = tx.update(bare, tx.init(bare), bare)
    np.testing.assert_allclose(updates["a"], -0.1 / np.sqrt(1.25), rtol=1e-6)
    masked = with_statistics(optax.masked(sx.micro_adam(0.1), {"embedding": True, "hidden": False}))
    updates, _ = masked.update(params, masked.init(params), params)
    assert np.array_equal(updates["hidden"].value, params["hidden"].value)
    assert not np.array_equal(updates["embedding"].value, params["embedding"].value)


BUDGETS = [
    # What the rule divides by, what the batch rule is for, and whether that is right.
    ("adam", "malladi", True),
    ("adam", "micro_adam", False),
    ("micro_adam", "micro_adam", True),
    ("micro_adam", "malladi", False),
    ("sign_ema", "malladi", True),
]


@pytest.mark.parametrize(("optimizer", "rule", "right"), BUDGETS)
def test_the_plan_warns_of_a_batch_rule_for_other_updates(optimizer, rule, right, params):
    budget = sx.Budget(sx.theory.budget_rules[rule], batch=8, base_batch=2)
    plan = sx.plan(params, getattr(sx, optimizer)(0.1, budget=budget))
    warned = [line for line in plan.warnings if "budget rule" in line]
    assert bool(warned) != right
    if warned:
        remedy = "malladi" if optimizer == "adam" else "micro_adam"
        assert warned[0].endswith(f"take scalex_eqx.theory.{remedy}")
    lines = "\n".join(plan.optimizer)
    power = "batch^1/2 = 2" if rule == "malladi" else "batch^1 = 4"
    assert f"learning rate: {power}" in lines
    if optimizer != "sign_ema":
        assert f"eps: {'batch^-1/2 = 0.5' if rule == 'malladi' else 'stays'}" in lines


def test_a_mean_of_examples_signs_grows_as_micro_adam_does(params):
    budget = sx.Budget(sx.theory.malladi, batch=8, base_batch=2)
    plan = sx.plan(params, sx.sign_ema(0.1, placement="example", budget=budget))
    assert any("scale_by_sign_ema divides by the gradients of its" in x for x in plan.warnings)
