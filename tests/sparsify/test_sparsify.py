"""Masks: how many entries, which weights, where they go, and what is refused."""

import dataclasses
import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx

from ._models import DEPTH, WIDTH, Stack, batch, dense, loss, masked, trained


@pytest.mark.parametrize(
    ("pattern", "density", "kept"),
    [
        # Of 256 entries, 16 inputs each, 16 blocks of 16 and groups of 4.
        ("unstructured", "1/3", Fraction(85, 256)),
        ("balanced", "1/3", Fraction(5, 16)),
        ("4x4", "3/5", Fraction(10, 16)),
        ("2:4", "1/2", Fraction(1, 2)),
    ],
)
def test_numbers_of_entries_are_exact(pattern: str, density: str, kept: Fraction):
    mask, spec = (lambda w: (w.mask, w.spec))(masked(density, pattern=pattern).blocks.weight)
    assert spec.density == kept
    assert spec.size_ratio("density") == kept
    assert mask.dtype == bool
    # Each layer of the stack has as many, at places of its own.
    counts = np.asarray(mask).reshape(DEPTH, -1).sum(1)
    assert counts.tolist() == [kept * WIDTH * WIDTH] * DEPTH
    assert not np.array_equal(mask[0], mask[1])
    if pattern == "balanced":
        assert set(np.asarray(mask).sum(2).ravel().tolist()) == {5}
    if pattern == "4x4":
        blocks = np.asarray(mask).reshape(DEPTH, 4, 4, 4, 4).sum((2, 4))
        assert set(blocks.ravel().tolist()) == {0, 16}
    if pattern == "2:4":
        assert set(np.asarray(mask).reshape(DEPTH, WIDTH, 4, 4).sum(3).ravel().tolist()) == {2}


def test_masks_keep_any_entry_equally_often():
    """10 000 masks of 6 of 16: a share has a standard error of 0.0048."""
    from scalex_eqx._sparsify._draw import drawn

    spec = sx.WeightSpec(fan_in=(-1,), fan_out=(-2,))
    keys = jax.random.split(jax.random.key(0), 10_000)
    masks = jax.vmap(lambda key: drawn(key, "unstructured", Fraction(3, 8), spec, (4, 4)))(keys)
    assert (masks.sum((1, 2)) == 6).all()
    np.testing.assert_allclose(masks.mean(0), 3 / 8, atol=5 * 0.0048)


def test_fans_of_several_axes():
    """A convolution's kernel, (in, out) the other way round, and blocks along its fans."""
    from scalex_eqx._sparsify._draw import drawn

    spec = sx.WeightSpec(fan_in=(-4, -3, -2), fan_out=(-1,))
    mask = drawn(jax.random.key(0), "balanced", Fraction(1, 2), spec, (5, 3, 3, 2, 4))
    assert mask.shape == (5, 3, 3, 2, 4)
    assert (mask.sum((1, 2, 3)) == 9).all()


def test_which_weights_and_by_role_pattern_and_function():
    assert [path for path, w in sx.weights_with_paths(masked()).items() if w.spec.density] == [
        "blocks/weight"
    ]
    for density in ({"hidden": "1/2"}, {"blocks/*ght": 0.5}, {Stack: {"blocks/*": "1/2"}}):
        assert masked(density).blocks.weight.spec.density == Fraction(1, 2)
    # A pattern goes before the role.
    both = {"hidden": "1/2", "blocks/weight": "1/4"}
    assert masked(both).blocks.weight.spec.density == Fraction(1, 4)
    by_path = masked(lambda path, x: "1/4" if path == "blocks/weight" else None)
    assert eqx.tree_equal(by_path, masked("1/4"))


def test_the_law_is_that_of_the_ratio():
    base, model = dense(), masked("1/4", base_density="1/2")
    weight = model.blocks.weight
    assert weight.spec.size_ratio("density") == Fraction(1, 2)
    kept = np.where(weight.mask, base.blocks.weight.value, 0)
    np.testing.assert_allclose(weight.value, kept * 2**0.5, rtol=1e-6)
    assert weight.spec.initial_std == pytest.approx(base.blocks.weight.spec.initial_std * 2**0.5)
    row = sx.plan(model, sx.adam(1.0)).rows[1]
    assert (row.path, row.learning_rate_factor) == ("blocks/weight", 0.5 * 2)
    # Without a base, and for a trained model, values stay.
    for options in ({"base_density": None}, {"values": "keep"}):
        assert np.array_equal(masked("1/4", **options).blocks.weight.value, kept)
    assert masked("1/4", base_density=None).blocks.weight.spec.sizes == ()


