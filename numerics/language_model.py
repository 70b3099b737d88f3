"""The Transformer of the rooms that look at real gradients, and the text that it reads."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

import scalex_eqx as sx
from scalex_eqx.experiments import Corpus, load_corpus

BASE_WIDTH, DEPTH, HEAD_DIMENSION = 64, 2, 16
LENGTH, SEQUENCES = 32, 8
_HELD_OUT = 64


@functools.cache
def corpus() -> Corpus:
    """The library's default text, byte by byte."""
    return load_corpus(None)


def transformer(parameterization: sx.Parameterization, width: int, seed: int) -> sx.nn.Transformer:
    """The model at a width, its constants those of the base width; equal seeds, equal draws."""

    def make(width: int) -> sx.nn.Transformer:
        return sx.nn.Transformer(
            vocabulary_size=corpus().vocabulary_size,
            sequence_length=LENGTH,
            width=width,
            depth=DEPTH,
            head_dimension=HEAD_DIMENSION,
            unroll=DEPTH,
            key=jax.random.key(seed),
        )

    return sx.parameterize(
        make, width=width, base_width=BASE_WIDTH, parameterization=parameterization
    )


@functools.cache
def batch(seed: int, step: int) -> Int[Array, "sequences length"]:
    """Sequences from anywhere in the training text, the same at every width and in every format."""
    tokens = corpus().train
    starts = np.random.default_rng((seed, step)).integers(0, len(tokens) - LENGTH, SEQUENCES)
    return _windows(tokens, starts)


def held_out() -> Int[Array, "sequences length"]:
    """Sequences evenly spread over the text that is never trained on."""
    tokens = corpus().held_out
    return _windows(tokens, np.linspace(0, len(tokens) - LENGTH - 1, _HELD_OUT, dtype=int))


def loss(
    model: PyTree, tokens: Int[Array, "sequences length"], factor: Float[Array, ""]
) -> Float[Array, ""]:
    """The mean cross-entropy of each next token, in float32, times a factor.

    The factor is part of the loss, so that the backward pass carries it.
    """
    logits = model(tokens[:, :-1]).astype(jnp.float32)
    return factor * jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]))


gradient: Any = eqx.filter_jit(eqx.filter_grad(loss))
held_out_loss: Any = eqx.filter_jit(lambda model: loss(model, held_out(), jnp.ones(())))


def _windows(tokens: np.ndarray, starts: np.ndarray) -> Int[Array, "sequences length"]:
    return jnp.asarray(tokens[starts[:, None] + np.arange(LENGTH + 1)].astype(np.int32))
