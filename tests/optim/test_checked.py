"""What a rule refuses before it looks at a number, and what it takes."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx

from ._every import every

RULES: dict[str, Any] = {
    **every(0.1),
    "momentum": lambda: sx.sgd(0.1, momentum=0.9),
    "scale_by_width": lambda: sx.scale_by_width("adam", sx.full_alignment),
    "clip_by_effective_norm": lambda: sx.clip_by_effective_norm(1.0),
    "clip_by_rms": lambda: sx.optim.clip_by_rms(1.0),
    "skip_nonfinite": lambda: sx.optim.skip_nonfinite(sx.adam(0.1)),
    "master": lambda: sx.optim.low_precision(sx.adam(0.1), "master"),
    "kahan": lambda: sx.optim.low_precision(sx.adam(0.1), "kahan"),
    "chain": lambda: optax.chain(optax.identity(), sx.adam(0.1)),
    "injected": lambda: optax.inject_hyperparams(sx.adam)(0.1),
}
WITHOUT_MEMORY = ("sgd", "sign_sgd", "scale_by_width", "clip_by_effective_norm", "clip_by_rms")


@pytest.fixture(params=RULES)
def name(request) -> str:
    return request.param


@pytest.fixture
def params(weight):
    return {"w": weight(np.ones((2, 3))), "b": weight(np.ones(3), "vector")}


def updated(tx: Any, grads: Any, params: Any) -> Any:
    return tx.update(grads, tx.init(params), params)[0]


def with_value(weight: sx.Weight, value: Any) -> Any:
    return sx.Weight(value, weight.spec)


# By what is wrong: gradients, and what the error says beside the path.
WRONG: dict[str, tuple[Any, str]] = {
    "law": (
        lambda p, weight: {"w": weight(np.ones((2, 3)), parameterization=sx.ntk)},
        "w: the gradients have another law: parameterization is ntk; expected mup",
    ),
    "width": (
        lambda p, weight: {"w": weight(np.ones((2, 3)), ratio=8)},
        "w: the gradients have another law: width_ratio is 8; expected 4",
    ),
    "role": (
        lambda p, weight: {"w": weight(np.ones((2, 3)), "readout")},
        "w: the gradients have another law: role is readout; expected hidden",
    ),
    "no gradient": (
        lambda p, weight: {"w": with_value(p["w"], None)},
        r"w: the gradient is None; expected float32\[2,3\]",
    ),
    "nothing": (
        lambda p, weight: {"w": None},
        r"w: the gradient is None; expected float32\[2,3\]",
    ),
    "number": (
        lambda p, weight: {"w": with_value(p["w"], 3.0)},
        r"w: the gradient is 3.0; expected float32\[2,3\]",
    ),
    "shape": (
        lambda p, weight: {"w": with_value(p["w"], jnp.ones((3, 2)))},
        r"w: the gradient is float32\[3,2\]; expected float32\[2,3\]",
    ),
    "broadcast shape": (
        lambda p, weight: {"w": with_value(p["w"], jnp.ones((1, 3)))},
        r"w: the gradient is float32\[1,3\]; expected float32\[2,3\]",
    ),
    "integers": (
        lambda p, weight: {"w": with_value(p["w"], jnp.full((2, 3), 3))},
        "w: the gradient is int32; expected floating-point numbers",
    ),
    "truth values": (
        lambda p, weight: {"w": with_value(p["w"], np.ones((2, 3), bool))},
        "w: the gradient is bool; expected floating-point numbers",
    ),
    "float0": (
        lambda p, weight: {"w": with_value(p["w"], np.zeros((2, 3), jax.dtypes.float0))},
        "w: the gradient is float0; expected floating-point numbers",
    ),
    "complex": (
        lambda p, weight: {"w": with_value(p["w"], jnp.full((2, 3), 1j))},
        "w: the gradient is complex64",
    ),
    "float8": (
        lambda p, weight: {"w": with_value(p["w"], jnp.ones((2, 3), jnp.float8_e4m3fn))},
        "w: the gradient is float8_e4m3fn, in which most updates are 0",
    ),
    "a path more": (
        lambda p, weight: {"c": weight(np.ones((2, 3)))},
        r"c: only in the gradients, not in",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_does_not_belong_together_is_named(name: str, wrong: str, params, weight):
    tx, (make, message) = RULES[name](), WRONG[wrong]
    state = tx.init(params)
    grads = params | make(params, weight)
    with pytest.raises(ValueError, match=message):
        tx.update(grads, state, params)
    if name not in (*WITHOUT_MEMORY, "master", "kahan"):
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(tx.update, grads, state) if wrong == "law" else tx.update(grads, state)
    tx.update(params, state, params)


def test_weights_of_another_model_are_named(name: str, params, weight):
    tx = RULES[name]()
    others = {"w": weight(np.ones((2, 3)), parameterization=sx.standard), "b": params["b"]}
    # Without a memory, the weights are all that the gradients can be compared with.
    whose = "gradients" if name in WITHOUT_MEMORY else "weights"
    with pytest.raises(ValueError, match=f"w: the {whose} have another law: parameterization"):
        tx.update(params, tx.init(params), others)


def test_a_state_of_other_weights_is_named(name: str, params):
    tx = RULES[name]()
    if name in WITHOUT_MEMORY:
        return
    with pytest.raises(ValueError, match="b: only in the gradients, not in state"):
        tx.update(params, tx.init({"w": params["w"]}), params)


def test_a_state_of_another_rule_is_named(name: str, params):
    tx = RULES[name]()
    if name in ("chain", "injected"):
        return  # Optax's own come first there.
    for make in RULES.values():
        state = make().init(params)
        if jax.tree.structure(state) == jax.tree.structure(tx.init(params)):
            continue
        with pytest.raises(ValueError, match=r"the state is .*expected"):
            tx.update(params, state, params)


def test_a_state_of_other_rates_is_named(params):
    tx, other = sx.adam(0.1), sx.adam(0.1, sx.no_alignment)
    with pytest.raises(ValueError, match=r"the state is that of scale_by_width with rates .*none"):
        tx.update(params, other.init(params), params)


def test_masks_and_filters_on_all_sides_are_taken(name: str, params, weight):
    """The update of what is left is the one without the rest."""
    tx = RULES[name]()
    model = params | {"frozen": weight(np.ones((2, 3)), "buffer"), "name": "a", "f": jax.nn.relu}
    alone = updated(tx, {"w": params["w"]}, {"w": params["w"]})
    keep = eqx.filter(model, eqx.is_inexact_array)
    half = keep | {"b": with_value(params["b"], None)}
    if name != "clip_by_effective_norm":  # Its norm is that of all weights.
        updates = updated(tx, half, half)
        np.testing.assert_allclose(updates["w"].value, alone["w"].value, rtol=1e-6)
        assert updates["b"].value is None
    # The whole model in the place of the weights: static parts have no gradient.
    if name != "injected":  # Optax looks for its dtype.
        updates: Any = tx.update(keep, tx.init(keep), model)[0]
        assert updates["f"] is None
        assert name.startswith("clip") or not np.any(updates["frozen"].value)


def test_a_long_list_is_cut(weight):
    params = [weight(np.ones((1, 1))) for _ in range(20)]
    grads = [weight(np.ones((1, 1)), ratio=2) for _ in range(20)]
    tx = sx.sgd(0.1, momentum=0.9)
    with pytest.raises(ValueError, match=r"  7: .*\n  and 12 more\n"):
        tx.update(grads, tx.init(params), params)


@pytest.mark.parametrize("name", ["adam", "sgd", "scale_by_width", "master"])
def test_integers_that_are_not_trained_stay(name: str, params):
    """As `jax.grad(..., allow_int=True)` has them, or any other gradient of them."""
    tx = RULES[name]()
    model: Any = params | {"count": jnp.arange(3), "on": jnp.asarray(True)}
    for of_count in (np.zeros(3, jax.dtypes.float0), jnp.full(3, 7), None):
        grads = params | {"count": of_count, "on": jnp.asarray(True)}
        updates = updated(tx, grads, model)
        assert updates["on"].dtype == bool and not updates["on"]
        if of_count is not None:
            assert updates["count"].tolist() == [0, 0, 0]
            after: Any = optax.apply_updates(model, updates)
            assert after["count"].tolist() == [0, 1, 2] and after["on"]


@pytest.mark.parametrize("gradient", [jnp.full(2, 3), np.asarray([True, False])])
def test_integer_gradients_of_bare_arrays_are_refused(gradient):
    params = {"x": jnp.ones(2)}
    for tx in (sx.adam(0.1, unannotated="constant"), sx.sgd(0.1, unannotated="constant")):
        with pytest.raises(ValueError, match=r"x: .*expected"):
            tx.update({"x": gradient}, tx.init(params), params)


def test_without_weights_an_integer_gradient_is_refused(params):
    tx = sx.sgd(0.1)
    with pytest.raises(ValueError, match=r"count: the gradient is int32\[2\].*state, params\)"):
        tx.update(params | {"count": jnp.ones(2, jnp.int32)}, tx.init(params))


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_weights_of_eight_bits_are_refused_unless_frozen(name: str, dtype: str, params, weight):
    narrow = params | {"w": with_value(params["w"], params["w"].value.astype(dtype))}
    if name != "injected":  # Optax looks for a dtype to cast numbers to first.
        with pytest.raises(ValueError, match=f"w: the weight is {dtype}, in which most updates"):
            RULES[name]().init(narrow)
    frozen = weight(np.ones((2, 3)), "buffer")
    if name != "injected":
        RULES[name]().init(params | {"t": with_value(frozen, frozen.value.astype(dtype))})


@pytest.mark.parametrize(
    ("of_gradient", "of_weight", "of_update"),
    [
        ("bfloat16", "float32", "float32"),
        ("float16", "float32", "float32"),
        ("float16", "bfloat16", "float32"),
        ("float64", "float32", "float64"),
        ("float32", "float64", "float64"),
        ("float32", "bfloat16", "float32"),
    ],
)
def test_a_narrow_gradient_is_widened(weight, of_gradient: str, of_weight: str, of_update, x64):
    """A rate that float16 lacks: the step is the float64 one, to the update's precision."""
    rng = np.random.default_rng(0)
    params = weight(rng.normal(size=(2, 3)), dtype=of_weight)
    tx = sx.adam(1e-9 if of_gradient == "float16" else 1e-3, eps=1e-8)
    grads = weight(rng.normal(size=(2, 3)), dtype=of_gradient)
    update: Any = tx.update(grads, tx.init(params), params)[0]
    assert update.value.dtype == jnp.dtype(of_update)
    wide = jax.tree.map(lambda x: x.astype(jnp.float64), grads)
    expected: Any = tx.update(wide, tx.init(wide), wide)[0]
    # Float32's moments: three roundings of 2^-24 at most in each of mean, root and quotient.
    np.testing.assert_allclose(update.value, expected.value, rtol=1e-6)


