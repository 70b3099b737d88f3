"""What `scalex train` costs beside the arithmetic: the host's time for a step, and utilisation.

    python tests/benchmarks/bench_train.py host
    python tests/benchmarks/bench_train.py utilisation --width 512 --depth 4
    python tests/benchmarks/bench_train.py reading
    python tests/benchmarks/bench_train.py grain

`host` trains a model so small that dispatch is all there is, in turns with a plain loop of Equinox
and Optax that draws the same batches and reads its losses as late, and compares the main thread's
processor time. The training loop writes its log meanwhile. `utilisation` compares the operations of
a step's matrix products, in a second of the processor's time, with those of single products of the
model's own sizes, in turns. `reading` compares how token files are read with a mapped file, and
`grain` with Grain (`pip install grain`) over the same windows, shuffled and batched in this thread.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from scalex_eqx import resolve
from scalex_eqx.experiments import load_corpus, parse_recipe
from scalex_eqx.problems import Problem, text
from scalex_eqx.problems._problem import data_key
from scalex_eqx.problems._token_file import TokenFile
from scalex_eqx.training import Trainer, Training, operations_of_step, parse_mesh, train

ROUNDS, STEPS, WARM = 9, 300, 50


def problem(**sizes: Any) -> Problem:
    """Text, as the command has it by default."""
    return text(load_corpus(None), **sizes)


class Clock:
    """Notes the main thread's processor time at two steps."""

    def __init__(self) -> None:
        self.at: dict[int, float] = {}

    def begin(self, step: int, steps: int) -> None: ...

    def stepped(self, step: int, loss: float) -> None:
        if step in (WARM, STEPS - 1):
            self.at[step] = time.thread_time()

    def evaluated(self, step: int, metrics: dict[str, float]) -> None: ...

    def saved(self, step: int) -> None: ...

    @property
    def each(self) -> float:
        """Of a step."""
        return (self.at[STEPS - 1] - self.at[WARM]) / (STEPS - 1 - WARM)


def plain_loop(own: Problem, trainer: Trainer) -> float:
    """A step of what a user would write by hand."""
    key = jax.random.key(0)
    model = own.build({"width": 16, "depth": 2}, key)
    model = resolve(model)
    tx = optax.adam(trainer.training.rate, b1=0.9, b2=0.95, eps=1e-12)
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))
    data = jax.device_put(own.data)

    @eqx.filter_jit(donate="all-except-first")
    def step(data, model, state, index):
        batch = own.drawn(data, jax.random.fold_in(data_key(0), index))
        loss, gradient = eqx.filter_value_and_grad(own.mean_loss)(model, batch)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, state = tx.update(gradient, state, params)
        return eqx.apply_updates(model, updates), state, loss

    pending, began = [], 0.0
    for index in range(STEPS - 1):
        if index == WARM:
            began = time.thread_time()
        model, state, loss = step(data, model, state, np.array(index, np.int32))
        pending.append(loss)
        if len(pending) > 2:
            float(pending.pop(0))
    return (time.thread_time() - began) / (STEPS - 1 - WARM)


def host() -> None:
    """The ratio of the two loops, round by round."""
    own = problem(sequence_length=8, batch_size=2, head_dimension=8, held_out_windows=2)
    options = Training(parse_recipe("mup:adam:full"), 16, 16, 2**-7, STEPS)
    trainer = Trainer(options, own, parse_mesh("data", jax.devices()[:1]))
    ratios = []
    for _ in range(ROUNDS):
        clock = Clock()
        with tempfile.TemporaryDirectory() as name:
            train(trainer, Path(name), listener=clock)
        plain = plain_loop(own, trainer)
        ratios.append(clock.each / plain)
        print(f"train {1e6 * clock.each:.0f} us, plain {1e6 * plain:.0f} us a step", flush=True)
    said(ratios, "main thread's time a step, beside the plain loop's")


def said(ratios: list[float], what: str) -> None:
    low, high = np.percentile(ratios, [25, 75])
    print(f"{what}: median {statistics.median(ratios):.3f}, quartiles {low:.3f} to {high:.3f}")


