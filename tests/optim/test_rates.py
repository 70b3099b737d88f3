"""The factors of the learning rate on each weight."""

from fractions import Fraction
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.optim._rates import _checked_rates

ROLES = ("embedding", "hidden", "readout", "vector", "constant")
# Exponents c of muP: embedding, hidden, readout, vector, constant.
MUP = {
    ("sgd", "full"): (0.0, 0.0, 0.0, -1.0, 0.0),
    ("sgd", "none"): (0.0, -0.5, 0.0, -1.0, 0.0),
    ("adam", "full"): (0.5, 1.0, 0.5, 0.0, 0.0),
    ("adam", "none"): (0.5, 0.5, 0.0, 0.0, 0.0),
    ("adafactor", "full"): (0.0, 0.5, 0.0, 0.0, 0.0),
    ("adafactor", "none"): (0.0, 0.0, 0.0, 0.0, 0.0),
}
ALIGNMENTS = {"full": sx.full_alignment, "none": sx.no_alignment}


@pytest.fixture(autouse=True)
def _count_traces_from_zero():
    chex.clear_trace_counter()


@pytest.fixture
def model(weight):
    """One weight of each role, all ones, at four times the base width."""
    values = {"vector": [1.0], "constant": [1.0]}
    return {role: weight(values.get(role, [[1.0]]), role) for role in ROLES}


def apply(tx: Any, updates, params=None):
    return tx.update(updates, tx.init(updates), params)[0]


def factors(updates) -> list[float]:
    return [updates[role].value.item() for role in ROLES]


@pytest.mark.parametrize(("family", "alignment"), MUP)
def test_factors_of_an_alignment(model, family: str, alignment: str):
    updates = apply(sx.scale_by_width(family, ALIGNMENTS[alignment]), model)
    expected = [4**-c for c in MUP[family, alignment]]
    assert factors(updates) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("ratio", [1, 2, 9])
def test_factors_follow_the_width_ratio(weight, ratio: int):
    update = apply(sx.scale_by_width("adam", sx.full_alignment), weight([[1.0]], ratio=ratio))
    assert update.value.item() == pytest.approx(1 / ratio, rel=1e-6)


def test_a_global_rate(model):
    assert factors(apply(sx.scale_by_width("adam", sx.global_rate), model)) == [1] * 5


def test_a_mapping_from_role_to_exponent(model):
    rates = {"embedding": 0, "hidden": "1/2", "readout": Fraction(3, 2), "vector": -1}
    updates = apply(sx.scale_by_width("sgd", rates | {sx.Role.constant: 0}), model)
    assert factors(updates) == pytest.approx([1, 1 / 2, 1 / 8, 4, 1], rel=1e-6)


def test_a_mapping_that_lacks_a_role_of_the_model_is_refused(model):
    tx: Any = sx.scale_by_width("adam", {"hidden": 1, "readout": 1})
    with pytest.raises(
        ValueError, match=r"no exponent for constant, whose role is constant.* hidden, rea"
    ):
        apply(tx, model)
    assert apply(tx, model["hidden"]).value.item() == 0.25


def test_a_path_goes_before_the_role(model):
    rates: Any = dict.fromkeys(sx.Role, 0) | {"readout": "1/2"}
    nested = {"a": model, "b": model}
    updates = apply(sx.scale_by_width("adam", {**rates, "a/vector": 2}), nested)
    assert factors(updates["a"]) == pytest.approx([1, 1, 1 / 2, 1 / 16, 1])
    assert factors(updates["b"]) == pytest.approx([1, 1, 1 / 2, 1, 1])
    updates = apply(sx.scale_by_width("adam", {**rates, "?/hidden": 1}), nested)
    assert factors(updates["a"]) == factors(updates["b"]) == pytest.approx([1, 1 / 4, 1 / 2, 1, 1])


def test_paths_that_match_nothing_or_say_two_things_are_refused(model):
    rates = dict.fromkeys(sx.Role, 0)
    tx = sx.scale_by_width("adam", {**rates, "hiden": 1})
    with pytest.raises(ValueError, match=r"rates\['hiden'\] is no role and .*there are hidden"):
        tx.init(model)
    nested = {"a": model}
    tx = sx.scale_by_width("adam", {**rates, "a/*": 1, "a/hidden": 2})
    with pytest.raises(ValueError, match=r"several exponents for a/hidden: 'a/\*' says 1, 'a/hid"):
        apply(tx, nested)


