"""What is masked stays zero under every rule, and what is kept is moved as the law says."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
import pytest

import scalex_eqx as sx
from scalex_eqx.optim import _parameter_scaling
from scalex_eqx.optim._catalogue import catalogue
from scalex_eqx.optim._sizes import root_mean_square

from .._statistics import with_statistics
from ._models import WIDTH, dense, masked, trained

NAMES = [*catalogue, "stochastic", "optax"]


def transformation(name: str) -> optax.GradientTransformation:
    if name == "stochastic":
        tx = sx.adam(0.01)
        return sx.optim.low_precision(tx, "stochastic", key=jax.random.key(0))
    if name == "optax":
        chain = (optax.scale_by_adam(), sx.scale_by_width("adam", sx.full_alignment))
        return optax.chain(*chain, optax.scale(-0.01))
    entry = catalogue[name]
    options: dict[str, Any] = {"weight_decay": 0.1, "decay_mode": "independent"}
    options = options if entry.decay else {}
    own: dict[str, Any] = {"min_factored_size": 2} if name == "adafactor" else {}
    return with_statistics(entry.optimizer(0.01, sx.full_alignment, **options, **own))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_masked_stays_zero(name: str):
    """Value, update and each array of the state that has the weight's shape."""
    start = masked()
    if name == "stochastic":
        start = jax.tree.map(
            lambda x: x.astype("bfloat16") if eqx.is_inexact_array(x) else x, start
        )
    out = ~np.asarray(start.blocks.weight.mask)
    with jax.numpy_dtype_promotion("standard" if name == "optax" else "strict"):
        model, state = trained(start, transformation(name))
    moved = np.asarray(model.blocks.weight.value, np.float32)
    before = np.asarray(start.blocks.weight.value, np.float32)
    assert not moved[out].any()
    assert (moved[~out] != before[~out]).mean() > 0.9
    weights = [
        w
        for w in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, sx.Weight))
        if isinstance(w, sx.Weight) and w.spec.density and w.value is not None
    ]
    for weight in weights:
        if weight.value.shape == out.shape:
            assert not np.asarray(weight.value, np.float32)[out].any()
        # A mask of its own in the state would be donated with the model's.
        assert name == "optax" or type(weight) is sx.Weight
    assert type(model.blocks.weight) is sx.Masked


def test_the_negative_control_moves_what_is_masked():
    """Muon knows of the density from the spec: without it the update fills the whole matrix."""
    import dataclasses

    start = masked()
    weight = start.blocks.weight
    blind = sx.Masked(weight.value, dataclasses.replace(weight.spec, density=None), weight.mask)
    start = eqx.tree_at(
        lambda m: m.blocks.weight, start, blind, is_leaf=lambda x: isinstance(x, sx.Weight)
    )
    model, _ = trained(start, sx.muon(0.01), steps=1)
    assert np.asarray(model.blocks.weight.value)[~np.asarray(weight.mask)].any()


def updated(density: Any, name: str, gradient: Any) -> Any:
    """The first update, without its learning rate's factor, of what is kept."""
    model = masked(density, values="keep")
    weight = model.blocks.weight
    own = {"min_factored_size": 2} if name == "adafactor" else {}
    tx = catalogue[name].rule(**own)
    params = eqx.filter(model, eqx.is_inexact_array)
    gradients = jax.tree.map(lambda x: x, params)
    value = jax.numpy.where(weight.mask, gradient, 0)
    gradients = eqx.tree_at(lambda m: m.blocks.weight.value, gradients, value)
    update: Any = tx.update(gradients, tx.init(params), params)[0]
    return np.asarray(update.blocks.weight.value)[np.asarray(weight.mask)], weight


@pytest.mark.parametrize("name", ["adafactor", "adam_parameter_scaling"])
def test_statistics_count_what_is_kept(name: str, monkeypatch: pytest.MonkeyPatch):
    """With gradients of one size every kept entry moves by RMS(w) over what is kept.

    A version that counts all entries in one place, and what is kept in another, doesn't.
    """
    gradient = jax.numpy.ones((2, WIDTH, WIDTH))
    # As many in each row; Adafactor's columns scatter, which the mean over all takes out.
    found, weight = updated("1/4", name, gradient)
    kept = np.asarray(weight.value)[np.asarray(weight.mask)].reshape(2, -1)
    size = np.sqrt(np.mean(np.square(kept), axis=1, keepdims=True))
    ratio = np.sqrt(np.mean(np.square(found.reshape(2, -1) / size)))
    assert ratio == pytest.approx(1, rel=0.02)
    monkeypatch.setattr(
        _parameter_scaling,
        "kept_root_mean_square",
        lambda _, x, axes, unit=None: root_mean_square(x, axes, unit),
    )
    wrong, _ = updated("1/4", name, gradient)
    ratio = np.sqrt(np.mean(np.square(wrong.reshape(2, -1) / size)))
    assert ratio == pytest.approx(1 / 2, rel=0.02)


@pytest.mark.parametrize("density", [1, 0.5, 0.1])
def test_what_a_mask_leaves_of_an_orthogonal_matrix_is_no_larger(density: float):
    """Of a gradient of rank one the rest adds up in its direction: six times one, at half of it."""
    from scalex_eqx.ops import orthogonalized
    from scalex_eqx.optim._masked import masked_like

    rng = np.random.default_rng(0)
    mask = rng.random((2, 48, 64)) < density
    gradient = np.where(mask, rng.normal(size=(2, 48, 1)) * rng.normal(size=(2, 1, 64)), 0)
    gradient = jax.numpy.asarray(gradient, "float32")
    whole = orthogonalized(gradient)
    found = np.asarray(masked_like(whole, gradient))
    assert not found[~mask].any()
    left = np.linalg.svd(np.where(mask, whole, 0), compute_uv=False)[:, 0]
    size = np.linalg.svd(found, compute_uv=False)[:, 0]
    # The power method is a little short of it, from below.
    np.testing.assert_allclose(size, np.minimum(left, 1.25), rtol=0.05)
    assert density == 1 or (left > 1.4).all()


def test_gradients_of_plain_jax():
    """Masks are truth values: JAX wants to be told that there are such arguments."""
    model, tx = masked(), sx.adam(0.01)
    from ._models import batch, loss

    gradient = jax.grad(loss, allow_int=True)(model, *batch())
    params = eqx.filter(model, eqx.is_inexact_array)
    update, _ = tx.update(eqx.filter(gradient, eqx.is_inexact_array), tx.init(params), params)
    expected, _ = trained(model, tx, steps=1)
    for one, other in zip(
        jax.tree.leaves(eqx.apply_updates(model, update)), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-8)


def test_a_dense_model_of_the_same_law_is_left_alone():
    assert not [w for w in sx.weights_with_paths(dense()).values() if type(w) is not sx.Weight]
