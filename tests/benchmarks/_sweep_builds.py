"""What `bench_sweep.py` measures, in a process that imports the sources of one build.

Reads a line of JSON with what to measure, writes one with what was found, and waits for the next:
what is compiled stays, so that builds can be measured in turn.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import jax

CORES = min(os.cpu_count() or 1, 8)
if "--loop" not in sys.argv:
    jax.config.update("jax_num_cpu_devices", CORES)

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax

BATCH, LENGTH, HEAD, STEPS, RATE = 4, 64, 16, 250, 0.002
CHUNK_SECONDS = 0.5


def seconds_of(call: Callable[[], Any], at_least: float = 0.0) -> float:
    """Of one call, as the mean over so many that they take a while."""
    start, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - start < at_least:
        jax.block_until_ready(call())
        calls += 1
    return (time.perf_counter() - start) / calls


class Slotted:
    """This build's packs: `Slots`, which hold one run on each core."""

    def __init__(self, width: int, depth: int, at_once: int | None):
        from scalex_eqx.experiments import Member, Setting, load_corpus, parse_recipe
        from scalex_eqx.experiments._slots import Slots
        from scalex_eqx.experiments._train import packs
        from scalex_eqx.problems import text

        recipe = parse_recipe("standard:adam:full")
        setting = Setting(base_width=min(width, 64), depth=depth, steps=STEPS)
        members = [Member(recipe, width, RATE, seed) for seed in range(at_once or CORES)]
        problem = text(load_corpus(None), batch_size=BATCH, sequence_length=LENGTH)
        (self._pack,) = packs(problem, setting, members)
        start = time.perf_counter()
        self._slots = Slots(self._pack.program, self._pack.runs, at_once)
        self.compiling = {"initialisation": time.perf_counter() - start}
        self.together, self.chunk = len(self._slots.slots), self._slots.chunk
        self._begin()
        # The second chunk is compiled for nothing new.
        first = seconds_of(self._slots.advance)
        self.compiling["training"] = max(first - seconds_of(self._slots.advance), 0.0)
        evaluating = seconds_of(self._judge)
        self.compiling["evaluation"] = max(evaluating - seconds_of(self._judge), 0.0)

    def _begin(self) -> None:
        self._slots.slots = [None] * self.together
        self._slots.fill(list(range(self.together)), self._pack.runs)
        jax.block_until_ready(self._slots.state)

    def _judge(self) -> None:
        for slot in self._slots.slots:
            assert slot is not None
            slot.done, slot.metrics = STEPS, None
        self._slots.ended()
        for slot in self._slots.slots:
            assert slot is not None
            slot.done, slot.metrics, slot.losses = 0, None, []

    def step(self) -> float:
        """Seconds of a step of all runs that train together."""
        return seconds_of(self._slots.advance, CHUNK_SECONDS) / self.chunk

    def beside(self) -> float:
        """Seconds that a run takes beside its steps: its beginning and its evaluation."""
        return (seconds_of(self._begin) + seconds_of(self._judge)) / self.together