def test_multipliers_for_paths_that_match_nothing_or_say_two_things_are_refused(model):
    tx = sx.scale_by_width("adam", sx.global_rate, role_multipliers={"hiden": 1.0})
    with pytest.raises(
        ValueError, match=r"role_multipliers\['hiden'\] is no role and .* are hidden"
    ):
        tx.init(model)
    several: Any = {"a/*": 2.0, "a/hidden": 3.0}
    tx = sx.scale_by_width("adam", sx.global_rate, role_multipliers=several)
    with pytest.raises(ValueError, match=r"several for a/hidden: 'a/\*', 'a/hidden'; let one"):
        tx.init({"a": model})
    # Of traced ones it isn't known that they are equal, but for one and the same.
    two = jnp.asarray(2.0)
    same: Any = {"a/*": two, "a/hidden": two}
    updates = apply(sx.scale_by_width("adam", sx.global_rate, role_multipliers=same), {"a": model})
    assert factors(updates["a"]) == [2] * 5
    with pytest.raises(ValueError, match="several for a/hidden"):
        sx.scale_by_width(
            "adam", sx.global_rate, role_multipliers={"a/*": two, "a/hidden": jnp.asarray(2.0)}
        ).init({"a": model})


def test_an_inexact_exponent_is_refused():
    with pytest.raises(ValueError, match=r"rates\['hidden'\] is 0.5, of type float"):
        sx.scale_by_width("adam", {"hidden": 0.5})


def test_other_rates_are_refused():
    """Where a runtime type checker is at work, it refuses first."""
    with pytest.raises((ValueError, TypeError), match="full"):
        sx.scale_by_width("adam", "full")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("full", "full_alignment"),
        ("none", "no_alignment"),
        ("global", "global_rate"),
        ("no_alignment", "no_alignment"),
    ],
)
def test_words_for_rates_are_told_the_object(word: str, name: str):
    with pytest.raises(ValueError, match=f"rates is '{word}'.*; did you mean scalex_eqx.{name}.$"):
        _checked_rates(word)
    assert _checked_rates(getattr(sx, name)) is getattr(sx, name)


@pytest.mark.parametrize("rates", ["measured", None, 0.5])
def test_other_things_for_rates_are_not_guessed_at(rates: Any):
    with pytest.raises(ValueError, match=r"or a mapping from role or path to exponent$"):
        _checked_rates(rates)


def test_an_unknown_family_is_refused():
    with pytest.raises(ValueError, match="family 'adamm' is unknown: expected sgd, adam, adafacto"):
        sx.scale_by_width("adamm", sx.full_alignment)


def test_a_family_of_ones_own(model):
    signs = sx.UpdateFamily("sign", gradient_degree=0, weight_degree=0)
    updates = apply(sx.scale_by_width(signs, sx.full_alignment), model)
    assert factors(updates) == pytest.approx([0.5, 0.25, 0.5, 1, 1], rel=1e-6)


def test_multipliers_by_role(model):
    tx = sx.scale_by_width("adam", sx.global_rate, role_multipliers={"hidden": 3.0, "vector": 0.5})
    assert factors(apply(tx, model)) == [1, 3, 1, 0.5, 1]


@pytest.mark.parametrize("gamma", [2.0, jnp.asarray(2.0)], ids=["known", "array"])
def test_multipliers_by_path_go_before_those_by_role(model, gamma):
    nested = {"a": model, "b": model}
    given: Any = {"hidden": 3.0, "a/hidden": gamma, "?/vector": gamma}
    tx = sx.scale_by_width("adam", sx.full_alignment, role_multipliers=given)
    updates = apply(tx, nested)
    assert factors(updates["a"]) == pytest.approx([0.5, 2 / 4, 0.5, 2, 1], rel=1e-6)
    assert factors(updates["b"]) == pytest.approx([0.5, 3 / 4, 0.5, 2, 1], rel=1e-6)
    rows = {row.path: row.learning_rate_factor for row in sx.plan(nested, tx).rows}
    known = isinstance(gamma, float)
    assert rows["a/hidden"] == (0.5 if known else None) and rows["b/hidden"] == 0.75


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_updates_keep_their_dtype(weight, dtype: str):
    for gamma in (3.0, jnp.asarray(3.0)):
        tx = sx.scale_by_width("adam", sx.full_alignment, role_multipliers={"hidden": gamma})
        update = apply(tx, weight([[1.0]], dtype=dtype)).value
        assert (update.dtype, update.item()) == (jnp.dtype(dtype), 0.75)


