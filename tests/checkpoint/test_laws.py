"""A checkpoint is read back only into a tree with the same scaling laws."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import scalex_eqx as sx


# The trees are never changed, and cost seconds.
@functools.cache
def model(parameterization=sx.standard, *, width=32, base_width=16, seed=0, tied=False):
    make = functools.partial(
        sx.nn.Transformer,
        vocabulary_size=5,
        sequence_length=4,
        depth=1,
        head_dimension=8,
        tied=tied,
        key=jax.random.key(seed),
    )
    return sx.parameterize(
        lambda width: make(width=width),
        width=width,
        base_width=base_width,
        parameterization=parameterization,
    )


def state_of(model):
    return sx.adam(0.1).init(eqx.filter(model, eqx.is_inexact_array))


def assert_equal(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    assert all(map(jnp.array_equal, jax.tree.leaves(tree), jax.tree.leaves(other)))


def test_round_trip(tmp_path):
    tree = (model(), state_of(model()))
    sx.save(tmp_path / "a.eqx", tree)
    blank = (model(seed=1), state_of(model(seed=1)))
    assert_equal(sx.load(tmp_path / "a.eqx", blank), tree)
    shapes = eqx.filter_eval_shape(lambda: blank)
    assert_equal(sx.load(tmp_path / "a.eqx", shapes), tree)


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (lambda: model(sx.ntk), "blocks/mlp/up/weight: a is 0 in the file, 1/2 in the tree"),
        (lambda: model(base_width=8), "width_ratio is 2 in the file, 4 in the tree"),
        (lambda: model(tied=True), "readout/weight: only in the file"),
        (lambda: {"w": jnp.ones(3)}, "only in the file"),
    ],
    ids=["parameterization", "base width", "tied", "no weights"],
)
def test_other_laws_are_refused(tmp_path, other, difference):
    sx.save(tmp_path / "a.eqx", model())
    with pytest.raises(ValueError, match="other scaling laws") as error:
        sx.load(tmp_path / "a.eqx", other())
    assert difference in str(error.value)


def test_without_the_laws_equinox_would_have_read_it(tmp_path):
    """The control: shapes alone don't tell standard from NTK."""
    eqx.tree_serialise_leaves(tmp_path / "a.eqx", model())
    eqx.tree_deserialise_leaves(tmp_path / "a.eqx", model(sx.ntk))


def test_other_files_are_refused(tmp_path):
    eqx.tree_serialise_leaves(tmp_path / "a.eqx", model())
    with pytest.raises(ValueError, match="not a checkpoint written by"):
        sx.load(tmp_path / "a.eqx", model())
    (tmp_path / "b.eqx").write_text('{"format": "another"}\n')
    with pytest.raises(ValueError, match="not a checkpoint written by"):
        sx.load(tmp_path / "b.eqx", model())


def test_fingerprints_tell_laws_apart_and_not_values():
    assert sx.fingerprint(model()) == sx.fingerprint(model(seed=1))
    others = [model(sx.ntk), model(sx.mup), model(base_width=8), model(tied=True)]
    assert len({sx.fingerprint(m) for m in [model(), *others]}) == 5


def test_random_keys_and_activation_functions_are_kept(tmp_path):
    tree = {"key": jax.random.key(3), "rbg": jax.random.key(1, impl="rbg"), "act": jax.nn.relu}
    sx.save(tmp_path / "a.eqx", tree)
    like = {"key": jax.random.key(0), "rbg": jax.random.key(0, impl="rbg"), "act": jax.nn.relu}
    for blank in (like, eqx.filter_eval_shape(lambda: like)):
        read = sx.load(tmp_path / "a.eqx", blank)
        for name in ("key", "rbg"):
            assert jax.random.normal(read[name]) == jax.random.normal(tree[name])


@pytest.mark.parametrize(
    ("like", "difference"),
    [
        ({"y": jnp.ones(3)}, "x: only in the file"),
        ({"x": jnp.ones(4), "y": jnp.ones(3)}, "x: shape is [3] in the file, [4] in the tree"),
        ({"x": jnp.ones(3, "bfloat16"), "y": jnp.ones(3)}, "x: dtype is float32 in the file"),
    ],
)
def test_other_arrays_are_refused(tmp_path, like, difference):
    sx.save(tmp_path / "a.eqx", {"x": jnp.zeros(3), "y": jnp.ones(3)})
    with pytest.raises(ValueError, match="other arrays") as error:
        sx.load(tmp_path / "a.eqx", like)
    assert difference in str(error.value)
