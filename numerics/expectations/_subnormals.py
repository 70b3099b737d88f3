"""What operations on subnormal numbers give: `kept`, or what comes out instead."""

import jax

from numerics.expectations._entry import CPU, entries

_FLUSH = "flush-to-zero and denormals-are-zero: https://github.com/jax-ml/jax/issues/16200"
_FLUSHED = {
    "x + 0": "0",
    "a - b -> subnormal": "0",
    "x * 1": "0",
    "a * b -> subnormal": "0",
    "x / 1": "0",
    "a / b -> subnormal": "0",
    "x / x": "NaN",
    "1 / x": "inf",
    "sqrt(x)": "0",
    "rsqrt(x)": "inf",
    "log(x)": "-inf",
    "exp(a) -> subnormal": "0",
    "dot(x, 1)": "0",
    "dot -> subnormal": "0",
    "x > 0": "0",
    "x != 0": "0",
    "max(x, 0)": "0",
    "sign(x)": "0",
}
_UNTOUCHED = {"-x": "kept", "abs(x)": "kept", "cast to float32": "kept"}
# Found with jaxlib 0.10.2; 0.12.0.1 compares in float32, as `_FLUSHED` says.
_EQUALITY = {"x != 0": "kept"} if jax.__version_info__ < (0, 11) else {}

SUBNORMALS = (
    *entries(
        "subnormal", "compared as bits, not in float32", _EQUALITY, on=CPU, dtypes=("bfloat16",)
    ),
    *entries("subnormal", _FLUSH, _FLUSHED, on=CPU, dtypes=("float32", "bfloat16")),
    *entries(
        "subnormal", "bits are moved, nothing is computed", _UNTOUCHED, on=CPU,
        dtypes=("float32", "bfloat16"),
    ),
    *entries(
        "subnormal",
        "2^11 and 2^5.5 are above the largest number, 30, and there is no infinity",
        {"1 / x": "NaN", "rsqrt(x)": "NaN"},
        dtypes=("float8_e4m3b11fnuz",),
    ),
    *entries(
        "subnormal",
        "2^8 and 2^16 are above the largest number, and there is no infinity",
        {"1 / x": "NaN"},
        dtypes=("float8_e4m3fnuz", "float8_e5m2fnuz"),
    ),
    *entries(
        "subnormal", "subnormal numbers are normal in float32", {"*": "kept"}, on=CPU,
        dtypes=("float16", "float8_*"),
    ),
)  # fmt: skip
