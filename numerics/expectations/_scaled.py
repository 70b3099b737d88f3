"""Errors that the operations of unit scaling may have, at most, of the size of what is exact.

A number that is rounded to m bits behind the first is off by 2^-m / sqrt(12) of the power of two
below it, in the root mean square. Over numbers of all sizes the mean of one over the square is 0.54
of that between two powers of two, and the share of the number itself 0.2123 * 2^-m: 0.00166 in
bfloat16, 2.53e-8 in float32, 0.0265 in e4m3 and 0.0531 in e5m2. Independent roundings add up like
the root of their number. A twentieth is given on top, for the numbers that are drawn.
"""

from numerics.expectations._entry import CPU, entries


def _rounded(bits: int, times: float = 1) -> float:
    return 1.05 * 0.2123 * 2.0**-bits * times**0.5


SCALED = (
    *entries(
        "scaled",
        "512 terms added one to the other: of each partial sum, half as large in the mean square",
        {"linear": _rounded(23, 512 / 2)},
        on=CPU,
        dtypes=("float32",),
    ),
    *entries(
        "scaled",
        "some ten operations behind each other, of which each is off by one rounding",
        {"gated_silu": _rounded(23, 10), "rms_norm": _rounded(23, 10), "softmax": _rounded(23, 10)},
        dtypes=("float32",),
    ),
    *entries(
        "scaled",
        "summed in float32 and rounded, and with a factor that is no power of two once more",
        {"linear": _rounded(7, 2), "rms_norm": _rounded(7, 2)},
        dtypes=("bfloat16",),
    ),
    *entries(
        "scaled",
        "the same, and the factor itself is rounded, by up to 2^-8: 2.4 roundings or less",
        {"softmax": _rounded(7, 2 + 2.4**2)},
        dtypes=("bfloat16",),
    ),
    *entries(
        "scaled",
        "a logistic function, its slope, three products and a factor in bfloat16: ten at most",
        {"gated_silu": _rounded(7, 10)},
        dtypes=("bfloat16",),
    ),
    *entries(
        "scaled",
        "an operand of e4m3 and one of e5m2, whose roundings are as 1 to 2: as five of e4m3",
        {"linear": _rounded(3, 5)},
        dtypes=("float8",),
    ),
)
