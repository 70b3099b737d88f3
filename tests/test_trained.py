"""A law for a model that has been trained, through the function that makes it."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import pytest
from jax.core import Tracer

import scalex_eqx as sx

from .test_unresolve import KEY, SharedTied, Tied, expect_error, reference, trained

PARAMETERIZATIONS = (sx.standard, sx.ntk, sx.mup, sx.mean_field)


def mlp(width: int) -> eqx.nn.MLP:
    return eqx.nn.MLP(5, 3, width, 2, key=KEY)


def make(width: int):
    return {"mlp": mlp(width), "own": sx.nn.Linear(width, width, use_bias=True, key=KEY)}


def law(trained, parameterization=sx.mup, make=make, width: int = 48, **options):
    options = {"base_width": 16, **options}
    return sx.parameterize(
        make, width=width, parameterization=parameterization, trained=trained, **options
    )


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_it_computes_what_it_did(parameterization):
    """At r = 3, against NumPy in float64: two roundings in each of three layers."""
    model = trained(mlp(48))
    x = jax.random.normal(KEY, (32, 5))
    found = law(model, parameterization, mlp)
    expected = reference(model, x)
    error = np.linalg.norm(np.asarray(jax.vmap(sx.resolve(found))(x)) - expected)
    assert error / np.linalg.norm(expected) < 3 * 2 * 2**-24 * 4
    # The control: what the law takes for a fresh draw computes something else.
    fresh = sx.parameterize(mlp, width=48, base_width=16, parameterization=parameterization)
    other = np.asarray(jax.vmap(sx.resolve(fresh))(x))
    assert np.linalg.norm(other - expected) / np.linalg.norm(expected) > 0.1


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_it_is_what_parameterize_model_returns(parameterization):
    model = trained(make(48))
    expected = sx.parameterize_model(
        model,
        eqx.filter_eval_shape(make, 16),
        eqx.filter_eval_shape(make, 32),
        parameterization=parameterization,
        values="keep",
    )
    assert eqx.tree_equal(law(model, parameterization), expected)
    # Plain arrays, as `resolve` returns them, are as good: the layers' specs come from `make`.
    assert eqx.tree_equal(law(sx.resolve(model), parameterization), expected)
    assert expected["own"].weight.spec.std is None


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_its_steps_follow_the_law_from_there_on(parameterization):
    """Adam's first update is its learning rate; that of an effective weight is r^-(a + c) of it.

    Under full alignment that is 1, 1/r and 1/r in all four parameterizations, whatever the values.
    """
    model = law(trained(mlp(48)), parameterization, mlp)
    x = jax.random.normal(KEY, (8, 5))
    gradient = eqx.filter_grad(lambda m: jnp.sum(jax.vmap(sx.resolve(m))(x) ** 2))(model)
    tx = sx.adam(1e-3, eps=0.0)
    params = eqx.filter(model, eqx.is_inexact_array)
    updates, _ = tx.update(gradient, tx.init(params), params)
    sizes = {}
    for path, update in sx.weights_with_paths(updates).items():
        sizes[path] = np.abs(np.asarray(update.value, np.float64) * update.spec.multiplier).max()
    for layer, expected in enumerate((1e-3, 1e-3 / 3, 1e-3 / 3)):
        assert sizes[f"layers/{layer}/weight"] == pytest.approx(expected, rel=1e-5)


def test_at_its_own_width_nothing_is_scaled():
    model = trained(make(48))
    found = law(model, base_width=48)
    plain = dict(zip(sx.weights_with_paths(found), arrays(model), strict=True))
    for path, weight in sx.weights_with_paths(found).items():
        assert weight.spec.width_ratio == 1 and weight.spec.multiplier == 1.0
        assert np.array_equal(weight.value, plain[path])
    roles = {path: str(w.spec.role) for path, w in sx.weights_with_paths(found).items()}
    assert roles["mlp/layers/0/weight"] == "embedding"
    assert roles["own/weight"] == "hidden"
    assert {row.learning_rate for row in sx.plan(found, sx.adam(1e-2)).rows} == {1e-2}


def arrays(model):
    return jtu.tree_leaves(eqx.filter(model, eqx.is_inexact_array))


def test_make_draws_nothing():
    drawn = []

    def counted(width: int):
        model = make(width)
        drawn.extend(x for x in arrays(model) if not isinstance(x, Tracer))
        return model

    model = trained(make(48))
    law(model, make=counted)
    assert drawn == []
    sx.parameterize(counted, width=48, base_width=16, parameterization=sx.mup)
    assert drawn != []


def test_a_model_of_another_law_gets_this_one():
    """Another base and parameterization, frozen weights: effective weights are all that counts."""
    before = sx.freeze(law(trained(make(64)), sx.ntk, width=64), ["own/*"])
    after = law(before, sx.mean_field, width=64, base_width=4)
    assert eqx.tree_equal(sx.resolve(after), sx.resolve(before))
    assert {w.spec.width_ratio for w in sx.weights_with_paths(after).values()} == {16}
    assert all(w.spec.is_trained for w in sx.weights_with_paths(after).values())


def test_a_deeper_model():
    def blocks(width: int, depth: int):
        return sx.nn.Transformer(
            vocabulary_size=7,
            sequence_length=4,
            width=width,
            depth=depth,
            head_dimension=4,
            key=KEY,
        )

    model = trained(blocks(16, 4))
    found = law(
        model,
        sx.mup.deep(1),
        blocks,
        width=16,
        base_width=8,
        depth=4,
        base_depth=2,
    )
    down = sx.weights_with_paths(found)["blocks/mlp/down/weight"]
    assert down.spec.multiplier == 0.5
    assert np.array_equal(down.value, 2 * model.blocks.mlp.down.weight.value)
    tokens = jnp.arange(4)
    np.testing.assert_allclose(found(tokens), model(tokens), rtol=1e-4, atol=1e-4)


def test_weights_of_numpy_and_of_other_dtypes():
    model = jtu.tree_map(
        lambda x: np.asarray(x.astype(jnp.bfloat16)) if eqx.is_inexact_array(x) else x,
        trained(make(64)),
    )
    found = law(model, width=64)
    assert {str(w.value.dtype) for w in sx.weights_with_paths(found).values()} == {"bfloat16"}
    # Powers of two are exact.
    plain = jtu.tree_leaves(eqx.filter(model, lambda x: isinstance(x, np.ndarray)))
    for one, other in zip(arrays(sx.resolve(found)), plain, strict=True):
        assert np.array_equal(one, other)
    wide = eqx.tree_at(lambda m: m["own"].bias.value, model, np.zeros(64))
    with expect_error("own/bias: dtype float64, which JAX has not enabled; cast it"):
        law(wide, width=64)


def test_a_model_that_is_not_the_one_that_is_made():
    with expect_error(
        "trained is not the model that make builds at width 48:",
        "mlp/layers/0/weight: shape (32, 5); expected (48, 5)",
        "own/bias: shape (32,); expected (48,)",
    ):
        law(make(32))
    with expect_error("extra (only in trained)", "own/bias (only in what is made)"):
        law({"mlp": mlp(48), "own": sx.nn.Linear(48, 48, key=KEY), "extra": jnp.ones(3)})
    with expect_error("mlp/layers/0/bias: a ShapeDtypeStruct; expected an array of shape (48,)"):
        law(eqx.filter_eval_shape(make, 48))


# Ties, of which the factor has no value that it could move into.


@pytest.mark.parametrize("make", [Tied, SharedTied])
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_a_tie_of_another_factor_is_refused(make, parameterization):
    """The library's readout divides by the root of its own width, one of Equinox by nothing."""
    model = trained(make(64))
    own, expected = (0.125, 0.25 / 4) if make is Tied else (1, 0.25)
    name = "embedding/weight" if make is Tied else "shared/pytree/0/weight"
    with expect_error(
        f"the tie has the factor {own:.4g}, and the law asks for {expected:.4g}",
        f"steps of {name} would move the logits {own / expected:.4g} times as far",
    ):
        law(model, parameterization, make, width=64)
    token = jnp.asarray(3)
    for options in ({"frozen": [name]}, {"base_width": 64}):
        found = law(model, parameterization, make, width=64, **options)
        np.testing.assert_allclose(sx.resolve(found)(token), sx.resolve(model)(token), rtol=1e-5)


