"""Draws docs/images/alignment.png: alignment over the training of a small Transformer.

python docs/figures/alignment.py
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import scalex_eqx as sx
from scalex_eqx.experiments import load_corpus

WIDTH, BASE_WIDTH, LENGTH, BATCH, STEPS = 128, 64, 64, 4, 120
LOOKED = {1, 2, 4, 8, *range(15, STEPS + 1, 15)}
CORPUS = load_corpus(None)
TEXT = jnp.asarray(CORPUS.train[: 1 << 20].astype(np.int32))
TX = sx.adam(2.0**-7)


def make(width):
    return sx.nn.Transformer(
        vocabulary_size=CORPUS.vocabulary_size,
        sequence_length=LENGTH,
        width=width,
        depth=2,
        head_dimension=16,
        key=jax.random.key(0),
    )


def batch(key):
    starts = jax.random.randint(key, (BATCH, 1), 0, len(TEXT) - LENGTH)
    return TEXT[starts + jnp.arange(LENGTH + 1)]


def loss(model, tokens):
    logits = model(tokens[:, :-1])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
    return jnp.mean(losses)


@eqx.filter_jit
def train(model, state, key):
    gradient = eqx.filter_grad(loss)(model, batch(key))
    updates, state = TX.update(gradient, state, model)
    return eqx.apply_updates(model, updates), state


def main():
    model = initial = sx.parameterize(
        make, width=WIDTH, base_width=BASE_WIDTH, parameterization=sx.standard
    )
    state, probe = TX.init(model), batch(jax.random.key(0))
    measure = eqx.filter_jit(functools.partial(sx.diagnostics.alignment, loss))
    history = {}
    for step in range(1, STEPS + 1):
        model, state = train(model, state, jax.random.key(step))
        if step in LOOKED:
            history[step] = measure(initial, model, probe)
    figure = sx.diagnostics.alignment_figure(history)
    figure.savefig("docs/images/alignment.png", dpi=110)


if __name__ == "__main__":
    main()
