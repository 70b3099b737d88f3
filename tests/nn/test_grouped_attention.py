"""Grouped-query attention and rotary positions against NumPy, one position and head at a time."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx import nn
from scalex_eqx.nn import GroupedQueryAttention

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
WIDTH, HEAD = 12, 4


def attention(key_value_heads: int = 1, **arguments) -> GroupedQueryAttention:
    return GroupedQueryAttention(
        arguments.pop("width", WIDTH),
        head_dimension=arguments.pop("head_dimension", HEAD),
        key_value_heads=key_value_heads,
        key=KEY,
        **arguments,
    )


def apply(linear, x: np.ndarray) -> np.ndarray:
    bias = 0.0 if linear.bias is None else np.asarray(linear.bias.value, np.float64)
    return np.asarray(linear.weight.value, np.float64) @ x + bias


def turned(x: np.ndarray, position: int, base: float | None) -> np.ndarray:
    """Pairs as complex numbers, turned by multiplication."""
    if base is None:
        return x
    half = len(x) // 2
    pairs = x[:half] + 1j * x[half:]
    angles = [position * base ** (-2 * i / len(x)) for i in range(half)]
    pairs = pairs * np.exp(1j * np.asarray(angles))
    return np.concatenate([pairs.real, pairs.imag])


def normed(x: np.ndarray, norm, head: int) -> np.ndarray:
    if norm is None:
        return x
    gain = 1.0 if norm.gain is None else np.asarray(norm.gain.value, np.float64)[head]
    return gain * x / np.sqrt(np.mean(x**2) + 1e-6)


def oracle(model, x: np.ndarray, scale: float, base: float | None, group: int) -> np.ndarray:
    d = model.head_dimension

    def head_of(linear, norm, position: int, head: int, base: float | None) -> np.ndarray:
        features = apply(linear, x[position])[d * head : d * head + d]
        return turned(normed(features, norm, head), position, base)

    out = []
    for i in range(len(x)):
        mixed = []
        for h in range(len(apply(model.query, x[i])) // d):
            q = head_of(model.query, model.query_norm, i, h, base)
            keys = [head_of(model.key, model.key_norm, j, h // group, base) for j in range(i + 1)]
            values = [head_of(model.value, None, j, h // group, None) for j in range(i + 1)]
            weights = np.exp([scale * np.dot(q, k) for k in keys])
            weights = weights / np.sum(weights)
            mixed.append(sum(w * v for w, v in zip(weights, values, strict=True)))
        out.append(apply(model.output, np.concatenate(mixed)))
    return np.stack(out)


@pytest.mark.parametrize(
    ("key_value_heads", "scale", "arguments"),
    [
        (1, 0.5, {}),
        (3, 0.25, {"logit_scale": "1/d", "rotary_base": None, "use_bias": True}),
        (2, 0.5, {"query_heads": 6, "rotary_base": 100.0, "query_key_norm": "plain"}),
        (1, 0.5, {"query_heads": 2, "query_key_norm": "gain", "use_bias": True}),
    ],
)
def test_it_is_grouped_causal_attention(key_value_heads: int, scale: float, arguments, draw, x64):
    model = draw(lambda: attention(key_value_heads, **arguments))
    x = 2 * RNG.normal(size=(5, WIDTH))
    base = arguments.get("rotary_base", 10_000.0)
    group = arguments.get("query_heads", 3) // key_value_heads
    expected = oracle(model, x, scale, base, group)
    found = eqx.filter_jit(model)(jnp.asarray(x))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    # The oracle tells another scale and other positions apart.
    other = 50.0 if base is None else None
    for wrong in (
        oracle(model, x, 0.75 * scale, base, group),
        oracle(model, x, scale, other, group),
    ):
        assert np.max(np.abs(wrong - expected)) > 1e-3


def test_with_all_heads_it_is_ordinary_attention(draw, x64):
    model = draw(lambda: attention(3, rotary_base=None))
    ordinary = draw(lambda: nn.CausalSelfAttention(WIDTH, head_dimension=HEAD, key=KEY))
    x = jnp.asarray(RNG.normal(size=(5, WIDTH)))
    np.testing.assert_allclose(model(x), ordinary(x), rtol=1e-13, atol=1e-13)


def test_turned_products_depend_on_the_distance_alone(x64):
    q, k = (jnp.asarray(RNG.normal(size=(1, 1, 8))) for _ in range(2))
    repeated = [jnp.broadcast_to(x, (9, 1, 8)) for x in (q, k)]
    q, k = (nn.rotary(x, 100.0)[:, 0] for x in repeated)
    products = np.asarray(q @ k.T)
    for distance in range(-4, 5):
        diagonal = np.diagonal(products, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-12)
    assert abs(products[0, 0] - products[0, 1]) > 0.1


def test_positions_are_counted_in_float32():
    """bfloat16 has no 257; angles are float32's there, and the result is rounded once."""
    x = jnp.ones((300, 1, 2), "bfloat16")
    found = np.asarray(nn.rotary(x, 10.0).astype("float32"))
    exact = np.asarray([turned(np.ones(2), t, 10.0) for t in range(300)])[:, None]
    np.testing.assert_allclose(found, exact, atol=2**-8)
    assert np.any(found[257] != found[256])