def test_numpys_bfloat16_is_a_gradient(weight):
    """NumPy doesn't know that it is a floating-point dtype."""
    params = weight([[1.0, 2.0]], dtype="bfloat16")
    grads = with_value(params, np.asarray([[3.0, 4.0]], jnp.bfloat16))
    update: Any = sx.sgd(0.5).update(grads, sx.sgd(0.5).init(params), params)[0]
    # SGD's exponent of a hidden weight is 0 in muP.
    assert update.value.tolist() == [[-1.5, -2.0]]


# Complex weights, beside Optax's rules in double precision.

COMPLEX: dict[str, tuple[Any, Any]] = {
    "adam": (
        sx.adam(0.1, eps=1e-8, eps_scaling="constant", unannotated="constant"),
        optax.adam(0.1, eps=1e-8),
    ),
    "adam_parameter_scaling": (
        sx.adam_parameter_scaling(
            0.1, eps=1e-8, eps_scaling="constant", floor=1e-3, unannotated="constant"
        ),
        optax.chain(
            optax.scale_by_adam(eps=1e-8), optax.scale_by_param_block_rms(1e-3), optax.scale(-0.1)
        ),
    ),
    "sgd": (sx.sgd(1e-3, unannotated="constant"), optax.sgd(1e-3)),
    "momentum": (
        sx.sgd(1e-3, momentum=0.9, unannotated="constant"),
        optax.sgd(1e-3, momentum=0.9),
    ),
    "skip_nonfinite": (
        sx.optim.skip_nonfinite(
            sx.adam(0.1, eps=1e-8, eps_scaling="constant", unannotated="constant")
        ),
        optax.adam(0.1, eps=1e-8),
    ),
}


