"""Whole models of unit scaling: sizes, gradients up to a constant for each weight, and refusals."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx import theory
from scalex_eqx.nn import unit
from scalex_eqx.ops import scaled

WIDTH, DEPTH, D, VOCABULARY = 64, 2, 16, 64


def build(make, law=sx.u_mup, width=WIDTH):
    return sx.parameterize(make, width=width, parameterization=law)


def transformer(width, dtype=None, seed=0, **options):
    return unit.Transformer(
        vocabulary_size=VOCABULARY,
        width=width,
        depth=DEPTH,
        head_dimension=D,
        dtype=dtype,
        key=jax.random.key(seed),
        **options,
    )


def tokens(batch=16, length=17):
    return jnp.asarray(np.random.default_rng(3).integers(0, VOCABULARY, (batch, length)))


def loss(model, batch, mapped: scaled.Mapped = 1):
    return model.loss(batch[..., :-1], batch[..., 1:], mapped=mapped)


@functools.cache
def at_start():
    model = build(transformer)
    value, gradient = eqx.filter_jit(eqx.filter_value_and_grad(loss))(model, tokens())
    return model, value, gradient


def size(x, axes=None):
    return np.sqrt(np.mean(np.square(np.asarray(x, np.float64)), axis=axes))


def test_weights_and_gradients_are_of_size_one_at_the_start():
    model, value, gradient = at_start()
    for name, weight in sx.weights_with_paths(model).items():
        np.testing.assert_allclose(size(weight.value), 1, atol=0.05, err_msg=name)
    sizes = {
        f"{name}/{i}": size(block)
        for name, weight in sx.weights_with_paths(gradient).items()
        for i, block in enumerate(weight.value if weight.value.ndim == 3 else [weight.value])
    }
    assert len(sizes) == 7 * DEPTH + 2
    assert {name: one for name, one in sizes.items() if not 0.5 <= one <= 2} == {}
    # Logits of size 1 / sqrt(width) add half their square to log(vocabulary), and those of the 256
    # targets a mean whose standard deviation is 1 / sqrt(256 width).
    expected = np.log(VOCABULARY) + 0.5 / WIDTH
    np.testing.assert_allclose(value, expected, atol=4 / (256 * WIDTH) ** 0.5)
    logits = model(tokens()[:, :-1], mapped=1)
    np.testing.assert_allclose(size(logits), WIDTH**-0.5, rtol=0.1)


def plain_loss(model, batch, taus, options):
    """The model written out: no operation of the library, every factor by its formula."""
    heads, shared = WIDTH // D, options.get("key_value_heads") or WIDTH // D
    length = batch.shape[-1] - 1
    m = {name: weight.value for name, weight in sx.weights_with_paths(model).items()}

    def norm(x):
        return x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6)

    def turned(x):
        a, b = x[..., : D // 2], x[..., D // 2 :]
        angle = np.arange(length)[:, None] * 1e4 ** (-np.arange(0, D, 2) / D)
        cos, sin = (jnp.broadcast_to(f(angle)[:, None, :], a.shape) for f in (jnp.cos, jnp.sin))
        return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], -1)

    def attention(x, i):
        q, k, v = (
            (x @ m[f"blocks/attention/{name}/weight"][i].T / WIDTH**0.5).reshape(
                *x.shape[:-1], -1, D
            )
            for name in ("query", "key", "value")
        )
        k, v = (jnp.repeat(x, heads // shared, axis=-2) for x in (turned(k), v))
        mult = options["multipliers"].attention
        logits = mult / D * jnp.einsum("bqhd,bkhd->bhqk", turned(q), k)
        seen = np.tril(np.ones((length, length), bool))
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(jnp.where(seen, logits, -1e30)), v)
        share = 1 / (1 + 4 * D / mult**2)
        factor = (np.log(length) / length) ** (-(1 - share) / 2)
        out = factor * mixed.reshape(x.shape)
        return out @ m["blocks/attention/output/weight"][i].T / WIDTH**0.5

    def mlp(x, i):
        up, gate = (x @ m[f"blocks/mlp/{name}/weight"][i].T / WIDTH**0.5 for name in ("up", "gate"))
        mult = options["multipliers"].activation
        share = 1 / (1 + 1 / mult**2)
        inner = 2 ** (1 - share / 2) * up * gate / (1 + jnp.exp(-mult * gate))
        return inner @ m["blocks/mlp/down/weight"][i].T / (4 * WIDTH) ** 0.5

    x = m["token_embedding/weight"][batch[:, :-1]]
    for i, pair in enumerate(taus):
        for branch, tau in zip((attention, mlp), pair, strict=True):
            x = (tau * branch(norm(x), i) + x) / np.sqrt(1 + tau**2)
    logits = options["multipliers"].loss * (norm(x) @ m["readout/weight"].T / WIDTH)
    logs = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(logs, batch[:, 1:, None], -1))


OPTIONS = {
    "multipliers": unit.Multipliers(0.5, 4.0, 0.7, 1.5, 2.0),
    "key_value_heads": 2,
}


@functools.cache
def true_gradient():
    model = build(lambda width: transformer(width, jnp.float64, **OPTIONS))
    m, batch = OPTIONS["multipliers"], tokens(4)
    taus = scaled.residual_taus(
        DEPTH, residual=m.residual, attention_ratio=m.residual_attention_ratio
    )
    plain = eqx.filter_value_and_grad(lambda model: plain_loss(model, batch, taus, OPTIONS))
    return model, batch, eqx.filter_jit(plain)(model)


def test_gradients_are_the_losss_times_a_constant_for_each_weight(x64):
    """Every hyperparameter is where its formula has it, and no two gradients meet wrongly."""
    model, batch, (expected_value, expected) = true_gradient()
    value, found = eqx.filter_jit(eqx.filter_value_and_grad(loss))(model, batch)
    np.testing.assert_allclose(value, expected_value, rtol=1e-12)
    assert max(misalignments(found, expected).values()) < 1e-10


def misalignments(found, expected):
    """1 - cosine of each weight's gradients, by block."""
    angles = {}
    expected = sx.weights_with_paths(expected)
    for name, weight in sx.weights_with_paths(found).items():
        pairs = [np.asarray(x.value, np.float64) for x in (weight, expected[name])]
        blocks = zip(*pairs, strict=True) if pairs[0].ndim == 3 else [pairs]
        for i, (a, b) in enumerate(blocks):
            cosine = np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)
            angles[f"{name}/{i}"] = 1 - cosine
    return angles


