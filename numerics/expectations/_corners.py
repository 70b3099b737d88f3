"""Angles where the quotient of the arguments says nothing."""

from numerics.expectations._entry import CPU, entries

WIDE = ("float32", "bfloat16", "float16")
FLUSHED = ("float32", "bfloat16")
_IEEE = {
    "0, 0": "0",
    "-0, 0": "-0",
    "0, -0": "π",
    "-0, -0": "-π",
    "inf, inf": "π/4",
    "-inf, inf": "-π/4",
    "inf, 1": "π/2",
    "1, inf": "0",
    "NaN, 1": "NaN",
    "1, NaN": "NaN",
    "tiny, tiny": "π/4",
    "largest, largest": "π/4",
    "largest, tiny": "π/2",
    "tiny, largest": "0",
    "1, subnormal": "π/2",
}
_OURS = {pair: angle for pair, angle in _IEEE.items() if not pair.endswith("-0")}
_OURS |= {"inf, inf": "NaN", "-inf, inf": "NaN"}

CORNERS = (
    *entries("corner of sx.ops.atan2", "what it promises", _OURS, dtypes=WIDE),
    *entries("corner of jnp.arctan2", "IEEE 754-2019, 9.2.1", _IEEE, on=CPU, dtypes=WIDE),
    *entries(
        "corner of sx.ops.atan2",
        "a subnormal number is flushed to 0, and 0 / 0 counts as 0",
        {"subnormal, subnormal": "0", "subnormal, 0": "0", "subnormal, 1": "0"},
        on=CPU,
        dtypes=FLUSHED,
    ),
    *entries(
        "corner of jnp.arctan2",
        "computed by the C library, which flushes in the quotient alone",
        {"subnormal, subnormal": "NaN", "subnormal, 0": "π/2", "subnormal, 1": "5.877e-39"},
        on=CPU,
        dtypes=FLUSHED,
    ),
    *entries(
        "corner of *tan2",
        "subnormal numbers are normal in float32",
        {"subnormal, subnormal": "π/4", "subnormal, 0": "π/2", "subnormal, 1": "3.052e-05"},
        on=CPU,
        dtypes=("float16",),
    ),
)
