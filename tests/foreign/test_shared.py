"""Weights that equinox.nn.Shared uses twice."""

import re
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import pytest

import scalex_eqx as sx

BASE, WIDTHS, TOKENS = 64, (64, 256, 1024), 48
PARAMETERIZATIONS = (sx.standard, sx.ntk, sx.mup, sx.mean_field)


class Tied(eqx.Module):
    """Logits of each token from its own embedding alone."""

    shared: eqx.nn.Shared

    def __init__(self, width: int, *, key: Any = None, transposed: bool = False):
        keys = jax.random.split(jax.random.key(0) if key is None else key)
        embedding = eqx.nn.Embedding(TOKENS, width, key=keys[0])
        if transposed:
            pair = (embedding, Projection(width, TOKENS))
            get = lambda pair: jnp.transpose(pair[0].weight)  # noqa: E731
        else:
            pair = (embedding, eqx.nn.Linear(width, TOKENS, key=keys[1]))
            get = lambda pair: pair[0].weight  # noqa: E731
        self.shared = eqx.nn.Shared(pair, lambda pair: pair[1].weight, get)

    def __call__(self, token):
        embedding, readout = self.shared()
        return readout(embedding(token))


class Projection(eqx.Module):
    """A third-party layer that stores its matrix the other way around."""

    weight: jax.Array

    def __init__(self, rows: int, columns: int):
        self.weight = jnp.zeros((rows, columns))

    def __call__(self, x):
        return x @ self.weight


def scaled(width: int, parameterization=sx.standard, make: Callable[[int], Any] = Tied, **options):
    return sx.parameterize(
        make,
        width=width,
        base_width=BASE,
        parameterization=parameterization,
        **options,
    )


def logits(model) -> np.ndarray:
    """Without the bias, which is not tied: row of the token, column of the candidate."""
    embedding, readout = model.shared()
    table = jnp.arange(TOKENS)
    weight = np.asarray(readout.weight, np.float64)
    return np.asarray(jax.vmap(embedding)(table), np.float64) @ weight.T


def slopes(models) -> tuple[float, float]:
    """Exponents of the logits of a token for itself, and of their spread over the others."""
    found = [logits(model) for model in models]
    own = [np.mean(np.diag(x)) for x in found]
    spread = [np.std(x[~np.eye(TOKENS, dtype=bool)]) for x in found]
    r = np.log(np.asarray(WIDTHS) / BASE)
    return np.polyfit(r, np.log(own), 1)[0], np.polyfit(r, np.log(spread), 1)[0]


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_logits_of_every_width(parameterization):
    """A sum of n aligned products with factor r^-1 stays, one of n independent ones is r^-1/2.

    The spread is taken over 48 * 47 / 2 different products: its relative error is 0.021, hence
    the slope's is 0.011 over a ratio of 16; 4.5 of them.
    """
    own, spread = slopes([sx.resolve(scaled(n, parameterization)) for n in WIDTHS])
    assert own == pytest.approx(0, abs=1e-3)
    assert spread == pytest.approx(-0.5, abs=0.05)


def test_without_the_factor_they_grow():
    """The control: what is drawn as it is."""
    own, spread = slopes([Tied(n) for n in WIDTHS])
    assert own == pytest.approx(1, abs=0.02)
    assert spread == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_laws(parameterization):
    model = eqx.filter_eval_shape(lambda: scaled(256, parameterization))
    weights = sx.weights_with_paths(model)
    assert {path: w.spec.role for path, w in weights.items()} == {
        "shared/pytree/0/weight": sx.Role.embedding,
        "shared/pytree/1/bias": sx.Role.constant,
    }
    assert {w.spec.parameterization for w in weights.values()} == {parameterization.tied()}


def test_at_the_base_width_it_is_the_original():
    model = sx.resolve(scaled(BASE, sx.mup))
    assert np.array_equal(model(jnp.asarray(3)), Tied(BASE)(jnp.asarray(3)))


def test_a_transposed_second_use():
    def make(width: int):
        return Tied(width, transposed=True)

    where = {"shared/pytree/1/weight": ("in", "out")}
    embedding, readout = sx.resolve(scaled(256, sx.mup, make, layouts=where)).shared()
    np.testing.assert_allclose(readout.weight, embedding.weight.T / 4, rtol=1e-6)
    with pytest.raises(ValueError, match="shared/pytree/1/weight: shape"):
        scaled(256, sx.mup, make)