def rosenbrock(z: Any) -> Any:
    x, y = jnp.real(z), jnp.imag(z)
    return jnp.sum(jnp.square(1 - x) + 100 * jnp.square(y - jnp.square(x)))


def descent(tx: Any, steps: int = 40) -> np.ndarray:
    """From an array of complex numbers; without promotion of dtypes Optax's rules don't run."""
    z = {"z": jnp.asarray([-1 + 1.2j, 0.5 - 0.3j], jnp.complex128)}

    @jax.jit
    def step(z, state):
        grads = jax.tree.map(jnp.conj, jax.grad(lambda z: rosenbrock(z["z"]))(z))
        updates, state = tx.update(grads, state, z)
        return optax.apply_updates(z, updates), state

    state, path = tx.init(z), []
    for _ in range(steps):
        z, state = step(z, state)
        path.append(np.asarray(z["z"]))
    return np.asarray(path)


@pytest.mark.parametrize("rule", COMPLEX)
def test_complex_weights_go_where_optax_takes_them(rule: str, x64):
    ours, theirs = COMPLEX[rule]
    with jax.numpy_dtype_promotion("standard"):
        expected = descent(theirs)
    np.testing.assert_allclose(descent(ours), expected, rtol=1e-9)
    # It moves, so that another path would be seen.
    assert np.all(np.abs(expected[-1] - expected[0]) > 1e-2)


@pytest.mark.parametrize("rule", ["adam_atan2", "lion", "sign_sgd", "adafactor", "master"])
def test_rules_of_real_numbers_refuse_complex_weights(rule: str, params):
    complex_ = params | {"w": with_value(params["w"], params["w"].value.astype(jnp.complex64))}
    with pytest.raises(ValueError, match="w: the weight is complex64, and the rule is one of real"):
        RULES[rule]().init(complex_)
    with pytest.raises(ValueError, match="the moments of a weight of complex64 are complex"):
        sx.adam(0.1, moment_dtype="float32").init(complex_)


def test_clipping_takes_absolute_values(weight):
    complex_ = with_value(weight(np.ones((1, 2))), jnp.asarray([[3 + 4j, 0]]))
    update: Any = updated(sx.clip_by_effective_norm(1.0), complex_, complex_)
    np.testing.assert_allclose(update.value, [[0.6 + 0.8j, 0]], rtol=1e-6)
    update = updated(sx.optim.clip_by_rms(1.0), complex_, complex_)
    np.testing.assert_allclose(update.value, np.asarray([[3 + 4j, 0]]) / (5 / 2**0.5), rtol=1e-6)