def test_a_branch_of_other_factors_is_noticed(x64):
    """The control: a layer whose passes differ turns the gradients of all that is in front."""
    model, batch, (_, expected) = true_gradient()
    wrong = jax.tree.map(lambda x: x, model)
    object.__setattr__(wrong.blocks.mlp.down, "constraint", "to_output_scale")
    found = eqx.filter_jit(eqx.filter_grad(loss))(wrong, batch)
    angles = misalignments(found, expected)
    assert angles["token_embedding/weight/0"] > 1e-3
    assert angles["readout/weight/0"] < 1e-10


def test_mapped_over_examples_it_is_the_same_gradient():
    model, _, expected = at_start()
    batch = tokens()

    @eqx.filter_jit
    def mapped(model):
        return eqx.filter_grad(
            lambda model: jnp.mean(
                jax.vmap(lambda one: loss(model, one, "batch"), axis_name="batch")(batch)
            )
        )(model)

    for name, weight in sx.weights_with_paths(mapped(model)).items():
        other = sx.weights_with_paths(expected)[name].value
        np.testing.assert_allclose(weight.value, other, rtol=1e-3, atol=2e-4, err_msg=name)


def test_blocks_that_are_computed_again_give_the_same():
    model, value, expected = at_start()
    again = sx.nn.recompute_blocks(model)
    program = eqx.filter_jit(eqx.filter_value_and_grad(loss))
    found, gradient = program(again, tokens())
    np.testing.assert_allclose(found, value, rtol=1e-6)
    for name, weight in sx.weights_with_paths(gradient).items():
        other = sx.weights_with_paths(expected)[name].value
        # Sums of 256 terms of order one in another order.
        np.testing.assert_allclose(weight.value, other, atol=256 * 2.0**-24, err_msg=name)
    assert "remat" in str(jax.make_jaxpr(lambda x: again(x, mapped=1))(tokens()[:, :-1]))


