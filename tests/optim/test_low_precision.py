"""Small updates of bfloat16 and float16 weights, against exact arithmetic."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.optim import low_precision

MODES: dict[str, dict[str, Any]] = {
    "master": {},
    "kahan": {},
    "stochastic": {"key": jax.random.key(3)},
}
STEPS = 1000
BIAS = 1e-5


def make(mode: str, tx: Any) -> Any:
    return low_precision(tx, mode, **MODES[mode])  # pyright: ignore[reportArgumentType]


def constant_steps(tx: Any, start: sx.Weight, apply=optax.apply_updates) -> np.ndarray:
    """The mean move of the weights by 1,000 steps of 1e-5, as a share of their sum."""
    gradient = jax.tree.map(jnp.ones_like, start)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(gradient, state, params)
        return (apply(params, updates), state), None

    @jax.jit
    def train(start):
        return jax.lax.scan(step, (start, tx.init(start)), length=STEPS)[0][0]

    moved = np.asarray(train(start).value, np.float64) - np.asarray(start.value, np.float64)
    return -moved / (STEPS * BIAS)


@pytest.fixture
def start(weight) -> Any:
    normals = np.random.default_rng(0).normal(size=(64, 256)) * 0.02
    return weight(normals, dtype="bfloat16")


def spacing(x: np.ndarray) -> np.ndarray:
    """Of the bfloat16 numbers at x."""
    return 2.0 ** (np.floor(np.log2(np.maximum(np.abs(x), 1e-30))) - 7)


@pytest.mark.parametrize("apply", [optax.apply_updates, eqx.apply_updates])
def test_a_drift_of_small_steps_is_lost_without_it(start, apply):
    """A step of 1e-5 moves only weights whose spacing is below 2e-5, those within 0.0026 of 0."""
    found = constant_steps(sx.sgd(BIAS, sx.global_rate), start, apply)
    assert np.mean(found) < 0.1


@pytest.mark.parametrize("apply", [optax.apply_updates, eqx.apply_updates])
@pytest.mark.parametrize("mode", ["master", "kahan"])
def test_a_drift_of_small_steps_is_kept(start, mode: str, apply):
    """Each weight is where exact arithmetic takes it, up to half the spacing there.

    The sum in float32 adds at most 1,000 roundings of half of 2^-24 of the largest weight. A
    compensation is at most that half spacing itself, and is rounded to 2^-8 of it in each step.
    """
    found = constant_steps(make(mode, sx.sgd(BIAS, sx.global_rate)), start, apply)
    values = np.asarray(start.value, np.float64)
    room = spacing(np.abs(values) + STEPS * BIAS) / 2
    rounding = STEPS * 2.0**-25 * np.max(np.abs(values))
    if mode == "kahan":
        rounding = STEPS * 2.0**-8 * room
    assert np.all(np.abs(found - 1) * STEPS * BIAS <= room + rounding)
    assert abs(np.mean(found) - 1) < 0.01


def test_a_drift_is_kept_on_average_by_stochastic_rounding(start):
    """A weight of spacing h gains h p(1-p) of variance in a step, p = 1e-5 / h: at most 1e-5 h."""
    found = constant_steps(make("stochastic", sx.sgd(BIAS, sx.global_rate)), start)
    h = spacing(np.abs(np.asarray(start.value, np.float64)) + STEPS * BIAS)
    deviation = np.sqrt(STEPS * BIAS * np.sum(h)) / (h.size * STEPS * BIAS)
    assert abs(np.mean(found) - 1) < 5 * deviation
    assert deviation < 0.01


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_with_a_master_copy_the_weights_are_the_rounded_master(weight, dtype: str):
    """Exactly, if a step takes a weight to between half and twice of what it was."""
    rng = np.random.default_rng(1)
    params = weight(rng.uniform(0.5, 2.0, size=(32, 32)), dtype=dtype)
    tx = make("master", sx.adam(0.01))
    state, step = tx.init(params), jax.jit(tx.update)
    for _ in range(20):
        gradient = weight(rng.normal(size=(32, 32)), dtype=dtype)
        updates, state = step(gradient, state, params)
        assert updates.value.dtype == params.value.dtype
        params = eqx.apply_updates(params, updates)
        rounded = np.asarray(state.master.value).astype(params.value.dtype)
        assert rounded.tobytes() == np.asarray(params.value).tobytes()


@pytest.mark.parametrize("mode", ["master", "kahan"])
def test_steps_of_the_weights_own_size(weight, mode: str):
    """With a master copy off by four roundings, after 50 steps as after one.

    The target is rounded, the update, and their sum; the last term is for the state: 50 roundings
    of a sum below 16 in float32. With a compensation the last sum is rounded, and each update was.
    """
    rng = np.random.default_rng(2)
    params: Any = weight(rng.normal(size=(64, 64)), dtype="bfloat16")
    exact, rounded = np.asarray(params.value, np.float64), 0.0
    tx = make(mode, sx.sgd(1.0, sx.global_rate))
    state, step, was_off = tx.init(params), jax.jit(tx.update), False
    for _ in range(50):
        gradient = weight(rng.normal(size=(64, 64)), dtype="bfloat16")
        updates, state = step(gradient, state, params)
        params = eqx.apply_updates(params, updates)
        exact = exact - np.asarray(gradient.value, np.float64)
        off = np.abs(np.asarray(params.value, np.float64) - exact)
        update = np.abs(np.asarray(updates.value, np.float64))
        weights = np.abs(np.asarray(params.value, np.float64))
        if mode == "master":
            room = (2 * spacing(np.maximum(weights, np.abs(exact))) + spacing(update)) / 2
            room += 50 * 2.0**-21
        else:
            rounded = rounded + spacing(update) / 2
            room = spacing(weights) / 2 + rounded
        assert np.all(off <= room)
        was_off = was_off or bool(np.any(off > 0.51 * spacing(exact)))
    assert was_off


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weight_and_compensation_add_up_to_what_was_added(weight, dtype: str):
    """But for float32's rounding of the larger; without the compensation they don't."""
    rng = np.random.default_rng(4)
    sizes = 2.0 ** rng.uniform(-6, 6, size=(2, 64, 64))
    params: Any = weight(sizes[0] * rng.normal(size=(64, 64)), dtype=dtype)
    tx = make("kahan", optax.identity())
    state, step = tx.init(params), jax.jit(tx.update)
    for _ in range(3):
        gradient = weight(sizes[1] * rng.normal(size=(64, 64)), dtype=dtype)
        updates, state = step(gradient, state, params)
        parts = [np.asarray(x.value, np.float64) for x in (params, updates)]
        sum, larger = parts[0] + parts[1], np.maximum(*np.abs(parts))
        params = eqx.apply_updates(params, updates)
        alone = np.asarray(params.value, np.float64)
        whole = alone + np.asarray(state.compensation.value, np.float64)
        assert np.all(np.abs(whole - sum) <= 2.0**-24 * larger)
        assert np.mean(np.abs(alone - sum) > 2.0**-12 * larger) > 0.2


def emulated_kahan(values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The formula, by ml_dtypes and float32 arithmetic of NumPy."""

    def rho(x):
        return x.astype(jnp.bfloat16).astype(np.float32)

    w, c = values, np.zeros_like(values)
    for u in steps:
        s = rho(u + c)
        after = rho(w + s)
        w, c = after, (w - after) + s
    return w


