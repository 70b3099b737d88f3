import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx.nn import CausalSelfAttention

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def attention(width: int = 12, head_dimension: int = 4, **arguments) -> CausalSelfAttention:
    return CausalSelfAttention(width, head_dimension=head_dimension, key=KEY, **arguments)


def apply(linear, x: np.ndarray) -> np.ndarray:
    bias = 0.0 if linear.bias is None else np.asarray(linear.bias.value, np.float64)
    return np.asarray(linear.weight.value, np.float64) @ x + bias


def oracle(model, x: np.ndarray, scale: float) -> np.ndarray:
    """One position, one head and one earlier position at a time."""
    d = model.head_dimension
    out = np.zeros_like(x)
    for i in range(len(x)):
        q = apply(model.query, x[i])
        mixed = np.zeros_like(q)
        for start in range(0, len(q), d):
            head = slice(start, start + d)
            weights = np.exp(
                [scale * np.dot(q[head], apply(model.key, x[j])[head]) for j in range(i + 1)]
            )
            for j, weight in enumerate(weights / np.sum(weights)):
                mixed[head] += weight * apply(model.value, x[j])[head]
        out[i] = apply(model.output, mixed)
    return out


@pytest.mark.parametrize(("logit_scale", "scale"), [("1/sqrt(d)", 0.5), ("1/d", 0.25)])
@pytest.mark.parametrize("use_bias", [False, True])
def test_it_is_causal_softmax_attention(logit_scale: str, scale: float, use_bias: bool, draw, x64):
    model = draw(lambda: attention(logit_scale=logit_scale, use_bias=use_bias))
    x = 2 * RNG.normal(size=(5, 12))
    expected = oracle(model, x, scale)
    found = eqx.filter_jit(model)(jnp.asarray(x))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    # The oracle tells the two scales apart.
    assert np.max(np.abs(oracle(model, x, 0.75 * scale) - expected)) > 1e-3


@pytest.mark.parametrize("position", [0, 2, 4])
def test_a_position_depends_on_itself_and_those_before(position: int, draw):
    model, x = draw(attention), jnp.asarray(RNG.normal(size=(5, 12)), jnp.float32)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(model(x)[position])))(x)
    depends = np.any(np.asarray(gradient) != 0, axis=1)
    assert depends.tolist() == [j <= position for j in range(5)]


def test_heads_do_not_mix_before_the_output(draw):
    """The first head's value weights reach the output through its own columns only."""
    model = draw(attention)
    x = jnp.asarray(RNG.normal(size=(3, 12)), jnp.float32)
    deaf = eqx.tree_at(
        lambda m: m.output.weight.value, model, model.output.weight.value.at[:, :4].set(0.0)
    )
    loss = eqx.filter_jit(eqx.filter_grad(lambda model: jnp.sum(model(x) ** 2)))
    gradient = np.asarray(loss(deaf).value.weight.value)
    assert np.all(gradient[:4] == 0)
    assert np.all(np.any(gradient[4:] != 0, axis=1))


@pytest.mark.parametrize("batch", [(2,), (2, 3)])
def test_leading_axes_equal_vmap(batch: tuple[int, ...], draw):
    model, x = draw(attention), jnp.asarray(RNG.normal(size=(*batch, 5, 12)), jnp.float32)
    mapped = model
    for _ in batch:
        mapped = jax.vmap(mapped)
    np.testing.assert_allclose(jax.jit(model)(x), jax.jit(mapped)(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_it_keeps_the_dtype(dtype: str):
    y = eqx.filter_eval_shape(lambda: attention(dtype=dtype)(jnp.ones((3, 12), dtype)))
    assert y.dtype == jnp.dtype(dtype)


def test_large_logits_do_not_overflow(draw):
    x = 1e4 * jnp.asarray(RNG.normal(size=(5, 12)), jnp.float32)
    y = eqx.filter_jit(draw(attention))(x)
    assert np.all(np.isfinite(y))


@pytest.mark.parametrize("width", [0, 10, -4])
def test_a_width_that_is_no_multiple_of_the_head_is_refused(width: int):
    with pytest.raises(ValueError, match=f"width {width} is not a positive multiple of head_dim"):
        attention(width)


def test_a_head_without_size_is_refused():
    with pytest.raises(ValueError, match="head_dimension 0"):
        attention(12, 0)


def test_an_unknown_logit_scale_is_refused():
    """Where a runtime type checker is at work, it refuses first, with the same two values."""
    with pytest.raises((ValueError, TypeError), match=r"(?s)1/sqrt\(d\).*1/d"):
        attention(logit_scale="1/d^2")


def test_heads_grow_with_the_width_and_roles_are_hidden():
    def make():
        return sx.parameterize(
            lambda width: attention(width, use_bias=True),
            width=16,
            base_width=8,
            parameterization=sx.standard,
        )

    model = eqx.filter_eval_shape(make)
    roles = {path: weight.spec.role for path, weight in sx.weights_with_paths(model).items()}
    assert {path.split("/")[1]: str(role) for path, role in roles.items()} == {
        "weight": "hidden",
        "bias": "vector",
    }
