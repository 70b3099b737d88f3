"""The language model that the evidence is about, with one thing changed at a time.

A decoder as in Lingle (2024), small: one pre-norm block with rotary positions, RMS norms without
gains, ReLU, an inner layer of four widths, no biases, heads of 16 features and logits scaled by
1/d. On the text of Python's standard library, byte by byte.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from scalex_eqx import nn
from scalex_eqx.problems import Problem, load_corpus

HEAD, LENGTH, BATCH, HELD_OUT = 16, 64, 4, 128
# A change of the model that leaves its options as they are raises this, and trains anew.
VERSION = 1


class ScaledNorm(eqx.Module):
    """An RMS norm with one gain for all features."""

    norm: nn.RMSNorm
    gain: Array

    def __init__(self, width: int):
        self.norm = nn.RMSNorm(width, use_gain=False)
        self.gain = jnp.ones(())

    def __call__(self, x: Float[Array, " size"]) -> Float[Array, " size"]:
        return self.gain * self.norm(x)


def squared_relu(x: Array) -> Array:
    return jnp.square(jax.nn.relu(x))


NORMS = {
    "none": functools.partial(nn.RMSNorm, use_gain=False),
    "vector": nn.RMSNorm,
    "scalar": ScaledNorm,
}
ACTIVATIONS = {"relu": jax.nn.relu, "squared relu": squared_relu}


def model(
    width: int,
    vocabulary: int,
    key: Any,
    *,
    base_width: int,
    biases: bool = False,
    gains: str = "none",
    logit_scale: Any = "1/d",
    zero_queries: bool = False,
    wide_readout: bool = False,
    multi_query: bool = False,
    mlp: str = "relu",
) -> nn.Decoder:
    """**Arguments:**

    - `wide_readout`: in muP, whether the readout's spread falls as the root of the fan-in, as it
        does in the standard parameterization.
    - `multi_query`: one key-value head, and an inner layer of five widths.
    - `mlp`: an activation, or `"swiglu"` with an inner layer of 8/3 of the width.
    """

    def block(key: Any) -> nn.DecoderBlock:
        of_attention, of_mlp = jax.random.split(key)
        attention = nn.GroupedQueryAttention(
            width,
            head_dimension=HEAD,
            key_value_heads=1 if multi_query else width // HEAD,
            logit_scale=logit_scale,
            use_bias=biases,
            key=of_attention,
        )
        if zero_queries:
            attention = eqx.tree_at(
                lambda layer: layer.query.weight.value, attention, replace_fn=jnp.zeros_like
            )
        if mlp == "swiglu":
            inner = -(-8 * width // 3 // 16) * 16
            two: Any = nn.GatedMLP(width, inner, width, use_bias=biases, key=of_mlp)
        else:
            two = nn.MLP(
                width,
                (5 if multi_query else 4) * width,
                width,
                activation=ACTIVATIONS[mlp],
                use_bias=biases,
                key=of_mlp,
            )
        return nn.DecoderBlock(
            attention_norm=NORMS[gains](width),
            attention=attention,
            mlp_norm=NORMS[gains](width),
            mlp=two,
        )

    whole = nn.Decoder(vocabulary_size=vocabulary, width=width, depth=1, block=block, key=key)
    whole = eqx.tree_at(lambda whole: whole.final_norm, whole, NORMS[gains](width))
    if wide_readout:
        factor = (width / base_width) ** 0.5
        whole = eqx.tree_at(
            lambda whole: whole.readout.weight.value, whole, replace_fn=lambda w: factor * w
        )
    return whole


def loss(model: Any, batch: Any) -> Any:
    """The mean cross-entropy of the next token, in nats."""
    logits = model(batch[:, :-1])
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:]))


def problem(
    base_width: int, *, batch_size: int = BATCH, nibbles: bool = False, **options: Any
) -> Problem:
    """The problem with these options of the model.

    **Arguments:**

    - `nibbles`: whether each byte is two tokens, its upper and its lower half: a vocabulary of 16,
        which is smaller than every width.
    """
    corpus = load_corpus(None)
    tokens, held_out, vocabulary = corpus.train, corpus.held_out, corpus.vocabulary_size
    if nibbles:
        tokens, held_out = halves(tokens), halves(held_out)
        vocabulary = 16
    starts = np.linspace(0, len(held_out) - LENGTH - 1, HELD_OUT).astype(int)
    windows = held_out[starts[:, None] + np.arange(LENGTH + 1)[None]].astype(np.int32)

    def make(width: int, key: Any) -> Any:
        return model(width, vocabulary, key, base_width=base_width, **options)

    def batch(tokens: Any, key: Any) -> Any:
        places = jax.random.randint(key, (batch_size, 1), 0, tokens.shape[0] - LENGTH)
        return tokens[places + jnp.arange(LENGTH + 1)[None]].astype(jnp.int32)

    return Problem(
        make,
        loss,
        data=tokens,
        batch=batch,
        batch_size=batch_size,
        rebatched=lambda size: problem(base_width, batch_size=size, nibbles=nibbles, **options),
        held_out=windows,
        judged_at_once=16,
        identity={
            "model": "evidence",
            "version": VERSION,
            "batch": batch_size,
            "nibbles": nibbles,
            "base": base_width,
            **{name: str(value) for name, value in sorted(options.items())},
        },
        name="evidence",
    )


def halves(tokens: np.ndarray) -> np.ndarray:
    """Each byte as its upper and its lower four bits."""
    return np.stack([tokens >> 4, tokens & 15], axis=-1).reshape(-1)