def utilisation(width: int, depth: int, batch: int) -> None:
    """The rate of a step beside that of products of its sizes."""
    own = problem(sequence_length=64, batch_size=batch, head_dimension=64)
    options = Training(parse_recipe("mup:adam:full"), width, width, 2**-7, 100, depth=depth)
    trainer = Trainer(options, own, parse_mesh("data", jax.devices()[:1]))
    count, tokens = operations_of_step(trainer), 64 * batch
    x, w = jnp.ones((tokens, width)), jnp.ones((width, 4 * width))
    product = jax.jit(lambda x, w: x @ w)
    each = 2 * tokens * width * 4 * width
    repeats = max(1, count // each // 4)
    state, ratios = trainer.start(), []
    state, loss = trainer.step(state, None)
    jax.block_until_ready((loss, product(x, w)))
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(repeats):
            product(x, w).block_until_ready()
        alone = repeats * each / (time.process_time() - began)
        began = time.process_time()
        state, loss = trainer.step(state, None)
        jax.block_until_ready((state, loss))
        step = count / (time.process_time() - began)
        ratios.append(step / alone)
        print(f"step {step / 1e9:.1f}, product {alone / 1e9:.1f} billion a second", flush=True)
    said(ratios, f"width {width}, depth {depth}: operations, beside a product's")


def reading(batch: int, length: int, tokens: int) -> None:
    """A batch of windows from a file, as the library reads them and mapped into memory."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "tokens.bin"
        np.random.default_rng(0).integers(0, 2**15, tokens, np.uint16).tofile(path)
        file, mapped = TokenFile(path, 2**15), np.memmap(path, np.uint16, "r")
        ratios, took = [], list[float]()
        for seed in range(ROUNDS * 4):
            starts = np.random.default_rng(seed).integers(0, tokens - length, batch)
            took = []
            for read in (
                lambda starts=starts: file.windows(starts, length),
                lambda starts=starts: mapped[starts[:, None] + np.arange(length)].astype(np.int32),
            ):
                began = time.process_time()
                read()
                took.append(time.process_time() - began)
            ratios.append(took[0] / took[1])
        print(f"read {1e3 * took[0]:.2f} ms, mapped {1e3 * took[1]:.2f} ms the last batch")
        said(ratios, f"{batch} x {length} of {tokens:,} tokens: read, beside mapped")


def loading(batch: int, length: int, tokens: int, *, batches: int = 20) -> None:
    """Batches of windows at random places, as the library reads them and as Grain does."""
    import grain  # pyright: ignore[reportMissingImports]

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "tokens.bin"
        np.random.default_rng(0).integers(0, 2**15, tokens, np.uint16).tofile(path)
        file = TokenFile(path, 2**15)

        class Windows:
            """A window an element, read as the library reads one."""

            def __len__(self) -> int:
                return tokens - length

            def __getitem__(self, start: Any) -> np.ndarray:
                return file.windows(np.array([start]), length)[0]

        shuffled = grain.MapDataset.source(Windows()).shuffle(seed=0).batch(batch)
        # Without threads that read ahead, whose time would be counted as the other's.
        options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        loader = iter(shuffled.to_iter_dataset(options))
        next(loader)
        ratios = []
        for seed in range(ROUNDS):
            took = []
            for read in (
                lambda rng: file.windows(rng.integers(0, tokens - length, batch), length),
                lambda rng: next(loader),
            ):
                rng = np.random.default_rng(seed)
                began = time.process_time()
                for _ in range(batches):
                    assert read(rng).shape == (batch, length)
                took.append((time.process_time() - began) / batches)
            ratios.append(took[1] / took[0])
            print(
                f"read {1e3 * took[0]:.2f} ms, Grain {1e3 * took[1]:.2f} ms of all threads a batch"
            )
        said(
            ratios,
            f"{batch} x {length} of {tokens:,} tokens: Grain's processor time, beside reading",
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("host", "utilisation", "reading", "grain"))
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    given = parser.parse_args()
    if given.what == "host":
        host()
    elif given.what == "reading":
        reading(256, 2049, 10**8)
    elif given.what == "grain":
        loading(256, 2049, 10**8)
    else:
        utilisation(given.width, given.depth, given.batch)