def test_gradients_come_through_both_uses():
    def loss(model):
        return jnp.sum(jnp.square(sx.resolve(model)(jnp.asarray(3))))

    model = scaled(128, sx.ntk)
    gradient = eqx.filter_grad(loss)(model)
    table = np.asarray(model.shared.pytree[0].weight.value, np.float64)
    y = 2 * np.asarray(sx.resolve(model)(jnp.asarray(3)), np.float64) / 2  # factor r^-1 = 1/2
    expected = np.outer(y, table[3])
    expected[3] += y @ table
    found = gradient.shared.pytree[0].weight.value
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_it_runs_under_jit_and_vmap_over_keys():
    def output(key):
        model = scaled(96, sx.mup, lambda n: Tied(n, key=key))
        return sx.resolve(model)(jnp.asarray(1))

    keys = jax.random.split(jax.random.key(1), 2)
    together = jax.jit(jax.vmap(output))(keys)
    np.testing.assert_allclose(together[1], output(keys[1]), rtol=1e-4, atol=1e-5)


def test_forgetting_resolve_is_an_error_that_says_so():
    for width in (BASE, 256):
        with pytest.raises(TypeError, match=r"Shared of a Weight.*model = scalex_eqx\.resolve"):
            scaled(width)(jnp.asarray(3))


def test_uses_with_the_same_role_have_no_factor():
    """A layer that is used twice."""

    def make(width: int):
        layers = [eqx.nn.Linear(width, width, key=jax.random.key(i)) for i in range(2)]
        return eqx.nn.Shared(layers, lambda pair: pair[1], lambda pair: pair[0])

    model = scaled(256, sx.mup, make)
    weights = sx.weights_with_paths(model)
    assert {path: w.spec.role for path, w in weights.items()} == {
        "pytree/0/weight": sx.Role.hidden,
        "pytree/0/bias": sx.Role.vector,
    }
    assert {w.spec.parameterization for w in weights.values()} == {sx.mup}
    first, second = sx.resolve(model)()
    assert jtu.tree_all(jtu.tree_map(np.array_equal, first, second))


def expect_error(*parts: str):
    return pytest.raises(ValueError, match="(?s)" + ".*".join(map(re.escape, parts)))


def test_an_embedding_that_is_taken_from_the_readout_is_refused():
    def make(width: int):
        embedding = eqx.nn.Embedding(7, width, key=jax.random.key(0))
        linear = eqx.nn.Linear(width, 7, key=jax.random.key(1))
        return eqx.nn.Shared((embedding, linear), lambda p: p[0].weight, lambda p: p[1].weight)

    with expect_error(
        "pytree/0/weight: used as embedding, which equinox.nn.Shared computes from pytree/1/weight "
        "(readout)"
    ):
        scaled(128, make=make)


def test_a_readout_of_its_own_beside_a_tied_one_is_refused():
    def make(width: int):
        return {"tied": Tied(width), "value": eqx.nn.Linear(width, 1, key=jax.random.key(2))}

    with expect_error("readouts of its own: value/weight"):
        scaled(128, make=make)


def test_an_inner_layer_of_a_fixed_size_stands_beside_a_tied_readout():
    def make(width: int):
        return [Tied(width), eqx.nn.Linear(width, 16, use_bias=False, key=jax.random.key(1))]

    with expect_error("readouts of its own: 1/weight.", "a + b is 1 for a tied one", "roles={path"):
        scaled(256, make=make)
    model = scaled(256, sx.mup, make=make, roles={"1/weight": "hidden"})
    found = {path: w.spec for path, w in sx.weights_with_paths(model).items()}
    (inner,) = (spec for path, spec in found.items() if path.startswith("1/"))
    assert inner.role == "hidden"
    assert inner.multiplier == 1.0 and inner.parameterization == sx.mup.tied()


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_a_frozen_embedding_keeps_both_uses(parameterization):
    plain = scaled(128, parameterization)
    frozen = scaled(128, parameterization, frozen=["shared/pytree/0/weight"])
    assert np.array_equal(logits(sx.resolve(frozen)), logits(sx.resolve(plain)))
    assert not frozen.shared.pytree[0].weight.spec.is_trained


def test_a_second_use_is_not_frozen_alone():
    with expect_error("shared/pytree/1/weight: frozen or unfrozen, but", "shared/pytree/0/weight"):
        scaled(128, frozen=[eqx.nn.Linear])
    model = scaled(128)
    with expect_error("shared/pytree/1/weight: frozen or unfrozen, but", "shared/pytree/0/weight"):
        sx.freeze(model, [eqx.nn.Linear])
    both = sx.freeze(model, [eqx.nn.Linear, "shared/pytree/0/*"])
    assert not any(w.spec.is_trained for w in sx.weights_with_paths(both).values())
