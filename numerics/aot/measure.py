"""All that the room `aot` reads from compiled programs."""

import re
from pathlib import Path

import numpy as np

from numerics.aot import arithmetic, picture as pictures
from numerics.aot.compiled import Compiled, compiled
from numerics.aot.hlo import COLLECTIVES
from numerics.aot.programs import (
    BFLOAT16_RULES,
    FLOAT32_RULES,
    FLUSHING,
    KAHAN_STEP,
    SHARDED,
    TRAINING,
    TRAINING_FOUR,
)
from numerics.aot.targets import TARGETS
from numerics.formats import roundings
from numerics.formats.values import exactly, of
from scalex_eqx.diagnostics import Table

RULES, SHARDED_RULES = "compiled: update rules", "compiled: update rules, weight over 4 chips"
ROUNDINGS, STEP = "compiled: roundings", "compiled: training step"
PTX, PRODUCTS = "compiled: PTX of update rules", "compiled: matrix products"
_FLUSHING = re.compile(r"\b([a-z][\w.]*\.ftz[\w.]*)")
_APPROXIMATE = re.compile(r"\b((?:div|sqrt|rsqrt|rcp)\.(?:full|approx)\.[\w.]*)")
CASTS = ("bfloat16", "float8_e4m3fn")


def tables(thorough: bool) -> list[Table]:
    """**Arguments:**

    - `thorough`: whether all targets are compiled for.
    """
    found = compiled(thorough)
    return [
        _rules(found),
        _sharded(found),
        _roundings(found),
        _step(found),
        _ptx(found),
        _products(found),
    ]


def picture(tables: list[Table], folder: Path) -> None:
    """Draws what the rules read and write."""
    pictures.draw(next(table for table in tables if table.name == RULES), folder / "traffic.png")


def _table(name: str, keys: int, columns: tuple[str, ...], cells) -> Table:
    rows = [dict(zip(columns, row, strict=True)) for row in cells]
    return Table(name, columns[:keys], columns, rows)


def _rules(found) -> Table:
    """Traffic is in units of the least; casts are of arrays."""
    columns = ("target", "rule", "fusions", "traffic", "casts", "reduce_precision", "temporary MB")
    cells = [
        (
            target,
            rule,
            program.module.fusions(),
            program.traffic / program.least,
            casts(program),
            program.module.count("reduce-precision"),
            program.temporary / 1e6,
        )
        for target, programs in found.items()
        for rule in (*FLOAT32_RULES, *BFLOAT16_RULES)
        for program in (programs[rule],)
    ]
    return _table(RULES, 2, columns, cells)


def _sharded(found) -> Table:
    columns = ("target", "rule", *COLLECTIVES)
    cells = [
        (target, rule, *collectives(programs[f"{rule}, over 4 chips"]))
        for target, programs in found.items()
        for rule in SHARDED
    ]
    return _table(SHARDED_RULES, 2, columns, cells)


def _step(found) -> Table:
    columns = ("target", "chips", "fusions", "casts", *COLLECTIVES, "temporary MB", "flops")
    cells = [
        (
            target,
            chips,
            program.module.fusions(),
            casts(program),
            *collectives(program),
            program.temporary / 1e6,
            program.flops,
        )
        for target, programs in found.items()
        for chips, title in ((1, TRAINING), (4, TRAINING_FOUR))
        for program in (programs[title],)
    ]
    return _table(STEP, 2, columns, cells)


def casts(program: Compiled) -> str:
    """The kinds of casts of arrays in a program."""
    return ", ".join(sorted(program.module.converts()))


def collectives(program: Compiled) -> tuple[int, ...]:
    """How often each kind stands in a program."""
    return tuple(program.module.count(name) for name in COLLECTIVES)


def _roundings(found) -> Table:
    """The compiled program, computed in NumPy: the fraction of numbers that come out rounded."""
    casts, sums = [f"cast to {dtype} and back" for dtype in CASTS], (*roundings.KAHAN, KAHAN_STEP)
    cells = [
        (
            target,
            *(rounded_fraction(programs[f], d) for f, d in zip(casts, CASTS, strict=True)),
            *(caught_fraction(programs[form], is_rule=form == KAHAN_STEP) for form in sums),
        )
        for target, programs in found.items()
    ]
    return _table(ROUNDINGS, 1, ("target", *casts, *sums), cells)


def rounded_fraction(program: Compiled, dtype: str) -> float:
    """How many random numbers come out as numbers of the narrower format."""
    x = np.random.default_rng(0).uniform(1, 2, roundings.NUMBERS).astype(np.float32)
    x = x[exactly(of(dtype, *x)) != x]
    (result,) = arithmetic.run(program.module, (x, np.ones_like(x)))
    return float(np.mean(exactly(result) == exactly(of(dtype, *x))))


def caught_fraction(program: Compiled, *, is_rule: bool) -> float:
    """How much of what a narrow sum loses is in the compensation afterwards.

    A rule's arguments are weights, compensation and gradients; its learning rate of 2 is 1 at
    four times the base width.
    """
    generator = np.random.default_rng(0)
    w = of("bfloat16", *generator.uniform(1, 2, roundings.NUMBERS))
    u = of("bfloat16", *(generator.uniform(1, 2, roundings.NUMBERS) * 2.0**-10))
    zero = np.zeros_like(u)
    arguments = (w, zero, -u) if is_rule else (w, u, zero)
    t, c = map(exactly, arithmetic.run(program.module, arguments))
    lost = exactly(w) + exactly(u) - t
    return float(np.mean(np.abs(np.abs(c) - np.abs(lost)) <= 2.0**-8 * np.abs(lost)))


def _ptx(found) -> Table:
    """Which instructions flush, and which are not correctly rounded."""
    columns = ("target", "rule", "instructions that flush", "approximate instructions")
    cells = [
        (target, rule, _kinds(_FLUSHING, program), _kinds(_APPROXIMATE, program))
        for target, programs in found.items()
        if TARGETS[target].platform == "cuda"
        for rule in (*FLOAT32_RULES, *BFLOAT16_RULES, FLUSHING)
        for program in (programs[rule],)
    ]
    return _table(PTX, 2, columns, cells)


def _kinds(pattern: re.Pattern[str], program: Compiled) -> str:
    return ", ".join(sorted(set(pattern.findall(program.ptx))))


def _products(found) -> Table:
    columns = ("target", "precision", "operand precision")
    cells = []
    for target, programs in found.items():
        if TARGETS[target].platform == "tpu":
            for precision in ("default", "highest"):
                text = programs[f"matmul, {precision}"].text
                asked = re.search(r"operand_precision=\{([\w,]*)\}", text)
                cells.append((target, precision, asked[1] if asked else "default"))
    return _table(PRODUCTS, 2, columns, cells)