class Grouped:
    """The build before packs: all runs of a group in one program, mapped over them."""

    def __init__(self, width: int, depth: int, at_once: int | None):
        from scalex_eqx.experiments import Member, Setting, load_corpus, parse_recipe

        # Of that build, not of the one that this file is checked with.
        _train: Any = importlib.import_module("scalex_eqx.experiments._train")
        recipe, corpus = parse_recipe("standard:adam:full"), load_corpus(None)
        sizes = {"head_dimension": HEAD, "sequence_length": LENGTH, "batch_size": BATCH}
        made: Any = Setting
        setting = made(base_width=min(width, 64), depth=depth, steps=STEPS, **sizes)
        self.together, self.chunk = at_once or CORES, _train._stride(STEPS)
        members = [Member(recipe, width, RATE, seed) for seed in range(self.together)]
        mesh = jax.sharding.Mesh(np.array(jax.devices()), (_train._AXIS,))
        run = _train._shared_out(members, mesh)
        trainer = _train._Trainer(setting, recipe, width, corpus)
        tokens = jnp.asarray(corpus.train)

        def mapped(function: Any, in_runs: int, out: Any = 0, **options: Any) -> Any:
            placed = _train._mapped(function, mesh, in_runs=in_runs, out_runs_axis=out)
            return jax.jit(placed, **options)

        self.compiling: dict[str, float] = {}
        self._state = self._compiled("initialisation", mapped(trainer.start, 1), run)(run)
        self._steps = jnp.arange(self.chunk)
        advance = mapped(trainer.advance, 2, (0, 1), donate_argnums=0)
        self._arguments = run, tokens, self._steps
        self._advance = self._compiled("training", advance, self._state, *self._arguments)
        windows = _train.held_out_windows(corpus, count=256, length=LENGTH)
        held_out = _train._in_batches(windows, setting.batch_size)
        self._compiled("evaluation", mapped(trainer.evaluate, 1), self._state, held_out)
        self._go()

    def _compiled(self, name: str, function: Any, *arguments: Any) -> Any:
        start = time.perf_counter()
        compiled = function.lower(*arguments).compile()
        self.compiling[name] = time.perf_counter() - start
        return compiled

    def _go(self) -> Any:
        self._state, losses = self._advance(self._state, *self._arguments)
        return losses

    def step(self) -> float:
        """Seconds of a step of all runs that train together."""
        return seconds_of(self._go, CHUNK_SECONDS) / self.chunk


class Loop:
    """What one writes for a single model: a jitted step, `optax.adam`, batches from the host."""

    def __init__(self, width: int, depth: int, at_once: int | None):
        del at_once
        from scalex_eqx import nn, resolve
        from scalex_eqx.experiments import load_corpus

        corpus = load_corpus(None)
        self._tokens, self._random = np.asarray(corpus.train), np.random.default_rng(0)
        model = nn.Transformer(
            vocabulary_size=corpus.vocabulary_size,
            sequence_length=LENGTH,
            width=width,
            depth=depth,
            head_dimension=HEAD,
            unroll=depth,
            key=jax.random.key(0),
        )
        params, static = eqx.partition(resolve(model), eqx.is_inexact_array)
        tx = optax.adam(RATE, 0.9, 0.95)

        def loss(params: Any, batch: Any) -> Any:
            logits = eqx.combine(params, static)(batch[:, :-1])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:])
            return losses.mean()

        def step(params: Any, state: Any, batch: Any) -> Any:
            value, gradient = jax.value_and_grad(loss)(params, batch)
            updates, state = tx.update(gradient, state, params)
            return optax.apply_updates(params, updates), state, value

        self._step, self._params, self._state = jax.jit(step), params, tx.init(params)
        self.together, self.chunk, self.compiling = 1, 50, {}
        self._go()

    def _go(self) -> Any:
        value = None
        for _ in range(self.chunk):
            starts = self._random.integers(0, len(self._tokens) - LENGTH, BATCH)
            windows = np.stack([self._tokens[s : s + LENGTH + 1] for s in starts]).astype(np.int32)
            self._params, self._state, value = self._step(self._params, self._state, windows)
        return value

    def step(self) -> float:
        """Seconds of a step."""
        return seconds_of(self._go, CHUNK_SECONDS) / self.chunk


class Machine:
    """The rate of float32 matrix products, all cores together."""

    def __init__(self) -> None:
        self._square = jnp.ones((2048, 2048))
        self._product = jax.jit(jnp.matmul)
        self.rate()

    def rate(self) -> float:
        """In operations a second."""
        seconds = seconds_of(lambda: [self._product(self._square, self._square)] * 4)
        return 2 * 2048**3 / seconds


def main() -> None:
    built: Any = Loop
    if "--loop" not in sys.argv:
        built = Slotted if "--slots" in sys.argv else Grouped
    kept: dict[tuple[Any, ...], Any] = {}
    machine = Machine()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        place = asked["width"], asked["depth"], asked["at_once"]
        if place not in kept:
            kept[place] = built(*place)
        one = kept[place]
        rate = machine.rate()
        step = one.step()
        found = {"step": step, "together": one.together, "compiling": one.compiling}
        found["rate"] = (rate + machine.rate()) / 2
        if asked.get("whole") and built is Slotted:
            found["beside"] = one.beside()
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