def test_where_width_and_density_make_up_for_each_other_it_is_the_base_model():
    """m_d m_rho = 1: the table's hidden factors are 1, and muP's alone are not."""
    spec = masked("1/2").blocks.weight.spec
    assert spec.width_ratio == 2
    tx = sx.adam(1.0)
    by_path = {row.path: row for row in sx.plan(masked("1/2"), tx).rows}
    assert by_path["blocks/weight"].learning_rate_factor == 1.0
    assert spec.initial_std == spec.std
    alone = {row.path: row for row in sx.plan(masked("1/2", base_density=None), tx).rows}
    assert alone["blocks/weight"].learning_rate_factor == 0.5


@pytest.mark.parametrize(
    ("rule", "tolerance"),
    # Muon's matrix is multiplied by one more number, 1, and XLA rounds elsewhere: 3 steps of 1e-7.
    [(sx.adam(0.01), 0), (sx.adafactor(0.01), 0), (sx.muon(0.01), 1e-6)],
    ids=["adam", "adafactor", "muon"],
)
def test_density_one_is_the_dense_model_to_the_bit(rule: Any, tolerance: float):
    one, other = trained(dense(), rule)[0], trained(masked(1), rule)[0]
    for path, weight in sx.weights_with_paths(one).items():
        found = sx.weights_with_paths(other)[path].value
        np.testing.assert_allclose(found, weight.value, rtol=0, atol=tolerance, err_msg=path)


def test_the_forward_pass_leaves_out_what_is_masked():
    model = masked()
    weight = model.blocks.weight
    # Whatever a foreign rule has left there, not even a NaN comes through, forth or back.
    value = jnp.where(weight.mask, weight.value, jnp.nan)
    spoilt = eqx.tree_at(lambda m: m.blocks.weight.value, model, value)
    assert np.array_equal(sx.effective(spoilt.blocks.weight), sx.effective(weight))
    one, other = (eqx.filter_grad(loss)(m, *batch()).blocks.weight for m in (model, spoilt))
    assert np.array_equal(one.value, other.value)
    assert not np.any(np.asarray(one.value)[~np.asarray(weight.mask)])
    # By hand.
    x = jnp.ones(WIDTH)
    layer = jax.tree.map(lambda leaf: leaf[1], model.blocks)
    by_hand = weight.spec.multiplier * np.where(weight.mask, weight.value, 0)[1] @ x
    np.testing.assert_allclose(layer(x), by_hand, rtol=1e-5, atol=1e-6)


def test_masks_go_where_the_weights_go(tmp_path: Path):
    model = masked()
    # Bits in a file, and a checkpoint of another density is refused.
    sx.save(tmp_path / "masked", model)
    sx.save(tmp_path / "dense", dense())
    more = (tmp_path / "masked").stat().st_size - (tmp_path / "dense").stat().st_size
    assert more < DEPTH * WIDTH * WIDTH / 8 + 200
    like = eqx.filter_eval_shape(masked)
    assert eqx.tree_equal(sx.load(tmp_path / "masked", like), model)
    with pytest.raises(ValueError, match="density is 1/4 in the file, 1/2 in the tree"):
        sx.load(tmp_path / "masked", masked("1/2"))

    # Traced, and several at once.
    def make(key: Any) -> Any:
        return sx.sparsify(dense(key=key), "1/4", key=key, pattern="balanced").blocks.weight

    two = eqx.filter_vmap(make)(jax.random.split(jax.random.key(0), 2))
    assert two.mask.shape == (2, DEPTH, WIDTH, WIDTH)
    assert eqx.tree_equal(
        jax.tree.map(lambda x: x[0], two), make(jax.random.split(jax.random.key(0), 2)[0])
    )
    # In another parameterization, and back from effective arrays.
    converted, _ = sx.convert(masked(law=sx.standard), to=sx.ntk)
    assert np.array_equal(converted.blocks.weight.mask, model.blocks.weight.mask)
    arrays = jax.tree.map(lambda x: x + 1, sx.resolve(model))
    again = sx.unresolve(model, arrays).blocks.weight
    assert np.array_equal(np.asarray(again.value) != 0, model.blocks.weight.mask)
    frozen = sx.freeze(model, ["blocks/weight"]).blocks.weight
    assert type(frozen) is sx.Masked
    assert pickle.loads(pickle.dumps(frozen.spec)) is frozen.spec
    assert "density 1/4" in repr(frozen)


