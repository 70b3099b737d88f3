"""The largest errors of elementary operations, in units of the last place."""

from numerics.expectations._entry import CPU, Expected, entries

PAGE = "https://docs.jax.dev/en/latest/accuracy.html, reviewed 2026-09-18, of a newer version"
F32 = ("float32",)
F16 = ("bfloat16", "float16")

# A TPU's names are as jax.Device.device_kind gives them.
_PAGE_FLOAT32 = {
    ("gpu", "NVIDIA*"): (3.0, 1.0, 2.0, 1.0, 2.0, 2.0),
    ("tpu", "TPU v5 lite*"): (3.5, 3.0, 2.5, 198.0, 5159.0, 116.0),
    ("tpu", "TPU v5*"): (3.5, 3.0, 2.5, 40.0, 57.5, 109.5),
    ("tpu", "TPU v6*"): (3.5, 2.0, 1.5, 1.5, 2.5, 64.5),
    ("tpu", "TPU7*"): (3.5, 2.0, 1.0, 1.5, 2.5, 65.0),
    ("tpu", "TPU v[234]*"): (3.5, 3.0, 2.5, 198.0, 5159.0, 116.0),
}
_OPERATIONS = ("jnp.arctan2", "sqrt", "rsqrt", "reciprocal", "log2", "exp")

# The page gives 0.5 for a result that is the nearest number to one within a little of the exact
# one; such a result is off by up to half a unit and that little. A float32 result within 4 ulp
# adds 4 * 2^-13 of a float16's ulp.
_HALF = 0.5 + 4 * 2.0**-13
# The page's errors in steps of half an ulp are between the rounded exact result and the result.
_PAGE_16_BITS = {"jnp.arctan2": 1.0, "rsqrt": _HALF, "sqrt": 1.0, "reciprocal": 1.0, "log2": 2.0}


def _of_page() -> tuple[Expected, ...]:
    found: list[Expected] = []
    for device, errors in _PAGE_FLOAT32.items():
        values: dict[str, float] = dict(zip(_OPERATIONS, errors, strict=True))
        found += entries("error", PAGE, values, on=device, dtypes=F32)
    return tuple(found)


ERRORS = (
    *entries("error", "what sx.ops.atan2 promises", {"sx.ops.atan2": 3.0}, dtypes=F32),
    *entries("error", "computed in float32, rounded once", {"sx.ops.atan2": _HALF}, dtypes=F16),
    *entries(
        "error",
        "IEEE 754 demands correct rounding",
        {"sqrt": 0.5, "divide": 0.5, "reciprocal": 0.5},
        on=CPU,
        dtypes=F32,
    ),
    *entries("error", PAGE, {"rsqrt": 2.0, "log2": 2.5}, on=CPU, dtypes=F32),
    *entries(
        "error",
        f"1.5 on {PAGE}; jaxlib 0.10.2 gives 1.0 below 88.3, and 5.6 right below overflow",
        {"exp": 6.0},
        on=CPU,
        dtypes=F32,
    ),
    *entries(
        "error",
        f"0.5 on {PAGE}; jaxlib 0.10.2 gives 1.47",
        {"jnp.arctan2": 1.5},
        on=CPU,
        dtypes=F32,
    ),
    *_of_page(),
    *entries(
        "error",
        "computed in float32, rounded once",
        {"sqrt": _HALF, "divide": _HALF, "reciprocal": _HALF, "exp": _HALF},
        on=CPU,
        dtypes=F16,
    ),
    *entries("error", PAGE, _PAGE_16_BITS, dtypes=F16),
    *entries("error", PAGE, {"exp": 1.0}, on=("gpu", "NVIDIA*"), dtypes=F16),
    *entries("error", PAGE, {"exp": 1.0}, on=("tpu", "*"), dtypes=F16),
)
