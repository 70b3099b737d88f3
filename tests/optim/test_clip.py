"""Clipping: of each weight's update, and of the whole gradient in effective units."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scalex_eqx as sx

RNG = np.random.default_rng(0)
A, B, C = RNG.normal(size=(3, 4)), RNG.normal(size=(2, 4)), RNG.normal(size=4)
# muP at r = 4: the multipliers r^-a.
MULTIPLIER = {"w": 1.0, "out": 0.5, "emb": 2.0, "bias": 1.0}


@pytest.fixture
def gradient(weight):
    return {
        "w": weight(A),
        "out": weight(B, "readout"),
        "emb": weight(A, "embedding"),
        "bias": weight(C, "vector"),
    }


def apply(tx: Any, gradient) -> dict[str, np.ndarray]:
    update, _ = jax.jit(tx.update)(gradient, tx.init(gradient))
    return {name: np.asarray(w.value, np.float64) for name, w in update.items()}


def effective_norm(gradient) -> float:
    values = {name: np.asarray(w.value, np.float64) for name, w in gradient.items()}
    return float(np.sqrt(sum(np.sum((g / MULTIPLIER[n]) ** 2) for n, g in values.items())))


@pytest.mark.parametrize("fraction", [0.3, 2.0])
def test_the_effective_norm_is_limited(gradient, fraction: float):
    limit = fraction * effective_norm(gradient)
    found = apply(sx.optim.clip_by_effective_norm(limit), gradient)
    for name, w in gradient.items():
        np.testing.assert_allclose(found[name], min(1, fraction) * w.value, rtol=1e-6)
    plain = float(optax.tree.norm(gradient))
    assert abs(plain / effective_norm(gradient) - 1) > 0.1


def test_equivalent_parameterizations_are_clipped_alike(weight):
    """One effective gradient G: the weight's own is G times the multiplier."""

    def clipped(parameterization, tx) -> list[np.ndarray]:
        roles = {"embedding": A, "hidden": A, "readout": B}
        specs = {
            role: weight(g, role, parameterization=parameterization).spec
            for role, g in roles.items()
        }
        gradient = {
            role: sx.Weight(jnp.asarray(g * specs[role].multiplier, jnp.float32), specs[role])
            for role, g in roles.items()
        }
        found = apply(tx, gradient)
        return [found[role] / specs[role].multiplier for role in roles]

    tx = sx.optim.clip_by_effective_norm(1.0)
    for one, other in ((sx.standard, sx.ntk), (sx.mup, sx.mean_field)):
        for g, h in zip(clipped(one, tx), clipped(other, tx), strict=True):
            np.testing.assert_allclose(g, h, rtol=1e-6)
    clip = optax.clip_by_global_norm(1.0)
    assert np.max(np.abs(clipped(sx.standard, clip)[0] - clipped(sx.ntk, clip)[0])) > 0.1


@pytest.mark.parametrize("power", [-110, -80, 80, 110])
def test_squares_neither_underflow_nor_overflow(gradient, power: int):
    scale = np.float32(2.0**power)
    scaled = jax.tree.map(lambda g: g * scale, gradient)
    limit = float(scale) * effective_norm(gradient) / 4
    found = apply(sx.optim.clip_by_effective_norm(limit), scaled)
    np.testing.assert_allclose(found["w"], A * float(scale) / 4, rtol=1e-6)
    assert float(optax.tree.norm(scaled)) in (0.0, np.inf)


def test_a_gradient_of_zero_stays(gradient):
    zero = jax.tree.map(jnp.zeros_like, gradient)
    assert all(np.all(g == 0) for g in apply(sx.optim.clip_by_effective_norm(1.0), zero).values())


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_seen_everywhere(gradient, weight, bad: float):
    spoilt = gradient | {"bias": weight([1.0, bad, 1.0, 1.0], "vector")}
    found = apply(sx.optim.clip_by_effective_norm(1.0), spoilt)
    assert all(np.isnan(g).all() for g in found.values())


def test_the_limit_may_be_traced(gradient):
    limit = 0.3 * effective_norm(gradient)

    @jax.jit
    def clip(limit):
        tx: Any = sx.optim.clip_by_effective_norm(limit)
        return tx.update(gradient, tx.init(gradient))[0]

    found = clip(jnp.asarray(limit))
    np.testing.assert_allclose(found["w"].value, 0.3 * A, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_gradients_have_a_wide_norm(weight, dtype: str):
    """In float16 the sum of squares would overflow."""
    gradient = {"w": weight(np.full((64, 64), 100.0), dtype=dtype)}
    tx: Any = sx.optim.clip_by_effective_norm(64.0)
    update, _ = tx.update(gradient, tx.init(gradient))
    assert update["w"].value.dtype == jnp.dtype(dtype)
    np.testing.assert_allclose(np.asarray(update["w"].value, np.float64), 1.0, rtol=1e-2)


def test_buffers_neither_count_nor_change(gradient, weight):
    with_buffer = gradient | {"table": weight([[1e6]], "buffer")}
    tx = sx.optim.clip_by_effective_norm(1.0)
    found = apply(tx, with_buffer)
    assert found.pop("table").item() == 1e6
    expected = apply(tx, gradient)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_each_update_is_limited_by_its_root_mean_square(weight):
    layers = np.stack([A, 0.01 * A])
    update = {"w": weight(layers), "bias": weight(C, "vector")}
    found = apply(sx.optim.clip_by_rms(0.5), update)
    np.testing.assert_allclose(found["w"][0], 0.5 * A / np.sqrt(np.mean(A**2)), rtol=1e-6)
    np.testing.assert_allclose(found["w"][1], 0.01 * A, rtol=1e-6)
    np.testing.assert_allclose(found["bias"], 0.5 * C / np.sqrt(np.mean(C**2)), rtol=1e-6)
