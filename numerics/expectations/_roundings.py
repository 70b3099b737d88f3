"""Which roundings survive compilation: the fraction of numbers that come out rounded."""

from numerics.expectations._entry import CPU, entries

_COMPILED = "read from the compiled program: numerics/results/compiled.md"
_CAST, _KAHAN = "cast there and back", "naive Kahan"
BF16, FP8 = ("bfloat16",), ("float8_e4m3fn",)
A100, HOPPER = ("gpu", "NVIDIA A*"), ("gpu", "NVIDIA [HG]*")
BLACKWELL, TPU = ("gpu", "NVIDIA B*"), ("tpu", "*")

ROUNDINGS = (
    *entries(
        "rounding",
        "reduce_precision and what stands in front of a barrier may not be left out",
        {
            "cast behind a barrier": 1.0,
            "reduce_precision": 1.0,
            "sx.ops.rounded": 1.0,
            "Kahan with a barrier": 1.0,
            "Kahan with sx.ops.rounded": 1.0,
            f"{_CAST}, no excess precision": 1.0,
        },
    ),
    *entries("rounding", "XLA:CPU leaves out no rounding", {_CAST: 1.0, _KAHAN: 1.0}, on=CPU),
    *entries("rounding", _COMPILED, {_CAST: 0.0, _KAHAN: 0.0}, on=A100, dtypes=BF16),
    *entries("rounding", _COMPILED, {_CAST: 0.0, _KAHAN: 1.0}, on=HOPPER, dtypes=BF16),
    *entries("rounding", _COMPILED, {_CAST: 0.0, _KAHAN: 1.0}, on=BLACKWELL, dtypes=BF16),
    *entries("rounding", _COMPILED, {_CAST: 0.0}, on=A100, dtypes=FP8),
    *entries("rounding", _COMPILED, {_CAST: 0.0}, on=HOPPER, dtypes=FP8),
    *entries("rounding", _COMPILED, {_CAST: 0.0}, on=BLACKWELL, dtypes=FP8),
    *entries("rounding", _COMPILED, {_CAST: 1.0, _KAHAN: 1.0}, on=("tpu", "TPU7*"), dtypes=BF16),
    *entries("rounding", _COMPILED, {_CAST: 1.0, _KAHAN: 0.0}, on=TPU, dtypes=BF16),
)

# What a number above the largest is cast to, by the definition of the format: `inf` if it has one.
# https://www.opencompute.org/documents/ocp-8-bit-floating-point-specification-ofp8-revision-1-0-2023-12-01-pdf-1
OVERFLOW = {
    "bfloat16": "inf",
    "float16": "inf",
    "float8_e4m3fn": "NaN",
    "float8_e5m2": "inf",
    "float8_e4m3": "inf",
    "float8_e3m4": "inf",
    "float8_e4m3b11fnuz": "NaN",
    "float8_e4m3fnuz": "NaN",
    "float8_e5m2fnuz": "NaN",
}
