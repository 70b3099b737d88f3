import dataclasses
from fractions import Fraction

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import pytest
from jax.core import Tracer

import scalex_eqx as sx
from scalex_eqx import Role, WeightSpec

KEY = jax.random.key(0)
BASE = 16

PARAMETERIZATIONS = (sx.standard, sx.ntk, sx.mup, sx.mean_field)
# Exponents of the initial spread: embedding, hidden, readout.
B = {
    "standard": (0.0, 0.5, 0.5),
    "ntk": (0.0, 0.0, 0.0),
    "mup": (0.5, 0.5, 0.5),
    "mean_field": (0.0, 0.0, 0.0),
}
# Exponents of the multiplier.
A = {
    "standard": (0.0, 0.0, 0.0),
    "ntk": (0.0, 0.5, 0.5),
    "mup": (-0.5, 0.0, 0.5),
    "mean_field": (0.0, 0.5, 1.0),
}
ROLES = {
    "token_embedding/weight": Role.embedding,
    "position_embedding/weight": Role.embedding,
    "blocks/attention_norm/gain": Role.vector,
    "blocks/attention/query/weight": Role.hidden,
    "blocks/attention/key/weight": Role.hidden,
    "blocks/attention/value/weight": Role.hidden,
    "blocks/attention/output/weight": Role.hidden,
    "blocks/mlp_norm/gain": Role.vector,
    "blocks/mlp/up/weight": Role.hidden,
    "blocks/mlp/down/weight": Role.hidden,
    "final_norm/gain": Role.vector,
    "readout/weight": Role.readout,
}


def transformer(width: int, *, tied: bool = False) -> sx.nn.Transformer:
    return sx.nn.Transformer(
        vocabulary_size=11,
        sequence_length=5,
        width=width,
        depth=2,
        head_dimension=8,
        tied=tied,
        key=KEY,
    )


def tied_transformer(width: int) -> sx.nn.Transformer:
    return transformer(width, tied=True)


def scaled(width: int, parameterization=sx.standard, make=transformer):
    return sx.parameterize(make, width=width, base_width=BASE, parameterization=parameterization)


def shapes(width: int, parameterization=sx.standard, make=transformer):
    """The same without the arrays, which saves compiling their draw."""
    return eqx.filter_eval_shape(lambda: scaled(width, parameterization, make))


def specs(model) -> dict[str, WeightSpec]:
    return {path: weight.spec for path, weight in sx.weights_with_paths(model).items()}


