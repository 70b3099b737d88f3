"""What is put beside a rule: cautious updates and decay, clipping by layer, means of weights.

Under every rule of the library. Rules that stand alone are held against NumPy in float64; together
with all of it they take the same steps in an equivalent parameterization.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx import optim
from scalex_eqx.optim._catalogue import catalogue

from .._statistics import with_statistics

RNG = np.random.default_rng(0)
SHAPES = {"emb": (6, 3), "w": (6, 6), "out": (2, 6), "bias": (6,)}
ROLES = {"emb": "embedding", "w": "hidden", "out": "readout", "bias": "vector"}
VALUES = {name: RNG.normal(size=shape) for name, shape in SHAPES.items()}
GRADIENTS = [{name: RNG.normal(size=shape) for name, shape in SHAPES.items()} for _ in range(4)]
GRADIENTS[1]["emb"][2] = 0.0
RATE, DECAY, LIMIT, BETA = 0.01, 0.1, 0.3, 0.9


def bare(name: str) -> Any:
    # Widths of the tests are narrower than what is factored in sweeps.
    options = {"adafactor": {"min_factored_size": 2}}.get(name, {})
    rule = catalogue[name].rule(**options)
    return with_statistics(rule) if name == "micro_adam" else rule


def tree(weight: Any, values: Any, parameterization: Any, *, is_gradient: bool = False) -> Any:
    """Weights of those effective values, or gradients for such of effective weights."""
    found = {}
    for name, x in values.items():
        like = weight(x, ROLES[name], parameterization=parameterization)
        unit = like.spec.multiplier
        found[name] = sx.Weight(like.value * (unit if is_gradient else 1 / unit), like.spec)
    return found


def arrays(found: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(w.value, np.float64) for name, w in found.items()}


@pytest.mark.parametrize("name", catalogue)
def test_a_cautious_rule_is_the_rule_where_it_goes_along_with_the_gradient(weight, name, x64):
    params = tree(weight, VALUES, sx.standard)
    plain, wary = bare(name), optim.cautious(bare(name))
    state, own = plain.init(params), wary.init(params)
    for gradient in GRADIENTS:
        given = tree(weight, gradient, sx.standard, is_gradient=True)
        update, state = plain.update(given, state, params)
        found, own = wary.update(given, own, params)
        for path, u in arrays(update).items():
            g = np.asarray(given[path].value)
            along = u * g > 0
            expected = u * along / max(along.sum() / (g != 0).sum(), 1e-3)
            np.testing.assert_allclose(arrays(found)[path], expected, rtol=1e-12)


def test_the_share_is_that_of_each_stacked_weight_and_at_least_a_thousandth(weight):
    stack = weight(np.ones((2, 40, 50)))
    spec = stack.spec
    momentum: Any = optax.stateless(lambda g, p: stack)
    gradient = -np.ones((2, 40, 50), np.float32)
    gradient[0, 0, 0] = gradient[1, :20] = 1.0
    tx: Any = optim.cautious(momentum)
    found, _ = tx.update(sx.Weight(jnp.asarray(gradient), spec), tx.init(stack), stack)
    # One of 2,000 would be multiplied by 2,000.
    np.testing.assert_allclose(np.unique(found.value[0]), [0, 1000])
    np.testing.assert_allclose(np.unique(found.value[1]), [0, 2])


def test_a_cautious_rule_hides_no_nan_and_tells_signs_of_small_numbers(weight):
    tx: Any = optim.cautious(optim.scale_by_momentum(0.9))
    w = {"w": weight(np.ones((2, 2)))}
    small = {"w": weight(np.full((2, 2), 1e-30))}
    update, state = tx.update(small, tx.init(w), w)
    np.testing.assert_allclose(update["w"].value, 1e-30, rtol=1e-6)
    broken = {"w": weight(np.array([[np.nan, 1.0], [1.0, 1.0]]))}
    update, _ = tx.update(broken, state, w)
    assert np.isnan(update["w"].value[0, 0])


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_cautious_around_a_whole_optimizer_is_refused(weight, name):
    with pytest.raises(ValueError, match="put it around the rule alone"):
        optim.cautious(catalogue[name].maker(0.1)).init(tree(weight, VALUES, sx.standard))


@pytest.mark.parametrize("mode", ["cautious_coupled", "cautious_independent"])
def test_an_entry_decays_only_where_its_update_goes_towards_zero(weight, mode, x64):
    params = tree(weight, VALUES, sx.standard)
    given = tree(weight, GRADIENTS[0], sx.standard, is_gradient=True)
    plain, wary = (
        optim.sgd(RATE, sx.global_rate, weight_decay=DECAY, decay_mode=m)
        for m in (mode.removeprefix("cautious_"), mode)
    )
    update, _ = plain.update(given, plain.init(params), params)
    found, _ = wary.update(given, wary.init(params), params)
    share = DECAY * (RATE if mode == "cautious_coupled" else 1.0)
    for path, g in arrays(given).items():
        w, decays = arrays(params)[path], path != "bias"
        expected = -RATE * g - share * w * (w * g >= 0) * decays
        np.testing.assert_allclose(arrays(found)[path], expected, rtol=1e-12)
        assert decays == bool(np.any(arrays(update)[path] != arrays(found)[path]))


def test_clipping_by_layer_follows_the_gradient(weight, x64):
    """Where all gradients fall as their law says, it clips as much at every width."""
    tx: Any = optim.clip_by_rms(LIMIT, threshold_scaling="gradient")
    constant: Any = optim.clip_by_rms(LIMIT)
    shares = {}
    for ratio in (1, 16):
        for role in ("hidden", "readout", "vector"):
            w = weight(np.ones((4, 4)) if role != "vector" else np.ones(4), role, ratio=ratio)
            size = w.spec.scale(w.spec.gradient_power)
            gradient = sx.Weight(w.value * size, w.spec)
            for which, rule in (("scaled", tx), ("constant", constant)):
                found, _ = rule.update(gradient, rule.init(gradient))
                shares[which, role, ratio] = float(np.max(found.value / gradient.value))
    assert all(shares["scaled", role, 16] == LIMIT for role in ("hidden", "readout", "vector"))
    # The control: the gradient of a hidden weight under muP falls as 1/r, below the threshold.
    assert shares["constant", "hidden", 1] == LIMIT and shares["constant", "hidden", 16] == 1


@pytest.mark.parametrize("beta", [None, BETA])
@pytest.mark.parametrize("name", catalogue)
def test_the_mean_is_that_of_the_weights_after_each_step(weight, name, beta, x64):
    plain = optax.chain(bare(name), optim.scale_by_learning_rate(RATE))
    tx = optim.average_weights(plain, beta)
    params = tree(weight, VALUES, sx.standard)
    state, seen, means = tx.init(params), [], []
    assert arrays(optim.averaged(state, params)).keys() == VALUES.keys()
    np.testing.assert_array_equal(optim.averaged(state, params)["w"].value, params["w"].value)
    for gradient in GRADIENTS:
        given = tree(weight, gradient, sx.standard, is_gradient=True)
        update, state = tx.update(given, state, params)
        params = optax.apply_updates(params, update)
        seen.append(arrays(params))
        means.append(arrays(optim.averaged({"in": (state,)}, params)))
    for t, mean in enumerate(means, 1):
        weights = [1.0 if beta is None else beta ** (t - i) for i in range(1, t + 1)]
        for path in SHAPES:
            expected = np.average([one[path] for one in seen[:t]], axis=0, weights=weights)
            np.testing.assert_allclose(mean[path], expected, rtol=1e-6, atol=1e-9)


def test_a_mean_of_narrow_weights_moves_where_a_step_of_it_would_be_lost(weight):
    """A thousandth of a step of 2^-6 is nothing to a bfloat16 number near 1."""
    w = {"w": weight(np.ones((2, 2)), dtype="bfloat16")}
    tx = optim.average_weights(optax.stateless(lambda g, p: g), 0.999)
    state = tx.init(w)
    step = {"w": weight(np.full((2, 2), 2.0**-6), dtype="bfloat16")}

    @jax.jit
    def several(w, state):
        def one(carry, _):
            w, state = carry
            update, state = tx.update(step, state, w)
            return (optax.apply_updates(w, update), state), None

        return jax.lax.scan(one, (w, state), length=64)[0]

    w, state = several(w, state)
    # From 1 by 2^-6 to 2, all exact; the weights of the mean are nearly equal.
    expected = np.average(1 + np.arange(1, 65) * 2.0**-6, weights=0.999 ** np.arange(63, -1, -1))
    assert state.average["w"].value.dtype == jnp.float32
    np.testing.assert_allclose(state.average["w"].value, expected, rtol=1e-5)
    assert optim.averaged(state, w)["w"].value.dtype == jnp.bfloat16


def test_a_state_without_a_mean_is_named(weight):
    params = tree(weight, VALUES, sx.standard)
    with pytest.raises(ValueError, match="keeps no means of the weights; expected one"):
        optim.averaged(sx.adam(0.1).init(params), params)


def everything(name: str, *, threshold_scaling: Any = "gradient") -> Any:
    """A rule with all that can stand beside it."""
    chain = optax.chain(
        optim.clip_by_rms(LIMIT, threshold_scaling=threshold_scaling),
        optim.cautious(bare(name)),
        sx.scale_by_width(catalogue[name].family, sx.full_alignment),
        optim.scale_by_learning_rate(RATE),
        optim.add_weight_decay(-DECAY, cautious=True),
    )
    return optim.average_weights(chain, BETA)


def effective(params: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(sx.effective(w)) for name, w in params.items()}


def steps(weight: Any, tx: Any, turn: bool) -> list[dict[str, np.ndarray]]:
    """The effective weights after each step, and their mean; with `turn` in NTK from the second."""
    law, params = sx.standard, tree(weight, VALUES, sx.standard)
    state, seen = tx.init(params), []
    for i, gradient in enumerate(GRADIENTS):
        if turn and i == 1:
            law = sx.ntk
            params, state = sx.convert(params, state, to=law, tx=tx)
        update, state = tx.update(tree(weight, gradient, law, is_gradient=True), state, params)
        params = optax.apply_updates(params, update)
        seen.append(effective(params))
    return [*seen, effective(optim.averaged(state, params))]


@pytest.mark.parametrize("name", catalogue)
def test_with_all_of_it_a_conversion_goes_on_with_the_same_steps(weight, name, x64):
    tx = everything(name)
    straight, turned = (steps(weight, tx, turn) for turn in (False, True))
    for one, other in zip(straight, turned, strict=True):
        for path, x in one.items():
            np.testing.assert_allclose(other[path], x, rtol=1e-6, err_msg=path)


def test_a_constant_threshold_in_front_of_the_rule_is_refused(weight, x64):
    with pytest.raises(ValueError, match="threshold of clip_by_rms would have to change"):
        steps(weight, everything("sgd", threshold_scaling="constant"), True)


def test_the_plan_has_a_word_for_each(weight):
    params = tree(weight, VALUES, sx.standard)
    said = str(sx.plan(params, everything("adam")))
    for words in (
        "average_weights: decay 0.9",
        "clip_by_rms: threshold 0.3 (scales as the gradient)",
        "cautious: moves what goes along with the gradient",
        "add_weight_decay: weight_decay 0.1, cautious True",
    ):
        assert words in said
    assert "not this library's" not in said
