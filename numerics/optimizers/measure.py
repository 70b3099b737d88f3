"""Every rule over all scales of the gradient: what it does, and what it is expected to do."""

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from numerics.optimizers import oracles, stall
from numerics.optimizers.controls import plain_adam_atan2
from scalex_eqx import diagnostics
from scalex_eqx.diagnostics import (
    GradientKind,
    Stress,
    StressDtype,
    StressRule,
    Table,
    stress_rules,
)

PLAIN = "plain adam_atan2"
VERDICTS, EXPECTATIONS = "optimizers: verdicts", "optimizers: expectations"

Case = tuple[str, GradientKind, StressDtype, StressDtype]

# What differs from rule to rule, and what the known figures and the negative controls are about.
_NOISY = (
    "adam",
    "adam-1e-30",
    "adam_atan2",
    "adafactor",
    "lion",
    "optax.adam-1e-30",
    "optax.adafactor",
    PLAIN,
)
_CONSTANT = ("adam-1e-8", "adam-1e-15", "adam_atan2", "optax.adam-1e-30", PLAIN)
_LOW_PRECISION = ("adam_atan2",)


def cases(thorough: bool) -> list[Case]:
    """Rule, kind of gradient, dtype of gradients and of weights."""
    names = (*stress_rules, PLAIN)
    if thorough:
        kinds = [_cases(names, kind) for kind in get_args(GradientKind)]
        dtypes = [
            _cases(names, "noisy", dtype, weights)
            for dtype in ("bfloat16", "float16")
            for weights in (dtype, "float32")
        ]
        return list(itertools.chain(*kinds, *dtypes))
    return [
        *_cases(_NOISY, "noisy"),
        *_cases(_CONSTANT, "constant"),
        *_cases(_LOW_PRECISION, "noisy", "bfloat16", "bfloat16"),
    ]


def _cases(
    names: Sequence[str],
    kind: GradientKind,
    gradient_dtype: StressDtype = "float32",
    parameter_dtype: StressDtype = "float32",
) -> list[Case]:
    return [(name, kind, gradient_dtype, parameter_dtype) for name in names]


@functools.cache
def stressed(
    name: str, kind: GradientKind, gradient_dtype: StressDtype, parameter_dtype: StressDtype
) -> Stress:
    """A case, measured once."""
    rule = StressRule(plain_adam_atan2) if name == PLAIN else stress_rules[name]
    return diagnostics.stress(
        rule.make(),
        name=name,
        gradient=kind,
        gradient_dtype=gradient_dtype,
        parameter_dtype=parameter_dtype,
        shape=rule.shape,
    )


def tables(thorough: bool) -> list[Table]:
    results = [stressed(*case) for case in cases(thorough)]
    kinds = oracles.KINDS if thorough else oracles.KINDS[:1]
    return [
        diagnostics.stress_table(results, VERDICTS),
        _expectations(results),
        oracles.table(kinds),
        stall.table(),
    ]


def _expectations(results: list[Stress]) -> Table:
    keys = ("rule", "gradient", "gradient_dtype", "parameter_dtype", "quantity")
    rows = []
    for result in results:
        if result.name == PLAIN:
            continue
        case = {"rule": result.name} | {key: getattr(result, key) for key in keys[1:4]}
        for one in diagnostics.stress_expectations(stress_rules[result.name], result):
            rows.append({**case, **one._asdict(), "holds": one.holds})
    columns = (*keys, "found", "low", "high", "holds", "why")
    return Table(EXPECTATIONS, keys, columns, rows)


def picture(tables: list[Table], folder: Path) -> None:
    """Updates against scale, for noisy float32 gradients."""
    verdicts = next(table for table in tables if table.name == VERDICTS)
    noisy = [
        stressed(str(row["rule"]), "noisy", "float32", "float32")
        for row in verdicts.rows
        if (row["gradient"], row["gradient_dtype"], row["parameter_dtype"])
        == ("noisy", "float32", "float32")
    ]
    figure = diagnostics.stress_figure(noisy)
    figure.savefig(folder / "optimizers.png", dpi=130, metadata={"Software": None})