def test_behind_the_rule_of_optax(model):
    gradients = jax.tree.map(lambda x: -2 * x, model)
    tx = optax.chain(
        optax.scale_by_adam(), sx.scale_by_width("adam", sx.full_alignment), optax.scale(-0.1)
    )
    with jax.numpy_dtype_promotion("standard"):
        updates = apply(tx, gradients)
    expected = [0.1 * 4**-c for c in MUP["adam", "full"]]
    assert factors(updates) == pytest.approx(expected, rel=1e-5)


# The whole rule


def moved(model, tx: Any, steps: int = 3) -> list[float]:
    """How far each weight goes under a constant gradient, which is `steps` times its rate."""
    params, state = model, tx.init(model)
    for _ in range(steps):
        updates, state = tx.update(model, state, params)
        params = optax.apply_updates(params, updates)
    return [1 - x for x in factors(params)]


def test_adam_moves_each_weight_at_its_own_rate(model):
    tx = sx.adam(0.01, role_multipliers={"embedding": 2.0})
    expected = [0.03 * 4**-c for c in MUP["adam", "full"]]
    expected[0] *= 2
    assert moved(model, tx) == pytest.approx(expected, rel=1e-4)


def test_adam_takes_its_rates(model):
    expected = [0.03 * 4**-c for c in MUP["adam", "none"]]
    assert moved(model, sx.adam(0.01, sx.no_alignment)) == pytest.approx(expected, rel=1e-4)
    assert moved(model, sx.adam(0.01, sx.global_rate)) == pytest.approx([0.03] * 5, rel=1e-4)


def test_a_schedule_is_asked_from_step_zero(model):
    def schedule(step):
        return jnp.asarray([0.1, 0.01, 0.001])[step]

    expected = [0.111 * 4**-c for c in MUP["adam", "full"]]
    assert moved(model, sx.adam(schedule)) == pytest.approx(expected, rel=1e-4)


def test_sweeps_over_numbers_compile_once_and_equal_a_loop(model):
    """Learning rate, epsilon and multiplier are traced; gradients are near epsilon."""

    @jax.jit
    @chex.assert_max_traces(1)
    def run(rate, eps, gamma):
        tx: Any = sx.adam(rate, eps=eps, role_multipliers={"hidden": gamma, "vector": gamma})
        updates, _ = tx.update(model, tx.init(model))
        return updates

    grid = np.asarray([[1e-2, 1.0, 1.0], [3e-2, 4.0, 2.0], [1e-3, 0.0, 0.5]], np.float32)
    looped = [factors(run(*map(jnp.asarray, point))) for point in grid]
    chex.clear_trace_counter()
    together = jax.jit(jax.vmap(run))(*jnp.asarray(grid.T))
    columns = [np.ravel(together[role].value) for role in ROLES]
    np.testing.assert_allclose(np.transpose(columns), looped, rtol=1e-6)
    # g of muP: 1/2, 1, 1/2, 1, 0.
    for rate_eps_gamma, found in zip(grid, looped, strict=True):
        rate, eps, gamma = map(float, rate_eps_gamma)
        sizes = [1 / (1 + eps * 4**-g) for g in (0.5, 1, 0.5, 1, 0)]
        gammas = (1, gamma, 1, gamma, 1)
        expected = [
            -rate * k * 4**-c * size
            for k, c, size in zip(gammas, MUP["adam", "full"], sizes, strict=True)
        ]
        assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: sx.adam(-1.0), "learning_rate is -1.0"),
        (lambda: sx.adam(0.1, b1=1.0), "b1 is 1.0; expected a finite number, at least 0 and less"),
        (lambda: sx.adam(0.1, b2=-0.5), "b2 is -0.5"),
        (lambda: sx.adam(0.1, eps=float("nan")), "eps is nan"),
        (lambda: sx.adamw(0.1, -0.1, decay_mode="independent"), "weight_decay is -0.1"),
        (lambda: sx.adam(0.1, role_multipliers={"hidden": -1.0}), r"role_multipliers\['hidden'\]"),
    ],
)
def test_a_constant_outside_its_range_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("scalar", [np.float32, np.float64, float, jnp.float32, int])
def test_updates_keep_the_dtype_of_low_precision_weights(scalar):
    """NumPy's scalars would widen them, some although they are floats."""
    spec = sx.WeightSpec((-1,), (-2,), 1.0, sx.Role.hidden, sx.mup, Fraction(4))
    weight: Any = sx.Weight(jnp.ones((2, 2), jnp.bfloat16), spec)
    tx = sx.adam(scalar(1), role_multipliers={"hidden": scalar(2)})
    updates: Any = tx.update(weight, tx.init(weight))[0]
    assert updates.value.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(updates.value), -2 / 4, rtol=2**-7)