def test_the_compiled_compensation_is_the_formulas(weight):
    """To the last bit: nothing is reordered, and no rounding left out."""
    rng = np.random.default_rng(3)
    params = weight(rng.normal(size=(16, 16)), dtype="bfloat16")
    gradients = rng.normal(size=(100, 16, 16)).astype(np.float32) * 1e-3
    tx = make("kahan", optax.identity())

    def step(carry, gradient):
        params, state = carry
        updates, state = tx.update(sx.Weight(gradient, params.spec), state, params)
        return (optax.apply_updates(params, updates), state), None

    train = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), jnp.asarray(gradients))[0][0])
    expected = emulated_kahan(np.asarray(params.value, np.float32), gradients)
    np.testing.assert_array_equal(np.asarray(train(params).value, np.float32), expected)
    text = str(train.lower(params).compile().as_text())
    assert "reduce-precision" in text and "exponent_bits=8, mantissa_bits=7" in text


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_wide_weights_are_handed_through(weight, mode: str, dtype: str, x64):
    params = weight(np.arange(6.0).reshape(2, 3), dtype=dtype)
    gradient = weight(np.ones((2, 3)), dtype=dtype)
    plain, wrapped = (
        sx.adamw(0.01, 0.1, decay_mode="independent"),
        make(mode, sx.adamw(0.01, 0.1, decay_mode="independent")),
    )
    expected: Any = plain.update(gradient, plain.init(params), params)[0]
    found, state = wrapped.update(gradient, wrapped.init(params), params)
    assert found.value.dtype == expected.value.dtype
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-6)
    own = {k: v for k, v in state._asdict().items() if k in ("master", "compensation")}
    assert jtu.tree_leaves(own) == []


