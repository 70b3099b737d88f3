"""A model and the shapes of two others, where no function of the width makes it."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx import Weight, WeightSpec

KEY = jax.random.key(0)
PARAMETERIZATIONS = (sx.standard, sx.ntk, sx.mup, sx.mean_field)


def make(width: int):
    return {
        "mlp": eqx.nn.MLP(5, 3, width, 2, key=KEY),
        "table": jax.random.normal(KEY, (7, width)),
        "own": sx.nn.Linear(width, width, use_bias=True, key=KEY),
    }


LAYOUTS = {"table": ("in", "out")}


def shapes(width: int, make=make):
    return eqx.filter_eval_shape(make, width)


def scaled(model, base, probe, parameterization=sx.mup, **options):
    options = {"values": "rescale", **options}
    return sx.parameterize_model(model, base, probe, parameterization=parameterization, **options)


def expect_error(*parts: str):
    return pytest.raises(ValueError, match="(?s)" + ".*".join(map(re.escape, parts)))


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
@pytest.mark.parametrize("width", [8, 48])
def test_with_a_base_model_it_is_what_parameterize_returns(parameterization, width: int):
    found = scaled(make(width), make(16), shapes(24), parameterization, layouts=LAYOUTS)
    expected = sx.parameterize(
        make, width=width, base_width=16, parameterization=parameterization, layouts=LAYOUTS
    )
    assert sx.weights_with_paths(found).keys() == sx.weights_with_paths(expected).keys()
    for path, weight in sx.weights_with_paths(expected).items():
        other = sx.weights_with_paths(found)[path]
        assert other.spec is weight.spec
        assert np.array_equal(other.value, weight.value)


@pytest.mark.parametrize(
    ("parameterization", "factors"),
    [
        # sqrt(r) = 2 times what fan-in scaling has drawn where b differs from it.
        (sx.standard, {"table": 1.0, "mlp/layers/1/weight": 1.0, "mlp/layers/2/weight": 1.0}),
        (sx.ntk, {"table": 1.0, "mlp/layers/1/weight": 2.0, "mlp/layers/2/weight": 2.0}),
        (sx.mup, {"table": 0.5, "mlp/layers/0/weight": 0.5, "mlp/layers/1/weight": 1.0}),
        (sx.mean_field, {"table": 1.0, "mlp/layers/1/weight": 2.0, "mlp/layers/2/weight": 2.0}),
    ],
)
def test_with_shapes_the_usual_spread_is_taken_for_granted(parameterization, factors):
    model = {name: make(64)[name] for name in ("mlp", "table")}
    base = {name: shapes(16)[name] for name in ("mlp", "table")}
    found = scaled(model, base, model, parameterization, layouts=LAYOUTS)
    plain = dict(
        zip(
            sx.weights_with_paths(found),
            jtu.tree_leaves(eqx.filter(model, eqx.is_array)),
            strict=True,
        )
    )
    for path, weight in sx.weights_with_paths(found).items():
        expected, factor = np.asarray(plain[path], np.float64), factors.get(path, 1.0)
        if factor == 1.0:
            assert np.array_equal(weight.value, expected)
        else:
            assert np.std(np.asarray(weight.value, np.float64)) == pytest.approx(
                factor * np.std(expected), rel=1e-5
            )


def test_it_works_under_jit():
    found = eqx.filter_jit(lambda m: scaled(m, shapes(16), shapes(32), layouts=LAYOUTS))(make(48))
    expected = scaled(make(48), shapes(16), shapes(32), layouts=LAYOUTS)
    for a, b in zip(jtu.tree_leaves(found), jtu.tree_leaves(expected), strict=True):
        if eqx.is_array(a):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_model_at_the_base_width_stays():
    model = make(16)
    found = scaled(model, shapes(16), shapes(32), layouts=LAYOUTS)
    assert {w.spec.width_ratio for w in sx.weights_with_paths(found).values()} == {1}
    assert jtu.tree_all(
        jtu.tree_map(
            lambda a, b: np.array_equal(a, b) if eqx.is_array(a) else a == b,
            sx.resolve(found),
            sx.resolve(model),
        )
    )


def test_a_rate_that_differs_is_named():
    def make(width: int):
        return {"w": jnp.ones((width, width)), "v": jnp.ones(width**2), "u": jnp.ones(width)}

    every = make(4), shapes(4, make), shapes(8, make)
    with expect_error(
        "v: axes (-1,) grow by 4 from shape (16,) to (64,), where the width grows by 2"
    ):
        scaled(*every)
    base, probe, model = ({name: one[name] for name in ("u", "v")} for one in every)
    with expect_error("axes grow at different rates", "by 2: u axis 0", "by 4: v axis 0"):
        scaled(base, probe, model)
    frozen = scaled(*every, frozen=["v"])
    assert frozen["w"].spec.role is sx.Role.hidden


def test_shapes_that_show_nothing():
    with expect_error("base and probe have the same shapes"):
        scaled(make(16), shapes(16), shapes(16))
    with expect_error("w: shape (4,) in base and (4, 4) in probe"):
        scaled({"w": jnp.ones(4)}, {"w": jnp.ones(4)}, {"w": jnp.ones((4, 4))})


def test_trees_that_differ():
    with expect_error("v (only in base)", "w (only in the model)"):
        scaled({"w": jnp.ones(8)}, {"v": jnp.ones(4)}, {"v": jnp.ones(8), "w": jnp.ones(8)})
    weight = Weight(jnp.ones(8), WeightSpec((), (-1,)))
    with expect_error("w: a Weight in one of the models and an array in another"):
        scaled({"w": weight}, {"w": jnp.ones(4)}, {"w": jnp.ones(8)})


# Values that are kept


def relative_change(model, kept, x) -> float:
    """Of the outputs."""
    before, after = (np.asarray(jax.vmap(m)(x), np.float64) for m in (model, sx.resolve(kept)))
    return float(np.linalg.norm(after - before) / np.linalg.norm(before))


def trained(width: int):
    """Of another spread than any law would give it."""
    model = eqx.nn.MLP(6, 3, width, 2, key=jax.random.key(9))
    return jtu.tree_map(lambda a: 2.5 * a + 0.01 if eqx.is_inexact_array(a) else a, model)


@pytest.mark.parametrize("base", ["shapes", "arrays"])
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_kept_values_compute_what_they_did(parameterization, base: str):
    """At r = 3, where multipliers are no powers of two, and with a factor.

    Two roundings of 2^-24 each in every weight, over three layers.
    """
    model, options = trained(48), {"factors": {"layers/1/weight": "1/2"}}
    narrow = shapes(16, trained) if base == "shapes" else trained(16)
    x = jax.random.normal(KEY, (32, 6))
    kept = scaled(model, narrow, shapes(32, trained), parameterization, values="keep", **options)
    assert relative_change(model, kept, x) < 3 * 2 * 2**-24 * 4
    for path, weight in sx.weights_with_paths(kept).items():
        spec = weight.spec
        power = float(parameterization.a[spec.role] + spec.factor_exponent)
        plain = np.asarray(dict(zip(sx.weights_with_paths(kept), arrays(model), strict=True))[path])
        np.testing.assert_allclose(weight.value, plain * 3.0**power, rtol=1e-6)
    # The control: a fresh draw is what it is taken for.
    fresh = scaled(model, narrow, shapes(32, trained), parameterization, **options)
    assert relative_change(model, fresh, x) > 0.1


def arrays(model):
    return jtu.tree_leaves(eqx.filter(model, eqx.is_array))


def test_kept_bfloat16_values():
    """Powers of two are exact."""
    model = jtu.tree_map(
        lambda a: a.astype(jnp.bfloat16) if eqx.is_inexact_array(a) else a, trained(64)
    )
    kept = scaled(model, shapes(16, trained), shapes(32, trained), sx.mup, values="keep")
    for a, b in zip(arrays(model), arrays(sx.resolve(kept)), strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=lambda p: p.name)
def test_kept_ties_and_declared_spreads(parameterization):
    class Tied(eqx.Module):
        embedding: sx.nn.Embedding
        readout: sx.nn.TiedReadout

        def __init__(self, width: int):
            self.embedding = sx.nn.Embedding(7, width, key=KEY)
            self.readout = sx.nn.TiedReadout(width)

        def __call__(self, token):
            return self.readout(self.embedding(token), self.embedding)

    model = Tied(48)
    own = (model, shapes(48, Tied), shapes(32, Tied))
    kept = scaled(*own, parameterization, values="keep")
    token = jnp.asarray(3)
    np.testing.assert_allclose(kept(token), model(token), rtol=1e-5)
    assert kept.embedding.weight.spec.std is None
    assert kept.embedding.weight.spec.parameterization == parameterization.tied()
    # At another base width the tie's own factor is not the law's.
    narrow = (model, shapes(16, Tied), shapes(32, Tied))
    with expect_error("readout/multiplier: the tie has the factor 0.1443, and the law asks for"):
        scaled(*narrow, parameterization, values="keep")
    frozen = scaled(*narrow, parameterization, values="keep", frozen=["embedding/weight"])
    np.testing.assert_allclose(frozen(token), model(token), rtol=1e-5)


def test_values_have_to_be_said():
    for values in (None, "rescaled"):
        with expect_error(f"values is {values!r}", '"keep" leaves what', '"rescale" takes them'):
            scaled(make(48), shapes(16), shapes(32), layouts=LAYOUTS, values=values)
