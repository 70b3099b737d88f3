"""Effective arrays back into weights, against NumPy in float64."""

import math
import re
from fractions import Fraction

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import pytest

import scalex_eqx as sx

KEY = jax.random.key(0)
PARAMETERIZATIONS = (sx.standard, sx.ntk, sx.mup, sx.mean_field)
# A product and a quotient in float32.
TWO_ROUNDINGS = 2 * 2.0**-24 * (1 + 2.0**-20)


def make(width: int):
    return {
        "mlp": eqx.nn.MLP(5, 3, width, 2, key=KEY),
        "own": sx.nn.Linear(width, width, use_bias=True, key=KEY),
        "table": jnp.arange(4),
    }


def build(parameterization=sx.mup, width: int = 48, **options):
    return sx.parameterize(
        make,
        width=width,
        base_width=16,
        parameterization=parameterization,
        factors={"mlp/layers/1/weight": "1/2"},
        frozen=["mlp/layers/0/bias"],
        **options,
    )


def by_path(tree) -> dict[str, np.ndarray]:
    leaves = jtu.tree_leaves_with_path(tree)
    return {
        jtu.keystr(path, simple=True, separator="/").removesuffix("/value"): np.asarray(leaf)
        for path, leaf in leaves
        if eqx.is_array(leaf)
    }


def trained(tree):
    """Numbers that no law has drawn."""
    return jtu.tree_map(lambda a: 2.5 * a + 0.01 if eqx.is_inexact_array(a) else a, tree)


def expect_error(*parts: str):
    return pytest.raises(ValueError, match="(?s)" + ".*".join(map(re.escape, parts)))


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_values_are_the_arrays_over_their_multipliers(parameterization):
    """At r = 3, where they are no powers of two."""
    model = build(parameterization)
    arrays = trained(sx.resolve(model))
    found = sx.unresolve(model, arrays)
    plain, values, back = by_path(arrays), by_path(found), by_path(sx.resolve(found))
    assert values.keys() == plain.keys()
    factors = {}
    for path, weight in sx.weights_with_paths(found).items():
        assert weight.spec is sx.weights_with_paths(model)[path].spec
        extra = Fraction(1, 2) if path == "mlp/layers/1/weight" else Fraction(0)
        factors[path] = 3.0 ** float(parameterization.a[weight.spec.role] + extra)
        expected = plain[path].astype(np.float64) * factors[path]
        np.testing.assert_allclose(values[path], expected, rtol=TWO_ROUNDINGS)
        if factors[path] == 1.0:
            assert np.array_equal(values[path], plain[path])
        np.testing.assert_allclose(back[path], plain[path], rtol=TWO_ROUNDINGS)
    assert len(set(factors.values())) > 1
    assert np.array_equal(values["table"], plain["table"])


def test_it_undoes_resolve_bitwise_at_powers_of_two():
    model = build(width=64)
    assert eqx.tree_equal(sx.unresolve(model, sx.resolve(model)), model)
    # The control: at r = 3 the roundings show.
    other = build(width=48)
    assert not eqx.tree_equal(sx.unresolve(other, sx.resolve(other)), other)


def test_shapes_are_enough_of_a_model():
    model = build(width=64)
    shapes = eqx.filter_eval_shape(build, width=64)
    assert eqx.tree_equal(sx.unresolve(shapes, sx.resolve(model)), model)


def test_numpy_arrays_in_another_order_of_axes():
    """What a PyTorch or Flax user does: name the arrays, and put each into its place."""
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(48, 48)).astype(np.float32), np.ones(48, np.float32)
    model = build(sx.mean_field)
    arrays = eqx.tree_at(
        lambda tree: (tree["own"].weight, tree["own"].bias),
        sx.resolve(model),
        (kernel.T, bias),
    )
    x = rng.normal(size=48).astype(np.float32)
    found = sx.unresolve(model, arrays)["own"]
    assert isinstance(found.weight.value, jax.Array)
    expected = x.astype(np.float64) @ kernel + bias
    np.testing.assert_allclose(found(jnp.asarray(x)), expected, rtol=1e-5, atol=1e-5)


def test_parts_of_a_model():
    model = build()
    arrays = trained(sx.resolve(model))
    spec = jtu.tree_map(lambda _: False, model)
    spec = eqx.tree_at(lambda tree: tree["own"].bias.value, spec, True)
    part, rest = eqx.partition(model, spec)
    of_arrays = jtu.tree_map(lambda _: False, arrays)
    of_arrays = eqx.tree_at(lambda tree: tree["own"].bias, of_arrays, True)
    chosen = eqx.filter(arrays, of_arrays)
    found = sx.unresolve(part, chosen)
    whole = sx.unresolve(model, arrays)
    assert eqx.tree_equal(found, eqx.filter(whole, spec))
    with expect_error("mlp/layers/0/weight: an array; expected nothing"):
        sx.unresolve(part, arrays)
    with expect_error("own/weight: nothing; expected an array"):
        sx.unresolve(model, eqx.filter(arrays, lambda x: False))
    assert sx.weights_with_paths(rest)["own/bias"].value is None


def test_gradients_go_through():
    model = build()
    arrays = sx.resolve(model)

    @eqx.filter_jit
    @eqx.filter_grad
    def gradient(arrays):
        return jnp.sum(sx.unresolve(model, arrays)["mlp"].layers[2].weight.value)

    found = gradient(arrays)["mlp"].layers[2].weight
    np.testing.assert_allclose(found, 3.0**0.5, rtol=1e-6)


