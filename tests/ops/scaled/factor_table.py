"""The factors of the scaled operations, at many sizes, as a table that is kept.

    python tests/ops/scaled/factor_table.py [--out docs/results/unit_factors.json]

Each factor is computed twice: by the library, and from the limits that its formula joins, as a
product of powers in 30 digits. Refuses to write numbers that differ in the sixth digit.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mpmath import e as euler, log, mp, mpf, pi, sqrt

from scalex_eqx.diagnostics import Table, record
from scalex_eqx.ops import scaled

MULTS = ("1/4", "1/2", "1", "2", "4")
Row = tuple[str, str, scaled.Factors, list[Any]]


def between(lower: Any, upper: Any, share: Any) -> Any:
    """The geometric mean of two limits, with weights."""
    return lower ** (1 - share) * upper**share


def products() -> Iterator[Row]:
    for sizes in ((64, 256, 1024), (256, 64, 16), (1024, 1024, 65536)):
        fan_in, fan_out, tokens = map(mpf, sizes)
        said = "fan-in {}, fan-out {}, tokens {}".format(*sizes)
        roots = [1 / sqrt(fan_in), 1 / sqrt(fan_out), 1 / sqrt(tokens)]
        yield "linear", said, scaled.linear_factors(*sizes, constraint=None), roots
        one = [roots[0], roots[0], roots[2]]
        yield "linear, to_output_scale", said, scaled.linear_factors(*sizes), one
        mean = sqrt(roots[0] * roots[1])
        geometric = scaled.linear_factors(*sizes, constraint="gmean")
        yield "linear, gmean", said, geometric, [mean, mean, roots[2]]
        yield "readout", said, scaled.readout_factors(*sizes), [1 / fan_in, *roots[1:]]
        three = scaled.matmul_factors(*sizes, constraint=None)
        said = "M {}, K {}, N {}".format(*sizes)
        yield "matmul", said, three, [roots[1], roots[2], roots[0]]
    for count, tokens in ((256, 1024), (32000, 65536)):
        found = scaled.embedding_factors(count, tokens)
        expected = [mpf(1), sqrt(mpf(count) / tokens)]
        yield "embedding", f"rows {count}, tokens {tokens}", found, expected
    for taps, stride, groups in ((3, 1, 1), (9, 4, 1), (9, 1, 4)):
        found = scaled.conv_factors(
            64, 128, taps, 4096, stride=stride, groups=groups, constraint=None
        )
        per_group = mpf(taps) / groups
        terms = [64 * per_group, 128 * per_group / stride, mpf(4096)]
        said = f"channels 64 to 128, taps {taps}, stride {stride}, groups {groups}, positions 4096"
        yield "conv", said, found, [1 / sqrt(x) for x in terms]


def activations() -> Iterator[Row]:
    relu, slope = sqrt(2 / (1 - 1 / pi)), sqrt(mpf(2))
    for text in MULTS:
        m = _number(text)
        wide, narrow = 4 * m**2 / (4 * m**2 + 1), m**2 / (m**2 + 1)
        of_gelu = [between(2, relu, wide), between(2, slope, wide)]
        of_silu = [of_gelu[0], between(2, slope, narrow)]
        yield "gelu", f"mult {text}", scaled.gelu_factors(float(m), constraint=None), of_gelu
        yield "silu", f"mult {text}", scaled.silu_factors(float(m), constraint=None), of_silu
        gated = scaled.gated_silu_factors(float(m))
        yield "gated silu", f"mult {text}", gated, [of_silu[1]] * 3
        for size in (64, 4096):
            n, share = mpf(size), m**2 / (m**2 + 4)
            found = scaled.softmax_factors(size, float(m), constraint=None)
            expected = [between(n, sqrt(n), share), between(n / m, sqrt(n / m), share)]
            yield "softmax", f"entries {size}, mult {text}", found, expected


def attentions() -> Iterator[Row]:
    for length, d in ((64, 16), (64, 64), (256, 64), (2048, 128)):
        for text in ("1/4", "1", "4"):
            for causal in (True, False):
                m = _number(text)
                found = scaled.attention_factors(length, d, float(m), causal=causal)
                flat = sqrt((log(length, euler) if causal else 1) / mpf(length))
                expected = flat ** -(4 * d / (m**2 + 4 * d))
                said = f"length {length}, d {d}, mult {text}{', causal' if causal else ''}"
                yield "attention", said, found, [expected] * 4


def others() -> Iterator[Row]:
    for classes in (2, 64, 256, 32000):
        v = mpf(classes)
        found = scaled.cross_entropy_factors(classes)
        yield "cross-entropy", f"classes {classes}", found, [mpf(1), v / sqrt(v - 1)]
    for rate in ("1/10", "1/2"):
        p = _number(rate)
        found = scaled.dropout_factors(float(p))
        yield "dropout", f"rate {rate}", found, [sqrt(1 - p)] * 2
    eighth = 1 / sqrt(mpf(8))
    yield "mean square", "", scaled.mean_square_factors(), [mpf(1), eighth, eighth]
    norm = [mpf(1), mpf(1), 1 / sqrt(mpf(1024))]
    yield "norm", "tokens 1024", scaled.norm_factors(1024), norm
    half = 1 / sqrt(mpf(2))
    sum_of = scaled.add_factors((16, 8), (8,), constraint=None)
    yield "add", "16x8 and 8", sum_of, [half, mpf(1), mpf(1) / 4]


def _number(text: str) -> Any:
    over, _, under = text.partition("/")
    return mpf(over) / mpf(under or 1)


def rows() -> list[dict[str, Any]]:
    """All factors, after comparing the two ways to them."""
    found = []
    with mp.workdps(30):
        for every in (products, activations, attentions, others):
            for operation, sizes, factors, expected in every():
                flat = [factors.output, *factors.inputs, *factors.weights]
                for own, other in zip(flat, expected, strict=True):
                    if abs(own / float(other) - 1) > 1e-9:
                        raise ValueError(f"{operation}, {sizes}: {own} and {float(other)}")
                found.append(
                    {
                        "operation": operation,
                        "sizes": sizes,
                        "output": factors.output,
                        "gradients of inputs": ", ".join(f"{x:.6g}" for x in factors.inputs),
                        "gradients of weights": ", ".join(f"{x:.6g}" for x in factors.weights),
                    }
                )
    return found


def table() -> Table:
    every = rows()
    return Table("factors of operations", ("operation", "sizes"), tuple(every[0]), every)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/unit_factors.json"))
    arguments = parser.parse_args()
    print(table().to_markdown())
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    results = record([table()], "python tests/ops/scaled/factor_table.py")
    arguments.out.write_text(results.to_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
