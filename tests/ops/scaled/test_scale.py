"""Factors of the two passes apart, under every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scalex_eqx.ops import scaled

X = jnp.asarray([1.0, -2.0, 4.0])


def f(x, b=0.25):
    return scaled.scale(x, forward=2.0, backward=b)


def test_forward_and_backward_are_exact():
    y, tangent = jax.jvp(f, (X,), (3 * X,))
    _, pull = jax.vjp(f, X)
    np.testing.assert_array_equal(y, 2 * X)
    np.testing.assert_array_equal(tangent, 0.25 * 3 * X)
    np.testing.assert_array_equal(pull(X)[0], 0.25 * X)
    np.testing.assert_array_equal(jax.jit(jax.jacfwd(f))(X), 0.25 * np.eye(3))
    np.testing.assert_array_equal(jax.hessian(lambda x: f(x) @ f(x))(X), 2 * 0.25**2 * np.eye(3))


def test_equal_factors_are_a_product():
    assert scaled.scale(X) is X
    jaxpr = jax.make_jaxpr(lambda x: scaled.scale(x, forward=0.5, backward=0.5))(X)
    assert [equation.primitive.name for equation in jaxpr.eqns] == ["mul"]


def test_under_vmap_scan_and_with_traced_factors():
    def step(x, factor):
        return scaled.scale(x, forward=1.0, backward=factor), None

    def through(x, factors):
        return jnp.sum(jax.lax.scan(step, x, factors)[0])

    factors = jnp.asarray([0.5, 0.25])
    gradient = jax.vmap(jax.grad(through), (0, None))(jnp.stack([X, X]), factors)
    np.testing.assert_array_equal(gradient, np.full((2, 3), 0.125))
    # A factor is a constant of the operation.
    np.testing.assert_array_equal(jax.grad(through, argnums=1)(X, factors), [0, 0])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_keeps_the_dtype(dtype):
    x = X.astype(dtype)
    y, pull = jax.vjp(f, x)
    assert y.dtype == pull(y)[0].dtype == dtype


def test_the_number_of_mapped_examples_is_told():
    w = jnp.ones((2, 3))
    xs = jnp.asarray(np.random.default_rng(0).standard_normal((8, 5, 3)), jnp.float32)

    def total(w, x, mapped):
        return jnp.sum(jnp.sin(scaled.linear(x, w, mapped=mapped)))

    whole = jax.grad(total)(w, xs, 1)
    by_number = jax.vmap(lambda x: jax.grad(total)(w, x, 8))(xs)
    by_name = jax.vmap(lambda x: jax.grad(total)(w, x, "batch"), axis_name="batch")(xs)
    for found in (by_number, by_name):
        np.testing.assert_allclose(found.sum(0), whole, rtol=1e-5)
    guessed = jax.vmap(lambda x: jax.grad(total)(w, x, 1))(xs)
    np.testing.assert_allclose(guessed.sum(0), 8**0.5 * whole, rtol=1e-5)


@pytest.mark.parametrize(
    ("mapped", "message"),
    [(0, "mapped is 0; expected at least 1"), ("batch", "over which nothing is mapped here")],
)
def test_refuses_a_number_of_examples_that_is_none(mapped, message):
    with pytest.raises(ValueError, match=message):
        scaled.mapped_size(mapped)
