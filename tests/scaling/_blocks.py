"""A small gated model with everything that stays or is rounded, and its coordinate check."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import scalex_eqx as sx
from scalex_eqx import nn
from scalex_eqx.diagnostics import CoordinateCheck, coordinate_check

BASE, VOCABULARY, LENGTH = 16, 8, 8
ADAM = sx.adam(0.01)


def model(
    width: int, key, *, role: sx.Role | None = sx.Role.hidden, experts: int = 3
) -> nn.Decoder:
    """Key-value heads, experts and their number fixed, the inner size rounded to 16."""
    inner = -(-8 * width // 3 // 16) * 16

    def block(key):
        attention_key, mlp_key = jax.random.split(key)
        attention = nn.GroupedQueryAttention(
            width,
            head_dimension=4,
            key_value_heads=1,
            query_key_norm="gain",
            use_bias=True,
            key=attention_key,
        )
        value = nn.Linear(width, 4, role=role, key=attention_key)
        return nn.DecoderBlock(
            attention_norm=nn.RMSNorm(width),
            attention=eqx.tree_at(lambda a: a.value, attention, value),
            mlp_norm=nn.RMSNorm(width, use_gain=False),
            mlp=nn.MixtureOfExperts(width, inner, experts=experts, top_k=2, key=mlp_key)
            if experts
            else nn.GatedMLP(width, inner, width, key=mlp_key),
        )

    return nn.Decoder(vocabulary_size=VOCABULARY, width=width, depth=1, block=block, key=key)


def build(parameterization, width: int, key, **arguments) -> nn.Decoder:
    return sx.parameterize(
        lambda width: model(width, key, **arguments),
        width=width,
        base_width=BASE,
        parameterization=parameterization,
    )


def batch(key):
    """Sequences that count in steps of 1, 2 or 3."""
    first = jax.random.randint(key, (8, 1), 0, VOCABULARY)
    tokens = (first + (first % 3 + 1) * jnp.arange(LENGTH + 1)[None]) % VOCABULARY
    return tokens[:, :-1], tokens[:, 1:]


def loss(model, tokens, targets):
    is_mixture = isinstance(model.blocks.mlp, nn.MixtureOfExperts)
    logits, load = model.with_load(tokens) if is_mixture else (model(tokens), jnp.zeros(1))
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
    return entropy + 0.01 * load.mean()


def check(parameterization, tx=ADAM, *, seeds=(0, 1), **arguments) -> CoordinateCheck:
    return coordinate_check(
        functools.partial(build, parameterization, **arguments),
        loss,
        tx,
        batch,
        widths=(BASE, 4 * BASE),
        seeds=seeds,
        steps=2,
    )