def test_a_mask_that_is_filtered_out_is_missed():
    with pytest.raises(ValueError, match="without its mask"):
        sx.resolve(eqx.filter(masked(), eqx.is_inexact_array))


@pytest.mark.parametrize(
    ("density", "options", "message"),
    [
        (0, {}, r"density is 0; expected a number above 0 and at most 1"),
        (1.5, {}, r"density is 1.5; expected"),
        ("half", {}, "density is 'half'; expected"),
        (1, {"base_density": 0}, "base_density is 0; expected"),
        ({"hidden": 0}, {}, r"density\['hidden'\] is 0"),
        ({"nothing": 1}, {}, r"density\['nothing'\] matches no array"),
        ({"readout/weight": 1}, {}, "readout/weight: has the role readout, .* leave it dense"),
        ("1/32", {"pattern": "unstructured"}, "density 1/32 of 16 inputs leaves less than one"),
        ("1/16", {"pattern": "unstructured"}, r"blocks/weight: \d+ outputs have no entry"),
        ("1/4", {"pattern": "2:4"}, "pattern '2:4' has a density of 1/2"),
        ("1/2", {"pattern": "3:6"}, "a divisor of the fan-in"),
        ("1/2", {"pattern": "5x4"}, "blocks of 5 outputs by 4 inputs, and the fans are 16 by 16"),
        ("1/2", {"pattern": "rows"}, "pattern is 'rows'; expected 'unstructured'"),
        ("1/2", {"values": "drop"}, 'values is .drop.; expected "rescale" or "keep"'),
    ],
)
def test_bad_densities_are_named(density: Any, options: Any, message: str):
    with pytest.raises(ValueError, match=message):
        masked(density, **options)


def test_masks_of_ones_own():
    model, shape = dense(), (DEPTH, WIDTH, WIDTH)
    mask = np.asarray(masked("1/4").blocks.weight.mask)
    same = sx.with_masks(model, {"blocks/weight": mask})
    assert eqx.tree_equal(same, masked("1/4"))
    empty, uneven = mask.copy(), mask.copy()
    empty[:, 3], uneven[0, 0] = False, True
    for wrong, message in (
        (np.ones(shape[1:], bool), r"the mask is bool\[16,16\]; expected bool\[2,16,16\]"),
        (np.ones(shape), r"the mask is float64\[2,16,16\]; expected bool"),
        (np.zeros(shape, bool), "the mask keeps nothing"),
        (empty, "2 outputs have no entry at density 15/64"),
        (uneven, "the stacked masks keep from 64 to 76 entries"),
    ):
        with pytest.raises(ValueError, match=message):
            sx.with_masks(model, {"blocks/weight": wrong})
    with pytest.raises(ValueError, match=r"masks\['block'\] matches no weight"):
        sx.with_masks(model, {"block": mask})
    with pytest.raises(ValueError, match="is masked already"):
        sx.with_masks(same, {"blocks/weight": mask})
    with pytest.raises(ValueError, match="no weight of the model is chosen"):
        sx.with_masks(model, {})


def test_the_plan_says_whose_rule_it_is():
    text = str(sx.plan(masked(), sx.adam(0.01)))
    assert "density 1/4 of blocks/weight; density ratio 1/4" in text
    assert "learning rate of adam as density^-1, eps not at all (Dey et al. (2024)" in text
    told = str(sx.plan(masked(), sx.adafactor(0.01, sx.full_alignment)))
    assert "learning rate of adafactor as density^-1/2, eps not at all (derived here" in told
    assert "nothing follows it" in str(sx.plan(masked(base_density=None), sx.adam(0.01)))
    rates = str(sx.plan(masked(), sx.adam(0.01, sx.global_rate)))
    assert "these rates don't follow it; the spread does" in rates
    row = next(row for row in sx.plan(masked(), sx.adam(0.01)).rows if row.density)
    assert row.found_std == pytest.approx(row.intended_std, rel=0.15)
    assert dataclasses.asdict(row)["density_ratio"] == Fraction(1, 4)
    assert '"density"' not in sx.plan(dense(), sx.adam(0.01)).to_json()
