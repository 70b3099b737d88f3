"""The Transformer on text that the transfer run trains."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt

from ..nn import Transformer
from . import _corpus
from ._corpus import Corpus
from ._problem import Problem
from ._text_facts import NAME as NAME, identity as identity, said as said

# Blocks compiled as one: at depth 2 and width 256 a step takes three quarters of the time.
_UNROLLED = 4

# Windows that are judged at once: as fast as larger batches, and they fit into the caches.
_EVALUATED = 16


def text(
    corpus: Corpus,
    *,
    sequence_length: int = 64,
    batch_size: int = 4,
    head_dimension: int = 16,
    held_out_windows: int = 256,
) -> Problem:
    """A language model: each window's next tokens, by [`scalex_eqx.nn.Transformer`][].

    **Arguments:**

    - `corpus`: the text.
    - `sequence_length`: how many tokens of a window are predicted.
    - `batch_size`: windows in a batch, drawn evenly from all of the training part.
    - `head_dimension`: of the attention; the number of heads grows with the width.
    - `held_out_windows`: how many windows of the held-out part a run is judged on, at most.

    **Raises:** `UsageError` if a part of the text holds no window.
    """
    _corpus.check_parts(corpus, length=sequence_length)
    windows = _corpus.held_out_windows(corpus, count=held_out_windows, length=sequence_length)

    def make(width: int, depth: int, key: PRNGKeyArray) -> Transformer:
        return Transformer(
            vocabulary_size=corpus.vocabulary_size,
            sequence_length=sequence_length,
            width=width,
            depth=depth,
            head_dimension=head_dimension,
            unroll=min(depth, _UNROLLED),
            key=key,
        )

    def batch(tokens: UInt[Array, " n"], key: PRNGKeyArray) -> Int[Array, "batch length"]:
        length = sequence_length + 1
        starts = jax.random.randint(key, (batch_size, 1), 0, tokens.shape[0] - length + 1)
        return tokens[starts + jnp.arange(length)[None]].astype(jnp.int32)

    def evaluate(model: Transformer, windows: Int[Array, "n length"]) -> Float[Array, ""]:
        most = min(_EVALUATED, windows.shape[0])
        size = max(n for n in range(1, most + 1) if windows.shape[0] % n == 0)
        batches = windows.reshape(-1, size, windows.shape[1])
        return jnp.mean(jax.lax.map(lambda batch: mean_loss(model, batch), batches))

    settings = {
        "sequence_length": sequence_length,
        "batch_size": batch_size,
        "head_dimension": head_dimension,
        "held_out_windows": held_out_windows,
    }
    return Problem(
        make,
        mean_loss,
        data=corpus.train,
        held_out=windows,
        batch=batch,
        evaluate=evaluate,
        identity=identity(corpus.digest, settings),
        said=said(corpus.name, corpus.digest, len(corpus.tokens), len(windows), settings),
        name=NAME,
    )


def mean_loss(model: Any, batch: Int[Array, "batch length"]) -> Float[Array, ""]:
    """The mean cross-entropy of each next token, in nats."""
    logits = model(batch[:, :-1])
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:]))
