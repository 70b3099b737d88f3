"""The plan says what Optax's rules do that is seen in the table of all of them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest
from optax import contrib

import scalex_eqx as sx

SPEC = sx.WeightSpec((-1,), (-2,))


def model(dtype: Any = jnp.float32, zeros: tuple[str, ...] = ()) -> Any:
    """Two matrices, of which some are zero."""

    def make(width):
        keys: dict[str, Any] = dict(
            zip(("mid", "out"), jax.random.split(jax.random.key(0)), strict=True)
        )
        shapes: dict[str, Any] = {"mid": (width, width), "out": (8, width)}
        return {
            name: sx.Weight(
                jax.random.normal(keys[name], shape, dtype) * float(name not in zeros), SPEC
            )
            for name, shape in shapes.items()
        }

    return sx.parameterize(make, width=16, base_width=8, parameterization=sx.ntk)


def said(tx: Any, *args: Any) -> str:
    width = sx.scale_by_width("adam", sx.full_alignment)
    return "\n".join(sx.plan(model(*args), optax.chain(tx, width)).warnings)


BOTH = ("mid", "out")
MET = {
    "dog": (contrib.dog, (), "one number over the gradients"),
    "dowg": (contrib.dowg, (), "one number over the gradients"),
    "momo": (contrib.momo, (), "one number over the gradients"),
    "polyak_sgd": (optax.polyak_sgd, (), "one number over the gradients"),
    "prodigy": (contrib.prodigy, (jnp.float32, BOTH), "NaN for good"),
    "dadapt_adamw": (contrib.dadapt_adamw, (jnp.float32, BOTH), "NaN for good"),
    "lamb": (lambda: optax.lamb(1.0), (jnp.float32, ("out",)), "out: zero at first"),
    "lars": (lambda: optax.lars(1.0), (jnp.float32, ("out",)), "out: zero at first"),
    "fromage": (lambda: optax.fromage(1.0), (jnp.float32, ("out",)), "out: zero at first"),
    "schedule_free_sgd": (contrib.schedule_free_sgd, (jnp.bfloat16,), "without a gradient"),
}


@pytest.mark.parametrize("name", MET)
def test_what_a_model_meets_is_said(name):
    make, arguments, words = MET[name]
    assert words in said(make(), *arguments)


@pytest.mark.parametrize("name", [name for name, (_, met, _) in MET.items() if met])
def test_what_it_does_not_meet_is_not(name):
    make, _, words = MET[name]
    assert words not in said(make(), jnp.float32)


def test_it_is_so():
    """What the warnings say of a zero readout, in a step."""
    weights = sx.weights_with_paths(model(jnp.float32, ("out",)))
    params = {path: weight.value for path, weight in weights.items()}
    ones = jax.tree.map(jnp.ones_like, params)
    moved = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for make in (optax.lamb, optax.lars, optax.fromage):
            tx = make(1.0)
            updates: Any = tx.update(ones, tx.init(params), params)[0]
            mid, out = (float(jnp.sqrt(jnp.mean(updates[n] ** 2))) for n in ("mid", "out"))
            moved[make.__name__] = out / mid
    assert 0.5 < moved["lamb"] < 2 and moved["lars"] > 500 and moved["fromage"] < 1e-5


def test_a_zero_gradient_of_all_is_not_forgotten():
    for make in (contrib.prodigy, contrib.dadapt_adamw):
        w: Any = jnp.ones(3)
        tx = make()
        state = tx.init(w)
        with jax.numpy_dtype_promotion("standard"):
            for gradient in (0 * w, w, w):
                updates, state = tx.update(gradient, state, w)
                w = optax.apply_updates(w, updates)
        assert not jnp.isfinite(w).any()


def test_schedule_free_drifts_in_bfloat16():
    tx, w = (
        contrib.schedule_free_sgd(1e-3),
        jax.random.normal(jax.random.key(0), (64,), jnp.bfloat16),
    )
    start, state = w, tx.init(w)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(30):
            updates, state = tx.update(0 * w, state, w)
            w = eqx.apply_updates(w, updates)
    assert float(jnp.linalg.norm(w - start) / jnp.linalg.norm(start)) > 1e-3