@pytest.mark.parametrize("make", [Tied, SharedTied])
def test_a_tie_of_the_law_is_kept(make):
    """A model that was tuned under the law, and comes back as plain arrays."""
    before = sx.parameterize(make, width=64, base_width=16, parameterization=sx.ntk)
    arrays, token = trained(sx.resolve(before)), jnp.asarray(3)
    after = law(arrays, sx.mup, make, width=64)
    np.testing.assert_allclose(sx.resolve(after)(token), arrays(token), rtol=1e-5)
    with expect_error("the tie has the factor"):
        law(arrays, sx.mup, make, width=64, base_width=32)


def test_what_the_refused_tie_would_do():
    """With the same embeddings, one step moves the logits in the ratio that the error names."""

    def moved(model) -> float:
        def loss(model):
            return sx.resolve(model)(jnp.asarray(3))[0]

        tx = sx.adam(1e-3, eps=0.0)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, _ = tx.update(eqx.filter_grad(loss)(model), tx.init(params), params)
        return float(loss(eqx.apply_updates(model, updates)) - loss(model))

    frozen = law(trained(Tied(64)), sx.mup, Tied, width=64, frozen=["embedding/weight"])
    of_law = sx.parameterize(Tied, width=64, base_width=16, parameterization=sx.mup)
    kept = sx.unfreeze(frozen, ["embedding/weight"])
    same = eqx.tree_at(lambda m: m.embedding, of_law, kept.embedding)
    assert moved(kept) / moved(same) == pytest.approx(2.0, rel=1e-3)


def test_the_error_leads_somewhere():
    with pytest.raises(ValueError, match=re.escape("docs/foreign.md#a-trained-model")):
        law(make(32))
