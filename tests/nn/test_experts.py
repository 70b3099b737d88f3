"""Experts against NumPy: routing and outputs, one token and expert at a time."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx import nn

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
FEATURES, INNER, EXPERTS = 6, 5, 4


def mixture(top_k: int = 2, experts: int = EXPERTS, **arguments) -> nn.MixtureOfExperts:
    return nn.MixtureOfExperts(FEATURES, INNER, experts=experts, top_k=top_k, key=KEY, **arguments)


def array(weight) -> np.ndarray:
    return np.asarray(weight.value, np.float64)


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x - np.max(x)) / np.sum(np.exp(x - np.max(x)))


def oracle(model, x: np.ndarray, top_k: int, gates: str) -> tuple[np.ndarray, np.ndarray]:
    logits = array(model.router.weight) @ x
    best = np.argsort(-logits)[:top_k]
    weights = softmax(logits[best]) if gates == "chosen" else softmax(logits)[best]
    y = np.zeros_like(x)
    for expert, weight in zip(best, weights, strict=True):
        gate, up, down = (
            array(layer.weight)[expert]
            for layer in (model.experts.gate, model.experts.up, model.experts.down)
        )
        gated = gate @ x
        y += weight * down @ (gated / (1 + np.exp(-gated)) * (up @ x))
    return y, best


@pytest.mark.parametrize(("top_k", "gates"), [(2, "chosen"), (2, "all"), (1, "all"), (4, "chosen")])
def test_it_is_the_sum_of_the_best_experts(top_k: int, gates: str, draw, x64):
    model = draw(lambda: mixture(top_k, gates=gates))
    x = 2 * RNG.normal(size=(7, FEATURES))
    y, routing = eqx.filter_jit(jax.vmap(model))(jnp.asarray(x))
    for i, row in enumerate(x):
        expected, best = oracle(model, row, top_k, gates)
        np.testing.assert_allclose(y[i], expected, rtol=1e-12, atol=1e-12)
        assert set(np.flatnonzero(routing.chosen[i])) == set(best)
        np.testing.assert_allclose(
            routing.probabilities[i], softmax(array(model.router.weight) @ row), rtol=1e-12
        )


def test_ties_still_choose_as_many(draw):
    model = eqx.tree_at(lambda m: m.router.weight.value, draw(mixture), jnp.zeros((4, FEATURES)))
    _, routing = model(jnp.ones(FEATURES))
    assert int(routing.chosen.sum()) == 2


def test_the_load_loss(x64):
    probabilities = softmax(RNG.normal(size=(3, 5, EXPERTS)))
    chosen = np.zeros((3, 5, EXPERTS), bool)
    chosen[..., :2] = True
    chosen[0, 0] = [False, True, False, True]
    shares = [chosen[..., e].sum() / chosen.sum() for e in range(EXPERTS)]
    means = [probabilities[..., e].mean() for e in range(EXPERTS)]
    expected = EXPERTS * sum(f * p for f, p in zip(shares, means, strict=True))
    routing = nn.Routing(jnp.asarray(probabilities), jnp.asarray(chosen))
    assert float(nn.load_loss(routing)) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize(("chosen", "expected"), [(np.eye(4, dtype=bool), 1), (np.eye(4)[:1], 4)])
def test_the_load_loss_of_even_and_of_one_sided_choices(chosen, expected: int):
    routing = nn.Routing(jnp.asarray(chosen, jnp.float32), jnp.asarray(chosen, bool))
    assert float(nn.load_loss(routing)) == expected


def test_gradients_reach_the_chosen_experts_and_the_router(draw):
    model, x = draw(mixture), jnp.asarray(RNG.normal(size=FEATURES), jnp.float32)
    _, best = oracle(model, np.asarray(x, np.float64), 2, "chosen")
    gradient = eqx.filter_jit(eqx.filter_grad(lambda model: jnp.sum(model(x)[0] ** 2)))(model)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
    for layer in (gradient.experts.gate, gradient.experts.up, gradient.experts.down):
        trained = np.flatnonzero(np.any(np.asarray(layer.weight.value) != 0, axis=(1, 2)))
        assert set(trained) == set(best)
    trained = np.flatnonzero(np.any(np.asarray(gradient.router.weight.value) != 0, axis=1))
    assert set(trained) == set(best)


def test_the_load_loss_trains_the_router_alone(draw):
    model, x = draw(mixture), jnp.asarray(RNG.normal(size=(7, FEATURES)), jnp.float32)
    gradient = eqx.filter_grad(lambda model: nn.load_loss(jax.vmap(model)(x)[1]))(model)
    assert np.all(np.any(np.asarray(gradient.router.weight.value) != 0, axis=1))
    assert not np.any(gradient.experts.up.weight.value)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_it_keeps_the_dtype_and_routes_in_float32(dtype: str):
    run = lambda: mixture(dtype=dtype)(jnp.ones(FEATURES, dtype))  # noqa: E731
    y, routing = eqx.filter_eval_shape(run)
    assert y.dtype == jnp.dtype(dtype)
    assert routing.probabilities.dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 5}, "top_k is 5, of 4 experts"),
        ({"top_k": 0}, "top_k is 0; expected a positive integer"),
        ({"experts": 0}, "experts is 0"),
        ({"top_k": 1}, "the gate of a single expert 1 whatever the router says.*gates='all'"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(arguments, message: str):
    with pytest.raises(ValueError, match=message):
        mixture(**arguments)


def test_an_unknown_kind_of_gates_is_refused():
    """Where a runtime type checker is at work, it refuses first, with the same two values."""
    with pytest.raises((ValueError, TypeError), match=r"(?s)chosen.*all"):
        mixture(gates="best")


@pytest.mark.parametrize("parameterization", [sx.standard, sx.ntk, sx.mup, sx.mean_field])
def test_the_laws_of_its_weights(parameterization):
    """Each expert has the law of a layer of its own, the router hidden's in its fan-in."""

    def make():
        return sx.parameterize(
            lambda width: nn.MixtureOfExperts(width, 3 * width, experts=4, top_k=2, key=KEY),
            width=32,
            base_width=8,
            parameterization=parameterization,
        )

    weights = sx.weights_with_paths(eqx.filter_eval_shape(make))
    found = {path: (w.spec.role, w.spec.width_ratio) for path, w in weights.items()}
    assert set(found.values()) == {(sx.Role.hidden, 4)}
    assert weights["router/weight"].spec.size_ratio("fan_out") == 1
    assert weights["experts/down/weight"].spec.stack_axes(3) == (0,)
