"""The plan's factors beside Optax's transformations are those of the updates, or unknown."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import scalex_eqx as sx

RATE = 2.0**-7
PATH = "w"
# Normalised updates hold an epsilon, and clips one norm of few numbers.
TOLERANCE = 1e-3


def model(width: int) -> Any:
    def make(width):
        return {"b": jnp.ones(width), "w": sx.Weight(jnp.ones((width, width)), SPEC)}

    return sx.parameterize(make, width=width, base_width=4, parameterization=sx.ntk)


SPEC = sx.WeightSpec((-1,), (-2,))


def sizes(tx: Any, width: int) -> dict[str, float]:
    """Of the first update on gradients of ones, by weight: its root mean square."""
    params = eqx.filter(model(width), eqx.is_inexact_array)
    ones = jax.tree.map(jnp.ones_like, params)
    extra = {"value": jnp.float32(1.0), "grad": ones, "value_fn": lambda _: jnp.float32(1.0)}
    update = optax.with_extra_args_support(tx).update
    # Optax adds whole numbers to floating-point ones.
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = update(ones, tx.init(params), params, **extra)
    return {
        path: float(np.sqrt(np.mean(np.square(np.asarray(w.value, np.float64)))))
        for path, w in sx.weights_with_paths(updates).items()
    }


def check(tx: Any, known: bool | None = None) -> sx.Plan:
    """Compares the plan with a step at two widths; `known`: whether it has to know the factors."""
    plan = sx.plan(model(16), tx)
    small, large = sizes(tx, 4), sizes(tx, 16)
    for row in plan.rows:
        factor = row.learning_rate_factor
        if known is not None:
            assert (factor is not None) == known, (row, plan.warnings)
        if factor is None:
            assert any("can't be told" in w or "stands behind" in w for w in plan.warnings)
            assert not any("no part" in w for w in plan.warnings)
        elif not row.is_trained:
            assert factor == 0 and large[row.path] == 0
        else:
            common = next(
                large[r.path] / small[r.path] / r.learning_rate_factor
                for r in plan.rows
                if r.is_trained and r.learning_rate_factor
            )
            # One number for all weights, as these give, is no factor of a layer.
            mixes = ("clip_by_global_norm", "normalize")
            if not any(name in line for line in plan.optimizer for name in mixes):
                np.testing.assert_allclose(common, 1, rtol=TOLERANCE)
            np.testing.assert_allclose(
                large[row.path] / small[row.path], factor * common, rtol=TOLERANCE
            )
    return plan


def mask(tree: Any) -> Any:
    return {name: name == "w" for name in tree}


def labels(tree: Any) -> Any:
    return {name: "on" if name == "w" else "off" for name in tree}


def early(step: Any, **_: Any) -> Any:
    return step < 3


Wrap = Callable[[Any], Any]
WRAPPERS: dict[str, tuple[Wrap, bool]] = {
    "chain": (lambda tx: optax.chain(tx), True),
    "named_chain": (lambda tx: optax.named_chain(("z", optax.identity()), ("a", tx)), True),
    "apply_if_finite": (lambda tx: optax.apply_if_finite(tx, 3), True),
    "MultiSteps": (lambda tx: optax.MultiSteps(tx, 1), True),
    "MultiSteps.gradient_transformation": (
        lambda tx: optax.MultiSteps(tx, 1).gradient_transformation(),
        True,
    ),
    "with_extra_args_support": (optax.with_extra_args_support, True),
    "inject_hyperparams": (lambda tx: optax.inject_hyperparams(lambda: tx)(), True),
    "masked": (lambda tx: optax.masked(tx, {"w": True, "b": True}), True),
    "multi_transform": (
        lambda tx: optax.multi_transform({"on": tx, "off": optax.set_to_zero()}, labels),
        True,
    ),
    "selective_transform": (
        lambda tx: optax.selective_transform(tx, freeze_mask={"w": False, "b": True}),
        True,
    ),
    "freeze": (lambda tx: optax.chain(tx, optax.freeze({"w": False, "b": True})), True),
    "set_to_zero": (lambda tx: optax.chain(tx, optax.set_to_zero()), True),
    "reduce_on_plateau": (lambda tx: optax.chain(tx, optax.contrib.reduce_on_plateau()), True),
    "schedule_free": (lambda tx: optax.contrib.schedule_free(tx, RATE), False),
    "mechanize": (optax.contrib.mechanize, False),
    "conditionally_mask": (
        lambda tx: optax.conditionally_mask(tx, early),
        False,
    ),
    "conditionally_transform": (
        lambda tx: optax.conditionally_transform(tx, early),
        False,
    ),
}
# `lookahead` and `sam` ask for other trees and for the loss, `split_real_and_imaginary` hands the
# rule pairs of arrays, `flatten` a vector without laws, and the first step of `rprop` and
# `adopt` is zero.


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers(name):
    wrap, known = WRAPPERS[name]
    for rule in (sx.adam(RATE), sx.sgd(RATE)):
        plan = check(wrap(rule), known)
        assert known or not any("chain scale_by_width" in warning for warning in plan.warnings)


RULES = sorted(
    name
    for name in (
        "adam",
        "adamw",
        "adamax",
        "adamaxw",
        "adan",
        "adabelief",
        "adadelta",
        "adagrad",
        "amsgrad",
        "fromage",
        "lamb",
        "lars",
        "lion",
        "nadam",
        "nadamw",
        "noisy_sgd",
        "novograd",
        "polyak_sgd",
        "radam",
        "rmsprop",
        "sgd",
        "sign_sgd",
        "signum",
        "sm3",
        "yogi",
    )
)
CONTRIB = (
    "acprop",
    "ademamix",
    "cocob",
    "dadapt_adamw",
    "dog",
    "dowg",
    "madgrad",
    "momo",
    "momo_adam",
    "prodigy",
    "simplified_ademamix",
)
TRANSFORMS = {
    "add_decayed_weights": lambda: optax.add_decayed_weights(0.0),
    "adaptive_grad_clip": lambda: optax.adaptive_grad_clip(0.1),
    "apply_every": lambda: optax.apply_every(1),
    "clip": lambda: optax.clip(10.0),
    "clip_by_block_rms": lambda: optax.clip_by_block_rms(1e-3),
    "clip_by_global_norm": lambda: optax.clip_by_global_norm(1e-3),
    "ema": lambda: optax.ema(0.9),
    "identity": optax.identity,
    "normalize": optax.contrib.normalize,
    "normalize_by_update_norm": optax.normalize_by_update_norm,
    "scale": lambda: optax.scale(-0.5),
    "scale_by_param_block_norm": optax.scale_by_param_block_norm,
    "scale_by_param_block_rms": optax.scale_by_param_block_rms,
    "scale_by_schedule": lambda: optax.scale_by_schedule(optax.constant_schedule(0.5)),
    "scale_by_trust_ratio": optax.scale_by_trust_ratio,
    "trace": lambda: optax.trace(0.9),
    "zero_nans": optax.zero_nans,
}


def made(name: str) -> Any:
    if name in TRANSFORMS:
        return TRANSFORMS[name]()
    maker = getattr(optax, name, None) or getattr(optax.contrib, name)
    if name == "noisy_sgd":
        return maker(RATE, key=jax.random.key(0))
    return maker() if name in ("cocob", "dadapt_adamw") else maker(RATE)


@pytest.mark.parametrize("name", [*RULES, *CONTRIB, *TRANSFORMS])
def test_other_libraries_rules(name):
    """Alone, in front of the scaling of learning rates, and behind it."""
    width = sx.scale_by_width("adam", {"hidden": 1, "vector": Fraction(1, 2)})
    for tx in (made(name), optax.chain(made(name), width), optax.chain(width, made(name))):
        check(tx)


def test_a_part_of_the_librarys_that_normalises_again_is_seen():
    tx = optax.chain(sx.scale_by_width("adam", sx.full_alignment), sx.scale_by_adam())
    plan = check(tx, known=None)
    assert any("stands behind" in warning for warning in plan.warnings)


def test_what_is_set_to_zero_is_not_trained():
    off = optax.multi_transform({"on": sx.adam(RATE), "off": optax.set_to_zero()}, labels)
    rows = {row.path: row for row in sx.plan(model(16), off).rows}
    assert rows["w"].is_trained and not rows["b"].is_trained
    assert sx.plan(model(16), off).warnings == ()
    # Decay of another library, behind it, moves the weight again.
    moved = optax.chain(off, optax.add_decayed_weights(0.1))
    assert all(row.is_trained for row in sx.plan(model(16), moved).rows)


def test_a_mask_of_the_librarys_decay_is_followed():
    decay = sx.optim.add_weight_decay(0.25)
    tx = optax.chain(sx.adam(RATE), optax.masked(decay, {"w": False, "b": True}))
    rows = {row.path: row for row in sx.plan(model(16), tx).rows}
    assert rows["w"].weight_decay == 0
    tx = optax.chain(sx.adam(RATE), optax.masked(decay, mask))
    rows = {row.path: row for row in sx.plan(model(16), tx).rows}
    assert rows["w"].weight_decay == 0.25
    # Also within the mask of a partition.
    within = optax.partition({"on": tx, "off": sx.sgd(RATE)}, {"w": "on", "b": "off"})
    assert {r.path: r.weight_decay for r in sx.plan(model(16), within).rows}["w"] == 0.25


def test_a_weight_that_no_part_works_on_is_named():
    (warning,) = sx.plan(model(16), optax.masked(sx.adam(RATE), mask)).warnings
    assert "its gradient itself is added (b)" in warning


@pytest.mark.parametrize("name", [name for name, (_, known) in WRAPPERS.items() if not known])
def test_what_is_not_looked_into_is_not_converted(name):
    tx = WRAPPERS[name][0](sx.adam(RATE))
    params = eqx.filter(model(16), eqx.is_inexact_array)
    with pytest.raises(ValueError, match="state"):
        sx.convert(params, tx.init(params), to=sx.standard, tx=tx)
