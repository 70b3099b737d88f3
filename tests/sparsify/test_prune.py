"""Masks that change in training: what is kept, and what the optimizer's state makes of it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx

from ._models import DEPTH, WIDTH, batch, dense, loss, masked, trained

PATH = "blocks/weight"


def test_the_largest_entries_are_kept():
    model = masked(1)
    mask = np.asarray(sx.magnitude_masks(model, 0.25)[PATH]).reshape(DEPTH, -1)
    size = np.abs(np.asarray(model.blocks.weight.value)).reshape(DEPTH, -1)
    assert mask.sum(1).tolist() == [WIDTH * WIDTH // 4] * DEPTH
    for layer in range(DEPTH):
        assert size[layer][mask[layer]].min() > size[layer][~mask[layer]].max()
    assert np.array_equal(sx.magnitude_masks(dense(), 0.25)[PATH], mask.reshape(DEPTH, WIDTH, -1))


def test_the_schedule():
    steps = np.array([0, 100, 300, 500, 900])
    found = sx.cubic_density(jnp.asarray(steps), begin=100, end=500, final=0.2)
    np.testing.assert_allclose(found, [1, 1, 0.2 + 0.8 / 8, 0.2, 0.2], rtol=1e-6)
    with pytest.raises(ValueError, match="expected begin before end"):
        sx.cubic_density(0, begin=5, end=5, final=0.1)


@pytest.mark.parametrize("rule", [sx.adam(0.01), sx.adam_atan2(0.01)], ids=["adam", "atan2"])
def test_state_and_values_follow_the_mask(rule: Any):
    model, state = trained(masked(1), rule)
    model, state = jax.jit(lambda m, s, d: sx.pruned(m, d, s))(*_arrays(model, state), 0.25)
    out = ~np.asarray(model.blocks.weight.mask)
    assert out.mean() == 0.75
    arrays = [
        w.value
        for w in jax.tree.leaves((model, state), is_leaf=lambda x: isinstance(x, sx.Weight))
        if isinstance(w, sx.Weight) and w.spec.density
    ]
    assert len(arrays) == 3
    assert not any(np.asarray(x)[out].any() for x in arrays)
    # What has been left out doesn't move any more.
    again, _ = stepped(model, state, rule)
    assert not np.asarray(again.blocks.weight.value)[out].any()


def _arrays(model: Any, state: Any) -> Any:
    return eqx.filter(model, eqx.is_array), state


def stepped(model: Any, state: Any, tx: Any) -> Any:
    gradient = eqx.filter_grad(loss)(model, *batch())
    params = eqx.filter(model, eqx.is_inexact_array)
    updates, state = tx.update(gradient, state, params)
    return eqx.apply_updates(model, updates), updates


@pytest.mark.parametrize("warm", [True, False])
def test_what_is_taken_in_moves_no_more_than_the_rest(warm: bool):
    """Without the remedy its first update is (1 - b1) / sqrt(1 - b2) = 3.16 of the rate."""
    tx, rate = sx.adam(0.01), 0.01 * 0.5
    first, other = (
        {PATH: masked("1/2", pattern="balanced").blocks.weight.mask},
        {PATH: sx.sparsify(dense(), "1/2", key=jax.random.key(9)).blocks.weight.mask},
    )
    model, _ = sx.remasked(masked(1), first)
    model, state = trained(model, tx, steps=40)
    # At the middle of a training the correction for the start is gone: 0.999^4000 is 0.02.
    count = jnp.asarray(4000, jnp.int32)
    state = eqx.tree_at(lambda s: s[0].count, state, count)
    old = np.asarray(model.blocks.weight.mask)
    model, state = sx.remasked(model, other, state, warm=warm)
    taken = np.asarray(model.blocks.weight.mask) & ~old
    _, updates = stepped(model, state, tx)
    size = np.sqrt(np.mean(np.square(np.asarray(updates.blocks.weight.value)[taken]))) / rate
    if warm:
        assert size < 1
    else:
        assert size == pytest.approx(0.1 / np.sqrt(0.001), rel=0.05)


def test_paths_without_masks_are_refused():
    mask = jnp.ones((DEPTH, WIDTH, WIDTH), bool)
    with pytest.raises(ValueError, match=r"masks\['blocks/weight'\] has no masked weight"):
        sx.remasked(dense(), {PATH: mask})
    with pytest.raises(ValueError, match=r"has the shape \(2,\); expected \(2, 16, 16\)"):
        sx.remasked(masked(1), {PATH: mask[:, 0, 0]})