def test_a_frozen_weight_is_not_moved_by_another_librarys_decay(weight):
    params = {"w": weight([[1.0, 2.0]]), "frozen": weight([[3.0, 4.0]], "buffer")}
    tx = optax.chain(
        optax.scale_by_adam(),
        optax.add_decayed_weights(0.1),
        sx.scale_by_width("adam", sx.full_alignment),
        sx.optim.scale_by_learning_rate(0.1),
    )
    gradient = jax.tree.map(jnp.zeros_like, params)
    with jax.numpy_dtype_promotion("standard"):  # Optax's decay needs it.
        updates: Any = tx.update(gradient, tx.init(params), params)[0]
    assert np.all(np.asarray(updates["frozen"].value) == 0)
    assert np.all(np.asarray(updates["w"].value) != 0)


def test_the_learning_rate_scales_arrays_that_are_no_weights():
    tx = sx.optim.scale_by_learning_rate(0.5)
    tree = {"x": jnp.ones(3)}
    updates: Any = tx.update(tree, tx.init(tree))[0]
    assert jnp.array_equal(updates["x"], jnp.full(3, -0.5))


FIXED = dict.fromkeys(sx.Role, Fraction(0))


@pytest.mark.parametrize("exponent", [9999, -9999, 60, 10**400])
def test_a_factor_that_is_no_number_is_refused(model, exponent: int):
    tx = sx.scale_by_width("adam", FIXED | {sx.Role.hidden: Fraction(exponent)})
    with pytest.raises(
        ValueError, match=r"of hidden: the factor r\^.* at the width ratio r = 4 is"
    ):
        tx.init(model)
    sx.scale_by_width("adam", FIXED | {sx.Role.hidden: Fraction(49)}).init(model)


@pytest.mark.parametrize(
    ("tx", "dtype", "message"),
    [
        (lambda: sx.adam(1e-9), "float16", "learning_rate is 1e-09, and 0 as a factor in float16"),
        (lambda: sx.adam(1e-40), "float32", "learning_rate is 1e-40, and 0 as a factor in float32"),
        (lambda: sx.adam(1e39), "bfloat16", r"learning_rate is 1e\+39, and infinite as a factor"),
        (lambda: sx.adam(0.1, eps=1e40), "float32", r"w: eps is 2.5e\+39, which is infinite in fl"),
        (lambda: sx.adafactor(0.1, floor=1e39), "bfloat16", r"w: floor is .*infinite in float32"),
        (
            lambda: sx.adam(0.1, role_multipliers={"hidden": 1e-8}),
            "float16",
            "w: the learning rate's factor is 2.5e-09 at the width ratio 4, and 0 as a factor",
        ),
    ],
)
def test_a_number_that_the_weights_dtype_lacks_is_refused(weight, tx, dtype: str, message: str):
    params = {"w": weight([[1.0]], dtype=dtype)}
    with pytest.raises(ValueError, match=message):
        tx().init(params)
    sx.adam(1e-7, role_multipliers={"hidden": 0.0}).init(params)
    sx.adam(0.0).init(params)


def test_the_plan_warns_of_a_product_that_vanishes(weight):
    params = {"w": weight([[1.0]], dtype="float16")}
    tx = sx.adam(1e-5, role_multipliers={"hidden": 1e-3})
    warnings = sx.plan(params, tx).warnings
    assert [w for w in warnings if "0 as a factor in float16" in w and w.startswith("w: the learn")]
    kept = sx.plan(params, sx.optim.low_precision(tx, "master")).warnings
    assert not [w for w in kept if "as a factor" in w]