@pytest.mark.parametrize("position", [0, 2, 4])
def test_a_position_depends_on_itself_and_those_before(position: int, draw):
    model = draw(lambda: attention(1, query_key_norm="gain"))
    x = jnp.asarray(RNG.normal(size=(5, WIDTH)), jnp.float32)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(model(x)[position])))(x)
    depends = np.any(np.asarray(gradient) != 0, axis=1)
    assert depends.tolist() == [j <= position for j in range(5)]


def test_leading_axes_equal_vmap(draw):
    model = draw(lambda: attention(1, query_key_norm="gain"))
    x = jnp.asarray(RNG.normal(size=(2, 3, 5, WIDTH)), jnp.float32)
    mapped = jax.jit(jax.vmap(jax.vmap(model)))(x)
    np.testing.assert_allclose(jax.jit(model)(x), mapped, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_it_keeps_the_dtype(dtype: str):
    def run():
        model = attention(1, query_key_norm="gain", use_bias=True, dtype=dtype)
        return model, model(jnp.ones((3, WIDTH), dtype))

    shapes = jax.tree.leaves(eqx.filter_eval_shape(run))
    assert {x.dtype for x in shapes if hasattr(x, "dtype")} == {jnp.dtype(dtype)}


def test_large_logits_and_zeros_have_finite_gradients(draw):
    model = draw(lambda: attention(1, query_key_norm="plain"))

    def run(x):
        return jnp.sum(model(x) ** 2)

    for scale in (0.0, 1e4):
        x = scale * jnp.asarray(RNG.normal(size=(5, WIDTH)), jnp.float32)
        value, gradient = jax.jit(jax.value_and_grad(run))(x)
        assert np.isfinite(value)
        assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 10}, "width 10 is not a positive multiple of head_dimension 4"),
        ({"key_value_heads": 2}, "3 query heads are not a multiple of key_value_heads 2"),
        ({"key_value_heads": 0}, "key_value_heads is 0"),
        ({"query_heads": 0}, "query_heads is 0"),
        ({"head_dimension": 3}, "head_dimension is 3, of which rotary positions can't make pairs"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments, message: str):
    with pytest.raises(ValueError, match=message):
        attention(**{"key_value_heads": 1, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"query_key_norm": "both"}, r"(?s)plain.*gain"), ({"logit_scale": "1"}, r"(?s)1/d")],
)
def test_unknown_choices_are_refused(arguments, message: str):
    """Where a runtime type checker is at work, it refuses first, with the same values."""
    with pytest.raises((ValueError, TypeError), match=message):
        attention(**arguments)


def laws(grows: bool, parameterization=sx.mup) -> dict[str, sx.WeightSpec]:
    def make():
        return sx.parameterize(
            lambda width: attention(
                width // 8 if grows else 1, width=width, query_key_norm="gain", use_bias=True
            ),
            width=32,
            base_width=8,
            parameterization=parameterization,
        )

    model = eqx.filter_eval_shape(make)
    return {path: weight.spec for path, weight in sx.weights_with_paths(model).items()}


@pytest.mark.parametrize("grows", [True, False])
def test_the_laws_of_its_weights(grows: bool):
    specs = laws(grows)
    matrices = {path: spec for path, spec in specs.items() if path.endswith("weight")}
    assert {spec.role for spec in matrices.values()} == {sx.Role.hidden}
    assert {spec.width_ratio for spec in matrices.values()} == {4}
    shared = {specs[f"{name}/weight"].size_ratio("fan_out") for name in ("key", "value")}
    assert shared == {4 if grows else 1}
    vectors = {path: spec for path, spec in specs.items() if path not in matrices}
    assert {spec.role for spec in vectors.values()} == {sx.Role.vector}
    assert specs["query_norm/gain"].size_ratio("fan_out") == 4
    of_shared = {specs[path].size_ratio("fan_out") for path in ("key_norm/gain", "key/bias")}
    assert of_shared == shared


def test_heads_that_grow_ask_for_the_scale_of_their_logits():
    def scaled(logit_scale):
        def make(width):
            return attention(1, width=width, head_dimension=width // 2, logit_scale=logit_scale)

        return lambda: sx.parameterize(make, width=16, base_width=8, parameterization=sx.mup)

    with pytest.raises(
        ValueError, match=r'heads of this GroupedQ.* grow .* Give logit_scale="1/d"'
    ):
        eqx.filter_eval_shape(scaled("1/sqrt(d)"))
    roles = sx.weights_with_paths(eqx.filter_eval_shape(scaled("1/d"))).values()
    assert {weight.spec.role for weight in roles} == {sx.Role.hidden}
