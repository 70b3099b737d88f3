"""What statistics of single examples' gradients cost, beside one gradient of the batch.

    python tests/benchmarks/bench_per_example.py [--rounds 15] [--out docs/results/NAME.json]

Three cases in float32, compiled: an MLP of three layers of 256 on a batch of 64; a Transformer of
two blocks, width 128, on 16 sequences of 64 tokens, of tokens and of examples. With `--cases` some
of them, and the file keeps what it has of the others. Turn and turn about in one process; prints
medians and quartiles of the ratio to the batch's gradient in the same round, of the time that all
cores spend, which other work on the machine doesn't change much, and the compiled programs'
temporaries. Beside the MLP's stand `jit(vmap(grad))`, which returns every example's gradient,
Optax's `micro_grad`, and jax-privacy's clipped gradients where that is installed.
"""

import argparse
import datetime
import importlib.util
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from optax import microbatching

import scalex_eqx as sx

TOKENS, SEQUENCES, WIDTH, DEPTH = 64, 16, 128, 2

Arms = dict[str, Callable[[Any, Any], Any]]


def entropies(logits: Any, tokens: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens)


def found(loss: Any, **options: Any) -> Callable[[Any, Any], Any]:
    return lambda model, batch: sx.gradient_statistics(loss, model, batch, **options)


def ours(loss: Any, *, of: Any = "example", clipped: bool = True) -> Arms:
    arms = {
        "norms": found(loss, of=of, statistics=("norm",)),
        "mean of squares": found(loss, of=of, statistics=("square",)),
        "both": found(loss, of=of, statistics=("square", "norm")),
        "mean of signs": found(loss, of=of, statistics=("sign",)),
    }
    if clipped:
        arms["clipped"] = found(loss, of=of, statistics=("clipped",), clip=1.0)
        arms["mean of squares, method='vmap'"] = found(
            loss, of=of, statistics=("square",), method="vmap"
        )
    return arms


def others(loss: Any) -> Arms:
    """Of one example's loss, by other means."""

    def gradients(model: Any, batch: Any) -> Any:
        return eqx.filter_vmap(eqx.filter_grad(loss), in_axes=(None, 0))(model, batch)

    def by_optax(size: int | None, model: Any, batch: Any) -> Any:
        params, static = eqx.partition(model, eqx.is_inexact_array)
        return microbatching.micro_grad(
            lambda params, example: loss(eqx.combine(params, static), example),
            keep_batch_dim=False,
            microbatch_size=size,
            accumulator=microbatching.AccumulationType.MEAN,
            transform_fn=lambda g: (g, jax.tree.map(jnp.square, g)),
        )(params, batch)[0]

    arms = {
        "jit(vmap(grad)), all gradients": gradients,
        "Optax micro_grad, one at a time": partial(by_optax, 1),
        "Optax micro_grad, four at a time": partial(by_optax, 4),
    }
    if importlib.util.find_spec("jax_privacy") is not None:
        arms["jax-privacy, clipped"] = by_jax_privacy(loss)
    return arms


def by_jax_privacy(loss: Any) -> Callable[[Any, Any], Any]:
    clipping = importlib.import_module("jax_privacy.clipping")

    def clipped(model: Any, batch: Any) -> Any:
        params, static = eqx.partition(model, eqx.is_inexact_array)
        return clipping.clipped_grad(
            lambda params, example: loss(eqx.combine(params, static), example),
            l2_clip_norm=1.0,
            batch_argnums=1,
            keep_batch_dim=False,
        )(params, batch)

    return clipped


def mlp() -> tuple[Any, Any, Arms]:
    keys = jax.random.split(jax.random.key(0), 3)
    model = eqx.nn.MLP(256, 256, 256, 2, key=keys[0])
    batch = tuple(jax.random.normal(key, (64, 256)) for key in keys[1:])

    def loss(model: Any, example: Any) -> Any:
        return jnp.mean((model(example[0]) - example[1]) ** 2)

    def of_batch(model: Any, batch: Any) -> Any:
        return jnp.mean((jax.vmap(model)(batch[0]) - batch[1]) ** 2)

    base: Arms = {"gradient of the batch": eqx.filter_value_and_grad(of_batch)}
    return model, batch, base | ours(loss) | others(loss)


