"""Damages checkpoints in a thousand ways and loads them: `python tests/robustness/bit_flips.py`.

Each damaged file must be refused by one error of this library that names the file and its fault,
and none may load. Half of the flipped bits are anywhere, half in what isn't an array: the header
and the checksums, which are a small part of a large file.
"""

import argparse
import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import scalex_eqx as sx

MESSAGES = ("is damaged: ", "is not a checkpoint written by", "has checkpoint format ")


def transformer(parameterization: sx.theory.Parameterization, *, tied: bool = False) -> Any:
    """A small language model."""

    def make(width: int) -> Any:
        return sx.nn.Transformer(
            vocabulary_size=16,
            sequence_length=8,
            width=width,
            depth=2,
            head_dimension=8,
            tied=tied,
            key=jax.random.key(0),
        )

    return sx.parameterize(make, width=32, base_width=16, parameterization=parameterization)


def mlp() -> Any:
    """A smaller one."""

    def make(width: int) -> Any:
        return sx.nn.MLP(3, width, 5, key=jax.random.key(0))

    return sx.parameterize(make, width=32, base_width=16, parameterization=sx.mup)


def with_state(model: Any, tx: Any) -> Any:
    return model, tx.init(eqx.filter(model, eqx.is_inexact_array))


def arrays() -> Any:
    """Arrays of many dtypes."""
    dtypes = ("float32", "bfloat16", "float8_e4m3fn", "int4", "complex64", "bool", "uint8")
    return {
        **{name: jnp.ones((3, 5), name) for name in dtypes},
        "key": jax.random.key(1),
        "numpy": np.arange(7.0),
        "empty": np.zeros((0, 3)),
        "number": 0.1,
    }


TREES: dict[str, Callable[[], Any]] = {
    "MLP, muP, adamw": lambda: with_state(mlp(), sx.adamw(0.1, 0.01, decay_mode="coupled")),
    "arrays of many dtypes": arrays,
    "Transformer, NTK, adam_atan2": lambda: with_state(
        transformer(sx.ntk), sx.adam_atan2(0.1, moment_dtype="bfloat16")
    ),
    "tied Transformer, standard, adafactor": lambda: with_state(
        transformer(sx.standard, tied=True), sx.adafactor(0.1)
    ),
}


def damages(
    data: bytes, arrays: tuple[int, int], count: int, seed: int
) -> Iterator[tuple[str, bytes]]:
    """Kind and content of `count` files with one flipped bit, and a tenth as many of two others."""
    draw = random.Random(seed)
    start, end = arrays
    others = [*range(start), *range(end, len(data))]
    for i in range(count):
        place = draw.randrange(len(data)) if i % 2 else draw.choice(others)
        changed = bytearray(data)
        changed[place] ^= 1 << draw.randrange(8)
        yield ("bit in an array" if start <= place < end else "bit elsewhere"), bytes(changed)
    for _ in range(count // 10):
        yield "cut off", data[: draw.randrange(len(data))]
        yield "more behind the end", data + draw.randbytes(draw.choice((1, 3, 4, 64, 4096)))


def array_bytes(data: bytes) -> tuple[int, int]:
    """Where the arrays begin and end in a file, read as its format is documented."""
    size = int.from_bytes(data[24:32], "little")
    leaves = json.loads(data[32 : 32 + size])["leaves"].values()
    sums = 4 * (1 + sum(leaf["type"] == "array" for leaf in leaves))
    return 32 + size + 4, len(data) - sums


def outcome(path: Path, data: bytes, like: Any) -> str:
    """What becomes of a file with that content: `refused` is what should."""
    path.write_bytes(data)
    try:
        sx.load(path, like)
    except ValueError as error:
        line = str(error).split("\n")[0]
        is_clear = line.startswith(f"{path} ") and any(text in line for text in MESSAGES)
        return "refused" if is_clear else f"unclear: {line}"
    except Exception as error:
        return f"another error: {type(error).__name__}"
    return "loaded"


def run(count: int, folder: Path, names: Collection[str] = tuple(TREES)) -> dict[str, Any]:
    """How often each outcome was seen, by kind of damage."""
    found: dict[str, Counter[str]] = {}
    for seed, name in enumerate(names):
        tree = TREES[name]()
        path = folder / "checkpoint"
        sx.save(path, tree)
        data = path.read_bytes()
        # The control: without damage it loads, or being refused would mean nothing.
        assert outcome(path, data, tree) == "loaded", name
        for kind, changed in damages(data, array_bytes(data), count // len(names), seed):
            found.setdefault(kind, Counter())[outcome(path, changed, tree)] += 1
    return {kind: dict(outcomes) for kind, outcomes in sorted(found.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="a JSON file for the counts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(options.flips, Path(folder))
    for kind, outcomes in found.items():
        print(f"{kind:20} " + ", ".join(f"{n} {outcome}" for outcome, n in outcomes.items()))
    if options.out:
        options.out.write_text(json.dumps(found, indent=2) + "\n")
    if any(set(outcomes) != {"refused"} for outcomes in found.values()):
        raise SystemExit("some damage was not refused")


if __name__ == "__main__":
    main()