def test_laws_of_the_stack_and_of_biases():
    model = build(transformer)
    rates = {row.path: row.learning_rate for row in sx.plan(model, sx.adam(1.0)).rows}
    assert rates["blocks/mlp/down/weight"] == pytest.approx((4 * WIDTH * DEPTH) ** -0.5)
    assert rates["token_embedding/weight"] == pytest.approx(WIDTH**-0.5)
    assert rates["readout/weight"] == 1
    deeper = build(transformer, theory.unit_scaled(depth="branches"))
    rates = {row.path: row.learning_rate for row in sx.plan(deeper, sx.adam(1.0)).rows}
    assert rates["blocks/mlp/down/weight"] == pytest.approx((4 * WIDTH * 2 * DEPTH) ** -0.5)


@pytest.mark.parametrize("rule", ["vector", "layer"])
def test_biases_by_either_rule(rule):
    def make(width):
        return unit.Linear(width, 3 * width, use_bias=True, key=jax.random.key(0))

    layer = build(make, theory.unit_scaled(bias=rule))
    layer = eqx.tree_at(lambda x: x.bias.value, layer, jnp.full(3 * WIDTH, 2.0))
    x = jnp.zeros((5, WIDTH))
    y, gradient = eqx.filter_value_and_grad(lambda layer: jnp.sum(layer(x, mapped=1)))(layer)
    factor = 1.0 if rule == "vector" else WIDTH**-0.5
    np.testing.assert_allclose(y, 5 * 3 * WIDTH * 2 * factor, rtol=1e-5)
    np.testing.assert_allclose(gradient.bias.value, 5 * 5**-0.5, rtol=1e-5)
    assert layer.bias.spec.multiplier == pytest.approx(factor)


def test_an_input_that_is_summed_over_has_its_own_fan():
    layer = build(lambda width: unit.Linear(9, width, key=jax.random.key(0)))
    assert str(layer.weight.spec.role) == "embedding"
    assert layer.weight.spec.multiplier == pytest.approx(1 / 3)
    y = layer(jnp.asarray(np.random.default_rng(0).standard_normal((512, 9)), "f"), mapped=1)
    np.testing.assert_allclose(size(y), 1, atol=0.1)


def test_convolution_block_and_mlp_are_of_size_one():
    x = jnp.asarray(np.random.default_rng(1).standard_normal((8, WIDTH, 12)), "f")

    def make(width):
        return [
            unit.ConvBlock(width, [3], key=jax.random.key(0)),
            unit.MLP(width, 4 * width, width, key=jax.random.key(1)),
        ]

    def through(model, x):
        y = jnp.moveaxis(model[0](x, mapped=1), 1, -1)
        return model[1](y, mapped=1)

    model = build(make)
    cotangent = jnp.asarray(np.random.default_rng(2).standard_normal((8, 12, WIDTH)), "f")
    y, pull = eqx.filter_jit(eqx.filter_vjp)(through, model, x)
    gradient, of_x = pull(cotangent)
    found = {name: size(w.value) for name, w in sx.weights_with_paths(gradient).items()}
    found |= {"output": size(y), "input": size(of_x)}
    assert {name: one for name, one in found.items() if not 0.5 <= one <= 2} == {}


def test_refusals():
    fresh = transformer(WIDTH)
    with pytest.raises(ValueError, match="a weight without its law, by which it scales"):
        fresh(tokens()[:, :-1], mapped=1)
    with pytest.raises(ValueError, match=r"weights of scalex_eqx\.nn\.unit, whose layers scale"):
        sx.parameterize(transformer, width=64, base_width=32, parameterization=sx.mup)
    with pytest.raises(ValueError, match="base_width is missing"):
        sx.parameterize(transformer, width=64, parameterization=sx.mup)
    with pytest.raises(ValueError, match="loss is 0; expected a positive number"):
        unit.Multipliers(loss=0)


def test_resolve_leaves_the_weights_to_their_layers():
    model, *_ = at_start()
    assert eqx.tree_equal(sx.resolve(model), model)