class Tied(eqx.Module):
    embedding: sx.nn.Embedding
    readout: sx.nn.TiedReadout

    def __init__(self, width: int):
        self.embedding = sx.nn.Embedding(7, width, key=KEY)
        self.readout = sx.nn.TiedReadout(width)

    def __call__(self, token):
        return self.readout(self.embedding(token), self.embedding)


class SharedTied(eqx.Module):
    shared: eqx.nn.Shared

    def __init__(self, width: int):
        embedding = eqx.nn.Embedding(7, width, key=KEY)
        readout = eqx.nn.Linear(width, 7, use_bias=False, key=KEY)
        self.shared = eqx.nn.Shared(
            (embedding, readout), lambda pair: pair[1].weight, lambda pair: pair[0].weight
        )

    def __call__(self, token):
        embedding, readout = self.shared()
        return readout(embedding(token))


@pytest.mark.parametrize("make", [Tied, SharedTied])
def test_ties(make):
    """The second use is part of what the arrays compute, and is held to be the model's."""

    def build(base_width: int):
        return sx.parameterize(make, width=64, base_width=base_width, parameterization=sx.mup)

    model, token = build(16), jnp.asarray(3)
    arrays = trained(sx.resolve(model))
    found = sx.unresolve(model, arrays)
    np.testing.assert_allclose(sx.resolve(found)(token), sx.resolve(arrays)(token), rtol=1e-5)
    other = trained(sx.resolve(build(32)))
    message = "factors of ties" if make is Tied else "a tie with the factor 0.5; expected 0.25"
    with expect_error(message):
        sx.unresolve(model, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:, :-1], "own/weight: shape (48, 47); expected (48, 48)"),
        (lambda x: x.astype(jnp.bfloat16), "own/weight: dtype bfloat16; expected float32"),
        (lambda x: np.asarray(x, np.float64), "own/weight: dtype float64; expected float32"),
        (lambda x: None, "own/weight: nothing; expected an array"),
        (lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), "own/weight: a ShapeDtypeStruct"),
        (lambda x: 1.0, "own/weight: a float; expected an array of shape (48, 48)"),
    ],
)
def test_an_array_that_does_not_fit_is_named(change, message):
    model = build()
    arrays = eqx.tree_at(lambda tree: tree["own"].weight, sx.resolve(model), replace_fn=change)
    with expect_error("unresolve cannot put the arrays into the model:", message):
        sx.unresolve(model, arrays)


def test_trees_that_differ():
    model = build()
    arrays = sx.resolve(model)
    with expect_error("mlp: missing in arrays", "extra: in arrays, but not in the model"):
        sx.unresolve({"mlp": model["own"].weight}, {"extra": arrays["own"].weight})
    with expect_error("own/weight: a Weight; expected the effective array"):
        sx.unresolve(model, model)
    with expect_error("table: dtype float32; expected int32"):
        sx.unresolve(model, {**arrays, "table": jnp.ones(4)})
    wider = eqx.nn.MLP(5, 3, 16, 2, key=KEY)
    with expect_error("static fields differ"):
        sx.unresolve(model, {**arrays, "mlp": wider})
    with expect_error("not completed"):
        sx.unresolve(make(48)["own"], arrays["own"])


def test_a_model_that_was_grown_computes_what_it_did():
    """As docs/fine-tuning.md does it: every feature is there as often as is needed."""

    def law(width: int):
        return sx.parameterize(
            lambda width: eqx.nn.MLP(5, 3, width, 2, key=KEY),
            width=width,
            base_width=16,
            parameterization=sx.mup,
        )

    def grown(small, large, *, divided: bool = True):
        def wider(array, weight):
            times = [n // m for n, m in zip(weight.value.shape, array.shape, strict=True)]
            summed = math.prod(times[axis] for axis in weight.spec.fan_in)
            return jnp.tile(array, times) / (float(summed) if divided else 1.0)

        arrays, static = eqx.partition(sx.resolve(large), eqx.is_inexact_array)
        old = jtu.tree_leaves(eqx.filter(small, eqx.is_inexact_array))
        new = map(wider, old, sx.weights_with_paths(large).values())
        new = jtu.tree_unflatten(jtu.tree_structure(arrays), new)
        return sx.unresolve(large, eqx.combine(new, static))

    small, large = trained(sx.resolve(law(16))), law(64)
    x = jax.random.normal(KEY, (9, 5))
    expected = reference(small, x)
    found = grown(small, large)
    np.testing.assert_allclose(jax.vmap(sx.resolve(found))(x), expected, rtol=1e-4, atol=1e-4)
    assert found.layers[1].weight.spec.width_ratio == 4
    # The control: features that are summed over as they are.
    wrong = jax.vmap(sx.resolve(grown(small, large, divided=False)))(x)
    assert np.abs(wrong - expected).max() > 0.1


def reference(mlp, x) -> np.ndarray:
    y = np.asarray(x, np.float64)
    for number, layer in enumerate(mlp.layers):
        y = y @ np.asarray(layer.weight, np.float64).T + np.asarray(layer.bias, np.float64)
        y = np.maximum(y, 0) if number < len(mlp.layers) - 1 else y
    return y
