"""The Transformer on text that the transfer run trains."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, UInt

from ..nn import Transformer
from ..nn._init import wide
from ..nn.unit import Transformer as UnitTransformer
from . import _corpus
from ._corpus import Corpus
from ._problem import Problem
from ._text_facts import NAME as NAME, UNIT_NAME as UNIT_NAME, identity as identity, said as said

# The deepest model whose blocks are compiled as one program: at depth 8 and 16 a step takes three
# quarters of the time. Blocks compiled a few at a time are slower than one at a time.
_UNROLLED = 16

# Windows that are judged at once: as fast as larger batches, and they fit into the caches.
_EVALUATED = 16


def text(
    corpus: Corpus,
    *,
    sequence_length: int = 64,
    batch_size: int = 4,
    head_dimension: int = 16,
    held_out_windows: int = 256,
    unit: bool = False,
) -> Problem:
    """A language model: each window's next tokens, by [`scalex_eqx.nn.Transformer`][].

    **Arguments:**

    - `corpus`: the text.
    - `sequence_length`: how many tokens of a window are predicted.
    - `batch_size`: windows in a batch, drawn evenly from all of the training part.
    - `head_dimension`: of the attention; the number of heads grows with the width.
    - `held_out_windows`: how many windows of the held-out part a run is judged on, at most.
    - `unit`: take [`scalex_eqx.nn.unit.Transformer`][], which is for `u_mup`.

    **Raises:** `UsageError` if a part of the text holds no window.
    """
    _corpus.check_parts(corpus, length=sequence_length)
    settings = {
        "sequence_length": sequence_length,
        "batch_size": batch_size,
        "head_dimension": head_dimension,
        "held_out_windows": held_out_windows,
    }

    def rebatched(size: int) -> Problem:
        _corpus.check_batch(corpus.name, size, len(corpus.train), sequence_length)
        return text(
            corpus,
            sequence_length=sequence_length,
            batch_size=size,
            head_dimension=head_dimension,
            held_out_windows=held_out_windows,
            unit=unit,
        )

    def batch(tokens: UInt[Array, " n"], key: PRNGKeyArray) -> Int[Array, "batch length"]:
        length = sequence_length + 1
        starts = jax.random.randint(key, (batch_size, 1), 0, tokens.shape[0] - length + 1)
        return tokens[starts + jnp.arange(length)[None]].astype(jnp.int32)

    return language_model(
        corpus.vocabulary_size,
        settings,
        data=corpus.train,
        batch=batch,
        rebatched=rebatched,
        held_out=_corpus.held_out_windows(corpus, count=held_out_windows, length=sequence_length),
        name=corpus.name,
        digest=corpus.digest,
        tokens=len(corpus.tokens),
        unit=unit,
    )


def language_model(
    vocabulary_size: int,
    settings: Mapping[str, int],
    *,
    held_out: Int[np.ndarray, "windows length"],
    name: str,
    digest: str,
    tokens: int,
    unit: bool = False,
    **source: Any,
) -> Problem:
    """The Transformer on text from any source.

    **Arguments:**

    - `settings`: by the names of `text`'s arguments.
    - `held_out`: the windows that runs are judged on.
    - `name`, `digest`, `tokens`: of the text, for reports and keys.
    - `unit`: as of `text`.
    - `source`: `data` and `batch`, or `read`; and `rebatched`.
    """

    def make(width: int, depth: int, key: PRNGKeyArray) -> PyTree:
        kind = UnitTransformer
        if not unit:
            kind = functools.partial(Transformer, sequence_length=settings["sequence_length"])
        return kind(
            vocabulary_size=vocabulary_size,
            width=width,
            depth=depth,
            head_dimension=settings["head_dimension"],
            unroll=depth if depth <= _UNROLLED else 1,
            key=key,
        )

    most = min(_EVALUATED, len(held_out))
    return Problem(
        make,
        unit_loss if unit else mean_loss,
        held_out=held_out,
        batch_size=settings["batch_size"],
        judged_at_once=max(n for n in range(1, most + 1) if len(held_out) % n == 0),
        identity=identity(digest, settings, unit=unit),
        said=said(name, digest, tokens, len(held_out), settings, unit=unit),
        name=UNIT_NAME if unit else NAME,
        **source,
    )


def mean_loss(model: Any, batch: Int[Array, "batch length"]) -> Float[Array, ""]:
    """The mean cross-entropy of each next token, in nats."""
    logits = wide(model(batch[:, :-1]))
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:]))


def unit_loss(model: Any, batch: Int[Array, "batch length"]) -> Float[Array, ""]:
    """The same of the unit-scaled Transformer."""
    return model.loss(batch[:, :-1], batch[:, 1:], mapped=1)
