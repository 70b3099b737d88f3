"""Which roundings of intermediate results survive compilation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import scalex_eqx as sx
from numerics.formats.values import exactly, of
from scalex_eqx.diagnostics import Table

NAME = "formats: roundings that survive compilation"
COLUMNS = ("form", "dtype", "excess precision", "rounded")
NARROW = ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2")
NUMBERS = 4096


def _there_and_back(dtype):
    return lambda x: x.astype(dtype).astype(x.dtype)


def _behind_a_barrier(dtype):
    return lambda x: jax.lax.optimization_barrier(x.astype(dtype)).astype(x.dtype)


def _reduced(dtype):
    limits = jnp.finfo(dtype)
    return lambda x: jax.lax.reduce_precision(x, limits.nexp, limits.nmant)


def _ours(dtype):
    return lambda x: sx.ops.rounded(x, dtype)


def naive_kahan(w, u, c):
    """A compensated sum written plainly, all in one narrow dtype."""
    y = u - c
    t = w + y
    return t, (t - w) - y


def kahan_with_barrier(w, u, c):
    """The same, with the rounding of the sum made visible to the compiler as it is."""
    y = u - c
    t = jax.lax.optimization_barrier(w + y)
    return t, (t - w) - y


def kahan_rounded(w, u, c):
    """The same in float32, with the sum rounded by `sx.ops.rounded`; c has the other sign."""
    narrow, (w, u, c) = w.dtype, (x.astype(jnp.float32) for x in (w, u, c))
    y = u + c
    t = sx.ops.rounded(w + y, narrow)
    return t.astype(narrow), ((w - t) + y).astype(narrow)


FORMS: dict[str, Callable] = {
    "cast there and back": _there_and_back,
    "cast behind a barrier": _behind_a_barrier,
    "reduce_precision": _reduced,
    "sx.ops.rounded": _ours,
}
KAHAN = {
    "naive Kahan": naive_kahan,
    "Kahan with a barrier": kahan_with_barrier,
    "Kahan with sx.ops.rounded": kahan_rounded,
}
# Form, dtype, and whether the compiler may compute in more precision than the program says.
CASES = (
    *(
        (form, dtype, True)
        for form in FORMS
        for dtype in NARROW
        if form != "sx.ops.rounded" or not dtype.startswith("float8")
    ),
    ("cast there and back", "bfloat16", False),
    *((form, "bfloat16", True) for form in KAHAN),
)


def table() -> Table:
    """A row a form: the fraction of numbers that come out rounded; 1 is right, 0 is elided.

    Of a compensated sum: the fraction of lost parts that the compensation has caught.
    """
    cells = [(*case, _fraction(*case)) for case in CASES]
    return Table(NAME, COLUMNS[:3], COLUMNS, [dict(zip(COLUMNS, c, strict=True)) for c in cells])


def _fraction(form: str, dtype: str, excess: bool) -> float:
    if form in KAHAN:
        return caught_fraction(KAHAN[form])
    return rounded_fraction(FORMS[form](jnp.dtype(dtype)), dtype, excess=excess)


def rounded_fraction(form: Callable, dtype: str, *, excess: bool = True) -> float:
    """How many of random numbers, none of which the format has, equal their rounded value."""
    x = np.random.default_rng(0).uniform(1, 2, NUMBERS).astype(np.float32)
    x = x[exactly(of(dtype, *x)) != x]
    # A second use, so that there is something to fuse the rounding with.
    options = {"xla_allow_excess_precision": excess}
    program = jax.jit(lambda x, y: form(x) * y, compiler_options=options)
    return float(np.mean(exactly(program(x, np.ones_like(x))) == exactly(of(dtype, *x))))


def caught_fraction(step: Callable) -> float:
    """How many of the parts that a narrow sum loses are in the compensation afterwards."""
    generator = np.random.default_rng(0)
    w = of("bfloat16", *generator.uniform(1, 2, NUMBERS))
    u = of("bfloat16", *(generator.uniform(1, 2, NUMBERS) * 2.0**-10))
    t, c = (exactly(x) for x in jax.jit(step)(w, u, np.zeros_like(u)))
    lost = exactly(w) + exactly(u) - t
    assert np.all(lost != 0)
    return float(np.mean(np.abs(np.abs(c) - np.abs(lost)) <= 2.0**-8 * np.abs(lost)))
