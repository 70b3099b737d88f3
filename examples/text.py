"""The text Transformer with a training loop by hand: narrow, wide, and wide without its law.

A decoder-only Transformer reads the source of Python's standard library, byte by byte. The peak
learning rate of width 64 also trains widths 128 and 256: with the rates that full alignment
prescribes for each layer, and with one learning rate for all. The plan is printed before anything
is trained.

    python examples/text.py

takes about a minute on two cores.
"""

import equinox as eqx
import jax
import numpy as np
import optax

import scalex_eqx as sx
from scalex_eqx.experiments import load_corpus

LENGTH = 64


# --8<-- [start:build]
def build(width, base_width, depth):
    def make(width):
        return sx.nn.Transformer(
            vocabulary_size=256,
            sequence_length=LENGTH,
            width=width,
            depth=depth,
            head_dimension=16,
            unroll=depth,
            key=jax.random.key(0),
        )

    return sx.parameterize(
        make,
        width=width,
        base_width=base_width,
        parameterization=sx.standard,
    )


def optimizer(peak, steps, rates):
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, steps // 10, steps)
    return sx.adam(schedule, rates, b2=0.95)


# --8<-- [end:build]


def mean_loss(model, windows):
    """The mean cross-entropy of each next byte, in nats."""
    logits = model(windows[:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits, windows[:, 1:]).mean()


def train(model, tx, text, held_out, steps, batch_size):
    """The loss on the held-out windows, after training on windows drawn at random."""

    @eqx.filter_jit(donate="all")
    def step(model, state, windows):
        loss, gradient = eqx.filter_value_and_grad(mean_loss)(model, windows)
        updates, state = tx.update(gradient, state, model)
        return eqx.apply_updates(model, updates), state, loss

    state = tx.init(model)
    random = np.random.default_rng(0)
    for count in range(1, steps + 1):
        starts = random.integers(0, len(text) - LENGTH, (batch_size, 1))
        windows = text[starts + np.arange(LENGTH + 1)].astype(np.int32)
        model, state, loss = step(model, state, windows)
        if count % (steps // 2) == 0:
            print(f"  step {count}: training loss {loss:.3f}", flush=True)
    return float(eqx.filter_jit(mean_loss)(model, held_out))


def held_out_windows(text, count):
    """Evenly spaced windows, the same for every training."""
    starts = np.linspace(0, len(text) - LENGTH - 1, count).astype(int)
    return text[starts[:, None] + np.arange(LENGTH + 1)].astype(np.int32)


def main(
    *, widths=(64, 128, 256), depth=2, learning_rate=2**-6.5, steps=200, batch_size=8, windows=64
):
    """Held-out losses by width: with per-layer rates, and with one learning rate."""
    corpus = load_corpus(None)
    held_out = held_out_windows(corpus.held_out, windows)
    print(f"{corpus.name}: {len(corpus.train):,} bytes to train on\n")
    tx = optimizer(learning_rate, steps, sx.full_alignment)
    print(sx.plan(build(widths[-1], widths[0], depth), tx))

    def trained(width, rates, name):
        print(f"\nwidth {width}, {name}")
        model, tx = build(width, widths[0], depth), optimizer(learning_rate, steps, rates)
        return train(model, tx, corpus.train, held_out, steps, batch_size)

    layers = {width: trained(width, sx.full_alignment, "per-layer rates") for width in widths}
    # At the base width the two are the same training.
    one = {width: trained(width, sx.global_rate, "one learning rate") for width in widths[1:]}
    one = {widths[0]: layers[widths[0]], **one}

    counts = np.bincount(corpus.train, minlength=256) + 1
    frequencies = -np.log(counts / counts.sum())[held_out[:, 1:]].mean()
    print(f"\nheld-out loss in nats; {frequencies:.3f} from the frequencies of bytes alone")
    print("width  per-layer rates  one learning rate")
    for width in widths:
        print(f"{width:5}  {layers[width]:15.3f}  {one[width]:17.3f}")
    changes = (losses[widths[-1]] - losses[widths[0]] for losses in (layers, one))
    print(
        "From width {} to {} the held-out loss changes by\n{:+.3f} nats with per-layer rates, by "
        "{:+.3f} with one learning rate.".format(widths[0], widths[-1], *changes)
    )
    return {"per-layer rates": layers, "one learning rate": one, "frequencies": frequencies}


if __name__ == "__main__":
    main()
