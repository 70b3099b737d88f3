"""Narrow formats against NumPy's own casts, and products whose operands are in them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx.diagnostics import ProductFormats, with_narrow_products
from scalex_eqx.ops import narrowed

DTYPES = {"e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2}
E2M1 = ml_dtypes.float4_e2m1fn


def clamped(x, dtype):
    largest = float(ml_dtypes.finfo(dtype).max)
    return np.clip(x, -largest, largest).astype(dtype).astype(np.float64)


def mx(x, dtype, last):
    """Blocks of 32 along the last axis, by the definition, in double precision."""
    y = np.zeros_like(x)
    for row in np.ndindex(x.shape[:-1]):
        for start in range(0, x.shape[-1], 32):
            block = x[row][start : start + 32]
            largest = np.abs(block).max()
            if largest:
                scale = 2.0 ** (np.floor(np.log2(largest)) - last)
                y[row][start : start + 32] = scale * clamped(block / scale, dtype)
    return y


def nv(x):
    y = np.zeros_like(x)
    whole = np.float32(np.abs(x).max() / (6 * 448))
    for row in np.ndindex(x.shape[:-1]):
        for start in range(0, x.shape[-1], 16):
            block = x[row][start : start + 16]
            scale = whole * clamped(np.float32(np.abs(block).max() / 6 / whole), DTYPES["e4m3"])
            if scale:
                y[row][start : start + 16] = scale * clamped(block / scale, E2M1)
    return y


REFERENCE = {
    "e4m3": lambda x: clamped(x, DTYPES["e4m3"]),
    "e5m2": lambda x: clamped(x, DTYPES["e5m2"]),
    "mxfp8_e4m3": lambda x: mx(x, DTYPES["e4m3"], 8),
    "mxfp8_e5m2": lambda x: mx(x, DTYPES["e5m2"], 15),
    "nvfp4": nv,
}


def drawn(*shape):
    """Of sizes over many octaves, with a block of zeros."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape) * np.exp2(rng.integers(-8, 8, shape[:-1]))[..., None]
    x[0] = 0
    return x.astype(np.float32)


@pytest.mark.parametrize("name", REFERENCE)
def test_numbers_are_those_of_the_format(name):
    x = drawn(12, 70)
    found = np.asarray(jax.jit(narrowed, static_argnums=1)(jnp.asarray(x), name), np.float64)
    np.testing.assert_allclose(found, REFERENCE[name](x.astype(np.float64)), rtol=1e-6, atol=0)
    assert (found[0] == 0).all() and np.any(found != x)
    along = narrowed(jnp.asarray(x.T), name, axis=0)
    np.testing.assert_array_equal(np.asarray(along).T, found.astype(np.float32))


def test_what_is_too_large_saturates_and_what_is_no_number_stays():
    x = jnp.asarray([1e9, -1e9, jnp.nan, jnp.inf, 1.0])
    np.testing.assert_array_equal(narrowed(x, "e4m3"), [448, -448, np.nan, np.inf, 1])
    np.testing.assert_array_equal(narrowed(x, "e5m2"), [57344, -57344, np.nan, np.inf, 1])
    # JAX's own casts: NaN and infinity.
    assert np.isnan(float(x[0].astype(jnp.float8_e4m3fn).astype(float)))
    for blocks in ("mxfp8_e4m3", "nvfp4"):
        assert np.isnan(narrowed(x, blocks)).all()


def test_sums_are_wide():
    ones = narrowed(jnp.ones(64), "e4m3")
    assert ones.dtype == jnp.float32 and float(jnp.mean(ones)) == 1
    # The control: JAX sums in the narrow type itself.
    assert float(jnp.mean(jnp.ones(64, jnp.float8_e4m3fn)).astype(float)) != 1


def test_the_compiled_program_keeps_the_cast():
    x = jnp.ones((8, 8))
    text = jax.jit(lambda x: narrowed(x, "e4m3")).lower(x).compile().as_text()
    assert text is not None and "f8e4m3fn" in text


FORMATS = ProductFormats("e4m3", "mxfp8_e4m3", "e5m2")


def model():
    def make(width):
        keys = jax.random.split(jax.random.key(0))
        return [
            sx.nn.Linear(width, 2 * width, key=keys[0]),
            sx.nn.Readout(2 * width, 6, key=keys[1]),
        ]

    return sx.parameterize(make, width=40, base_width=20, parameterization=sx.standard)


def loss(model, x):
    first, last = sx.resolve(model)
    return jnp.sum(jnp.square(jax.vmap(lambda x: last(first(x)))(x))) / 2


def test_three_products_have_rounded_operands():
    one, x = model(), drawn(12, 40)
    narrow = with_narrow_products(loss, {"hidden": FORMATS})
    value, gradient = eqx.filter_jit(eqx.filter_value_and_grad(narrow))(one, jnp.asarray(x))
    w, out = (np.asarray(layer.weight.value, np.float64) for layer in one)
    e4m3, e5m2 = REFERENCE["e4m3"], REFERENCE["e5m2"]
    h = e4m3(x) @ mx(w, DTYPES["e4m3"], 8).T
    y = h @ out.T
    back = (y @ out).astype(np.float32)
    np.testing.assert_allclose(value, np.sum(y**2) / 2, rtol=1e-5)
    # A tie may fall to either side where the sum before it is rounded.
    expected = e5m2(back).T @ e4m3(x)
    error = np.linalg.norm(gradient[0].weight.value - expected) / np.linalg.norm(expected)
    assert error < 1e-3
    np.testing.assert_allclose(gradient[1].weight.value, y.T @ h, rtol=1e-3, atol=1e-2)
    plain = np.asarray(eqx.filter_grad(loss)(one, jnp.asarray(x))[0].weight.value)
    assert np.linalg.norm(plain - expected) / np.linalg.norm(expected) > 0.01


def test_the_weights_blocks_lie_along_the_other_axis_on_the_way_back():
    one, x = model(), jnp.asarray(drawn(12, 40))
    narrow = with_narrow_products(loss, {"hidden": ProductFormats(weight="mxfp8_e4m3")})
    gradient = jax.grad(lambda x: narrow(one, x))(x)
    w, out = (np.asarray(layer.weight.value, np.float64) for layer in one)
    y = np.asarray(x, float) @ mx(w, DTYPES["e4m3"], 8).T @ out.T
    expected = y @ out @ mx(w.T, DTYPES["e4m3"], 8).T
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-2)


def test_refusals():
    one, x = model(), jnp.ones((2, 40))
    with pytest.raises(ValueError, match=r"formats\['\*/down/\*'\] is no role and matches no"):
        with_narrow_products(loss, {"*/down/*": FORMATS})(one, x)

    def make(width):
        return [sx.nn.Embedding(4, width, key=jax.random.key(0))]

    table = sx.parameterize(make, width=8, base_width=4, parameterization=sx.mup)
    with pytest.raises(ValueError, match=r"only products \(dot_general\) have narrow operands"):
        with_narrow_products(
            lambda model, i: jnp.sum(sx.resolve(model)[0](i)), {"embedding": FORMATS}
        )(table, jnp.asarray(1))