def transformer(of: str) -> tuple[Any, Any, Arms]:
    def make(width: int) -> Any:
        return sx.nn.Transformer(
            vocabulary_size=256,
            sequence_length=TOKENS,
            width=width,
            depth=DEPTH,
            head_dimension=32,
            key=jax.random.key(0),
        )

    model = sx.parameterize(make, width=WIDTH, base_width=64, parameterization=sx.mup)
    tokens = jax.random.randint(jax.random.key(1), (SEQUENCES, TOKENS + 1), 0, 256)

    def of_tokens(model: Any, tokens: Any) -> Any:
        return entropies(model(tokens[:-1]), tokens[1:])

    def of_example(model: Any, tokens: Any) -> Any:
        return jnp.mean(of_tokens(model, tokens))

    def of_batch(model: Any, tokens: Any) -> Any:
        return jnp.mean(entropies(model(tokens[:, :-1]), tokens[:, 1:]))

    arms: Arms = {"gradient of the batch": eqx.filter_value_and_grad(of_batch)}
    if of == "token":
        return model, tokens, arms | ours(of_tokens, of="token", clipped=False)
    return model, tokens, arms | ours(of_example)


def measured(model: Any, batch: Any, arms: Arms, rounds: int) -> dict[str, Any]:
    """By arm: the ratios of processor time, milliseconds, and bytes."""
    dynamic, static = eqx.partition(model, eqx.is_array)

    def compiled(arm: Any) -> Any:
        def call(dynamic: Any, batch: Any) -> Any:
            return eqx.filter(arm(eqx.combine(dynamic, static), batch), eqx.is_array)

        return jax.jit(call).lower(dynamic, batch).compile()

    programs = {name: compiled(arm) for name, arm in arms.items()}
    times: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(rounds + 1):
        for name, program in programs.items():
            start = time.process_time()
            jax.block_until_ready(program(dynamic, batch))
            if number:
                times[name].append(1e3 * (time.process_time() - start))
    base = times["gradient of the batch"]
    memory = programs["gradient of the batch"].memory_analysis().temp_size_in_bytes
    results = {}
    for name, program in programs.items():
        ratios = [t / u for t, u in zip(times[name], base, strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        own = program.memory_analysis()
        results[name] = {
            "ratio": [low, median, high],
            "milliseconds": statistics.median(times[name]),
            "temporaries": own.temp_size_in_bytes,
            "outputs": own.output_size_in_bytes,
            "temporaries ratio": own.temp_size_in_bytes / memory,
        }
        print(
            f"  {name:34} {median:7.3f}  [{low:7.3f}, {high:7.3f}]  "
            f"{results[name]['milliseconds']:8.2f} ms  {own.temp_size_in_bytes / 2**20:8.2f} MiB  "
            f"({results[name]['temporaries ratio']:.2f})",
            flush=True,
        )
    return results


CASES: dict[str, Callable[[], tuple[Any, Any, Arms]]] = {
    "mlp": mlp,
    "tokens": partial(transformer, "token"),
    "examples": partial(transformer, "example"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results = {}
    if arguments.out and arguments.out.exists():
        results = json.loads(arguments.out.read_text(encoding="utf-8"))["cases"]
    for case in arguments.cases:
        print(case, flush=True)
        arms = measured(*CASES[case](), arguments.rounds)
        facts = {
            "date": datetime.date.today().isoformat(),
            "jax": jax.__version__,
            "optax": optax.__version__,
            "device": jax.devices()[0].device_kind,
            "cores": len(os.sched_getaffinity(0)),
            "load": os.getloadavg()[0],
            "rounds": arguments.rounds,
        }
        results[case] = {"facts": facts, "arms": arms}
        if arguments.out:
            text = json.dumps({"cases": results}, indent=1)
            arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