@pytest.mark.parametrize("mode", MODES)
def test_a_buffer_and_what_is_filtered_out_stay_out(weight, mode: str):
    params = {
        "w": weight(np.ones((2, 2)), dtype="bfloat16"),
        "table": weight(np.ones((1, 2)), "buffer", dtype="bfloat16"),
        "out": eqx.filter(weight(np.ones((1, 2)), dtype="bfloat16"), False),
    }
    tx = make(mode, sx.adam(0.01))
    state = tx.init(params)
    updates, after = jax.jit(tx.update)(jax.tree.map(jnp.zeros_like, params), state, params)
    assert jtu.tree_structure(after) == jtu.tree_structure(state)
    assert jtu.tree_structure(updates) == jtu.tree_structure(params)
    np.testing.assert_array_equal(np.asarray(updates["table"].value, np.float32), 0)


@pytest.mark.parametrize("mode", MODES)
def test_its_state_says_what_it_is(weight, mode: str):
    params = [weight(np.ones((2, 2)), dtype="bfloat16")]
    state = make(mode, sx.adam(0.01)).init(params)
    assert dict(state.rule.settings) == {"mode": mode}
    for name, degree in state.rule.fields:
        assert degree == sx.optim.Degree(update=0, weight=1)
        assert [w.spec for w in getattr(state, name)] == [w.spec for w in params]
    # The rule inside works in float32.
    assert state.inner_state[0].mu[0].value.dtype == np.float32


@pytest.mark.parametrize("jit", [jax.jit, lambda f: f])
def test_weights_are_rounded_independently(weight, jit):
    params = [weight(np.ones((32, 32)), dtype="bfloat16") for _ in range(2)]
    gradient = jax.tree.map(lambda x: jnp.full_like(x, 2.0**-9), params)
    tx = make("stochastic", sx.sgd(1.0, sx.global_rate))
    updates: Any
    update = jit(tx.update)
    updates, state = update(gradient, tx.init(params), params)
    one, two = updates
    updates, _ = update(gradient, state, params)
    later = updates[0]
    again, _ = update(gradient, tx.init(params), params)
    up = [np.asarray(u.value) != 0 for u in (one, two, later)]
    # The step is half the spacing below 1: each goes down in half of the cases.
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.mean(up[a] == up[b]) - 0.5) < 5 * 0.5 / 32
    assert again[0].value.tolist() == one.value.tolist()


def test_a_model_trains_in_bfloat16(weight):
    """A learning rate that bfloat16 alone can't follow."""

    def loss(w):
        return jnp.mean(jnp.square(sx.effective(w).astype(jnp.float32) - 1.0))

    start = weight(np.full((8, 8), 4.0), dtype="bfloat16", parameterization=sx.standard)

    def trained(tx: Any) -> float:
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        run = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), length=2000)[0][0])
        return float(loss(run(start)))

    rule = sx.sign_sgd(0.002, sx.global_rate)
    assert trained(rule) > 5
    for mode in MODES:
        assert trained(make(mode, rule)) < 1e-3


@pytest.mark.parametrize(
    ("mode", "key", "match"),
    [
        ("stochastic", None, "needs a key"),
        ("kahan", jax.random.key(0), "uses no key: drop it"),
        ("master", jax.random.key(0), "uses no key: drop it"),
        ("nearest", None, r"'?mode'?.*(master|is 'nearest')"),
    ],
)
def test_wrong_arguments_are_refused(mode: Any, key: Any, match: str):
    with pytest.raises(Exception, match=rf"(?s){match}"):
        low_precision(sx.adam(0.01), mode, key=key)


@pytest.mark.parametrize("mode", MODES)
def test_it_needs_the_weights_and_their_laws(weight, mode: str):
    params = weight(np.ones((2, 2)), dtype="bfloat16")
    tx = make(mode, sx.adam(0.01))
    with pytest.raises(ValueError, match=r"call tx\.update\(grads, state, params\)"):
        tx.update(params, tx.init(params))
    with pytest.raises(ValueError, match="arrays without a scaling law: 0"):
        tx.init([jnp.ones(2, jnp.bfloat16)])
