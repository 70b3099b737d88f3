from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx import nn

KEY = jax.random.key(0)
TOKENS = np.asarray([3, 1, 6, 6])


def decoder(width: int = 8, experts: int = 0, depth: int = 2, dtype=None, **arguments):
    def block(key):
        attention, mlp = jax.random.split(key)
        return nn.DecoderBlock(
            attention_norm=nn.RMSNorm(width, dtype=dtype),
            attention=nn.GroupedQueryAttention(
                width, head_dimension=4, key_value_heads=1, dtype=dtype, key=attention
            ),
            mlp_norm=nn.RMSNorm(width, use_gain=False),
            mlp=nn.MixtureOfExperts(width, 12, experts=experts, top_k=2, dtype=dtype, key=mlp)
            if experts
            else nn.GatedMLP(width, 12, width, dtype=dtype, key=mlp),
        )

    return nn.Decoder(
        vocabulary_size=7,
        width=width,
        depth=depth,
        block=block,
        dtype=dtype,
        key=KEY,
        **arguments,
    )


def by_hand(model: Any, tied: bool) -> np.ndarray:
    """Block by block in NumPy; attention, which has a test of its own, is the layer's."""

    def array(weight) -> np.ndarray:
        return np.asarray(weight.value, np.float64)

    def normed(x: np.ndarray, gain) -> np.ndarray:
        return (
            (1 if gain is None else array(gain))
            * x
            / np.sqrt(np.mean(x**2, axis=1, keepdims=True) + 1e-6)
        )

    table = array(model.token_embedding.weight)
    x = table[TOKENS]
    for layer in range(2):
        block = jax.tree.map(lambda leaf, layer=layer: leaf[layer], model.blocks)
        x = x + np.asarray(block.attention(jnp.asarray(normed(x, block.attention_norm.gain))))
        gate, up, down = (array(w.weight) for w in (block.mlp.gate, block.mlp.up, block.mlp.down))
        inner = normed(x, None)
        gated = inner @ gate.T
        x = x + (gated / (1 + np.exp(-gated)) * (inner @ up.T)) @ down.T
    x = normed(x, model.final_norm.gain)
    return x @ table.T / np.sqrt(8) if tied else x @ array(model.readout.weight).T


@pytest.mark.parametrize("tied", [False, True])
def test_logits(tied: bool, draw, x64):
    model = draw(lambda: decoder(tied=tied))
    found = eqx.filter_jit(model)(jnp.asarray(TOKENS))
    np.testing.assert_allclose(found, by_hand(model, tied), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("position", [0, 2])
def test_a_logit_depends_on_its_token_and_those_before(position: int, draw):
    model = draw(lambda: decoder(experts=3))
    tokens = jnp.asarray([0, 1, 2, 3])

    def logit(rows):
        changed = eqx.tree_at(lambda m: m.token_embedding.weight.value, model, rows)
        return jnp.sum(changed(tokens)[position])

    gradient = np.asarray(jax.jit(jax.grad(logit))(model.token_embedding.weight.value))
    assert np.any(gradient != 0, axis=1).tolist() == [j <= position for j in range(7)]


@pytest.mark.parametrize("experts", [0, 3])
def test_leading_axes_equal_vmap(experts: int, draw):
    model = draw(lambda: decoder(experts=experts))
    tokens = jax.random.randint(KEY, (2, 3, 4), 0, 7)
    mapped = jax.jit(jax.vmap(jax.vmap(model)))(tokens)
    np.testing.assert_allclose(jax.jit(model)(tokens), mapped, rtol=1e-5, atol=1e-6)


def test_the_load_loss_is_over_all_positions_of_each_block(draw):
    model = draw(lambda: decoder(experts=3))
    tokens = jax.random.randint(KEY, (2, 4), 0, 7)
    logits, load = eqx.filter_jit(model.with_load)(tokens)
    np.testing.assert_allclose(logits, jax.jit(model)(tokens), rtol=1e-6, atol=1e-6)
    x = jax.vmap(jax.vmap(model.token_embedding))(tokens)
    first = jax.tree.map(lambda leaf: leaf[0], model.blocks)
    x = x + first.attention(jax.vmap(jax.vmap(first.attention_norm))(x))
    _, routing = jax.vmap(jax.vmap(first.mlp))(jax.vmap(jax.vmap(first.mlp_norm))(x))
    assert load.shape == (2,)
    assert float(load[0]) == pytest.approx(float(nn.load_loss(routing)), rel=1e-5)


def test_a_model_without_experts_has_no_load_loss(draw):
    model = draw(decoder)
    with pytest.raises(ValueError, match="the blocks have no experts, and so no load loss"):
        eqx.filter_eval_shape(model.with_load, jnp.asarray(TOKENS))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_it_keeps_the_dtype(dtype: str):
    model = eqx.filter_eval_shape(lambda: decoder(experts=3, dtype=dtype))
    assert {w.value.dtype for w in sx.weights_with_paths(model).values()} == {jnp.dtype(dtype)}
    assert eqx.filter_eval_shape(model, jnp.asarray(TOKENS)).dtype == jnp.dtype(dtype)


def test_gradients_in_bfloat16_are_finite(draw):
    model = draw(lambda: decoder(experts=3, dtype="bfloat16"))

    def loss(model):
        logits, load = model.with_load(jnp.asarray(TOKENS))
        return jnp.sum(jax.nn.log_softmax(logits.astype(jnp.float32))[:, 0]) + jnp.sum(load)

    gradient = eqx.filter_jit(eqx.filter_grad(loss))(model)
    assert all(np.all(np.isfinite(leaf.astype("float32"))) for leaf in jax.tree.leaves(gradient))


def test_blocks_of_other_modules(draw):
    """A block takes any modules, the plain Transformer's as well."""
    block = draw(
        lambda: nn.DecoderBlock(
            attention_norm=nn.LayerNorm(8),
            attention=nn.CausalSelfAttention(8, head_dimension=4, key=KEY),
            mlp_norm=nn.LayerNorm(8),
            mlp=nn.MLP(8, 32, 8, key=KEY),
        )
    )
    plain = draw(lambda: nn.Block(8, head_dimension=4, key=KEY))
    x = jax.random.normal(KEY, (3, 8))
    np.testing.assert_allclose(block(x), plain(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("experts", [0, 3])
def test_branches_end_in_the_last_layers_of_attention_and_mlp(experts: int):
    weights = sx.weights_with_paths(eqx.filter_eval_shape(lambda: decoder(experts=experts)))
    down = "mlp/experts/down" if experts else "mlp/down"
    assert {path for path, weight in weights.items() if weight.spec.ends_branch} == {
        "blocks/attention/output/weight",
        f"blocks/{down}/weight",
    }


@pytest.mark.parametrize("tied", [False, True])
def test_inner_layers_of_a_fixed_size_are_no_readouts(tied: bool):
    """Beside a tied readout they are none either, which would have no law."""

    def scaled():
        return sx.parameterize(
            lambda width: decoder(width, experts=3, tied=tied),
            width=32,
            base_width=8,
            parameterization=sx.mup,
        )

    weights = sx.weights_with_paths(eqx.filter_eval_shape(scaled))
    readouts = {path for path, weight in weights.items() if weight.spec.role is sx.Role.readout}
    assert readouts == (set() if tied else {"readout/weight"})
    assert weights["blocks/mlp/router/weight"].spec.role is sx.Role.hidden


def test_no_layers_are_refused():
    with pytest.raises(ValueError, match="depth is 0; expected a positive integer"):
        decoder(depth=0)