def assert_close(tree, other):
    assert jtu.tree_structure(tree) == jtu.tree_structure(other)
    for a, b in zip(jtu.tree_leaves(tree), jtu.tree_leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


class Perceptron(eqx.Module):
    """An input projection, a hidden layer and a readout, all with biases."""

    embed: sx.nn.Linear
    hidden: sx.nn.Linear
    norm: sx.nn.LayerNorm
    readout: sx.nn.Readout

    def __init__(self, width: int, key=KEY):
        keys = jax.random.split(key, 3)
        self.embed = sx.nn.Linear(3, width, use_bias=True, key=keys[0])
        self.hidden = sx.nn.Linear(width, width, use_bias=True, key=keys[1])
        self.norm = sx.nn.LayerNorm(width, use_bias=True)
        self.readout = sx.nn.Readout(width, 2, use_bias=True, key=keys[2])


# Roles


@pytest.mark.parametrize("width", [8, 16, 24, 64])
def test_roles_of_a_transformer_at_every_width(width: int):
    found = specs(shapes(width))
    assert {path: spec.role for path, spec in found.items()} == ROLES
    assert {spec.width_ratio for spec in found.values()} == {Fraction(width, BASE)}
    assert {spec.parameterization for spec in found.values()} == {sx.standard}


def test_roles_of_biases_and_gains():
    roles = {path: spec.role for path, spec in specs(shapes(32, make=Perceptron)).items()}
    assert roles == {
        "embed/weight": Role.embedding,
        "embed/bias": Role.vector,
        "hidden/weight": Role.hidden,
        "hidden/bias": Role.vector,
        "norm/gain": Role.vector,
        "norm/bias": Role.vector,
        "readout/weight": Role.readout,
        "readout/bias": Role.constant,
    }


def test_a_probe_width_of_ones_own():
    def make(width: int):
        if width not in (16, 48):
            raise AssertionError(f"not at {width}")
        return transformer(width)

    def parameterize():
        return sx.parameterize(
            make, width=48, base_width=16, probe_width=48, parameterization=sx.ntk
        )

    model = eqx.filter_eval_shape(parameterize)
    assert {path: spec.role for path, spec in specs(model).items()} == ROLES


# Spread and multiplier


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
@pytest.mark.parametrize("width", [8, 64])
def test_spread_and_multiplier_of_every_weight(parameterization, width: int):
    r = width / BASE
    at_base = {"blocks/mlp/down/weight": (4 * BASE) ** -0.5}
    for path, spec in specs(shapes(width, parameterization)).items():
        if spec.role is Role.vector:
            assert (spec.std, spec.multiplier) == (None, 1.0)
            continue
        column = (Role.embedding, Role.hidden, Role.readout).index(ROLES[path])
        sigma = at_base.get(path, 1.0 if ROLES[path] is Role.embedding else BASE**-0.5)
        b, a = B[parameterization.name][column], A[parameterization.name][column]
        assert spec.std == sigma
        assert spec.initial_std == pytest.approx(sigma * r**-b, rel=1e-12)
        assert spec.multiplier == pytest.approx(r**-a, rel=1e-12)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_the_spread_is_that_of_the_values(parameterization):
    """The relative error of a spread over n normal entries is 1 / sqrt(2 n); 4.5 of them."""
    model = scaled(64, parameterization)
    for weight in sx.weights_with_paths(model).values():
        if weight.spec.std is not None:
            value = np.asarray(weight.value, np.float64)
            tolerance = 4.5 / np.sqrt(2 * value.size)
            assert np.sqrt(np.mean(value**2)) == pytest.approx(
                weight.spec.initial_std, rel=tolerance
            )


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_at_the_base_width_it_is_the_model_that_was_tuned(parameterization):
    model = scaled(BASE, parameterization)
    assert_close(sx.resolve(model), sx.resolve(transformer(BASE)))


def test_gains_and_biases_keep_their_values():
    model = scaled(64, sx.mup, Perceptron)
    assert np.all(np.asarray(model.norm.gain.value) == 1)
    assert np.all(np.asarray(model.readout.bias.value) == 0)


# Tied embeddings


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
@pytest.mark.parametrize("width", [8, 64])
def test_a_tied_model(parameterization, width: int):
    model = shapes(width, parameterization, tied_transformer)
    found = specs(model)
    assert {path: spec.role for path, spec in found.items()} == {
        path: role for path, role in ROLES.items() if role is not Role.readout
    }
    assert {spec.parameterization for spec in found.values()} == {parameterization.tied()}
    expected = BASE**-0.5 * BASE / width
    assert model.readout.multiplier.factor == pytest.approx(expected, rel=1e-12)


# Transformations


def test_it_works_under_jit():
    @eqx.filter_jit
    def make(key):
        return scaled(32, sx.mup, lambda width: Perceptron(width, key))

    assert_close(make(KEY), scaled(32, sx.mup, Perceptron))


def test_it_works_under_vmap_over_the_key():
    def make(key):
        return scaled(32, sx.mup, lambda width: Perceptron(width, key))

    keys = jax.random.split(KEY, 3)
    looped = jtu.tree_map(lambda *xs: jnp.stack(xs), *[make(key) for key in keys])
    assert_close(eqx.filter_vmap(make)(keys), looped)


def test_the_large_model_is_made_once_and_the_others_are_only_shapes():
    made = []

    def make(width: int):
        x = jax.random.normal(KEY, (width, width))
        made.append((width, isinstance(x, Tracer)))
        return sx.Weight(x, WeightSpec((-1,), (-2,), std=1.0))

    scaled(64, make=make)
    assert made == [(64, False), (16, True), (32, True)]


def test_a_forced_role_is_remembered_and_is_no_other_law():
    """One that the shapes show anyway, or that goes with a fan that stays, is not forced."""

    def model(width: int) -> dict[str, sx.Weight]:
        spec = sx.WeightSpec((-1,), (-2,), std=1.0)
        return {"inner": sx.Weight(jnp.ones((3, width)), spec)}

    def made(role: str) -> sx.WeightSpec:
        return sx.parameterize(
            model,
            width=16,
            base_width=8,
            parameterization=sx.mup,
            roles={"inner": role},
            force=True,
        )["inner"].spec

    assert made("embedding").forced
    assert not made("readout").forced and not made("hidden").forced
    assert "forced" in made("embedding").summary()
    plain = dataclasses.replace(made("embedding"), forced=False)
    assert sx.fingerprint(sx.Weight(jnp.ones((3, 16)), plain)) == sx.fingerprint(
        sx.Weight(jnp.ones((3, 16)), made("embedding"))
    )


@pytest.mark.parametrize("width", [32, 64, 48])
def test_a_fan_in_of_the_width_and_more_has_its_exact_ratio(width):
    """Features beside others of a fixed number, whose sum has as many terms as there are both."""
    more = 8

    def concatenated(width):
        keys = jax.random.split(KEY, 3)
        return {
            "first": sx.nn.Linear(3, width, use_bias=False, key=keys[0]),
            "inner": sx.nn.Linear(width + more, width, use_bias=False, key=keys[1]),
            "readout": sx.nn.Readout(width, 2, use_bias=False, key=keys[2]),
        }

    model = sx.parameterize(concatenated, width=width, base_width=BASE, parameterization=sx.mup)
    spec = model["inner"].weight.spec
    terms = Fraction(width + more, BASE + more)
    assert spec.width_ratio == terms != Fraction(width, BASE)
    assert (spec.size_ratio("fan_out"), spec.size_ratio("readout")) == (Fraction(width, BASE),) * 2
    # The sum of so many independent terms has the size of the base model's, and so has that of
    # Adam's aligned updates. With the width's ratio neither would.
    row = sx.plan(model, sx.adam(1.0)).rows[1]
    assert spec.std is not None and spec.initial_std is not None
    assert spec.initial_std**2 * terms == pytest.approx(spec.std**2, rel=1e-12)
    assert row.learning_rate_factor is not None
    assert row.learning_rate_factor * terms == pytest.approx(1, rel=1e-12)
    assert f"; {terms} of inner/weight" in str(sx.plan(model, sx.adam(1.0)))
