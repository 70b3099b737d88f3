"""Bits that a product of matrices keeps, at least, and what a sum of ones comes to.

Normal matrices of size 512 whose operands are rounded to m bits keep m + 6.2: a factor is off by
about 2^-m * 0.24 of its size, and 512 errors add up like the root of their number. Operands that
are truncated in place of rounded cost one more bit.
"""

from numerics.expectations._entry import CPU, Expected, entries

_PAGE = "https://docs.jax.dev/en/latest/201/precision.html"
F32 = ("float32",)

PRODUCTS = (
    *entries(
        "product",
        "float32 throughout; 512 products are summed in blocks",
        {"default": 24.0, "high": 24.0, "highest": 24.0},
        on=CPU,
        dtypes=F32,
    ),
    *entries(
        "product",
        f"TensorFloat32 has 10 bits, highest is float32: {_PAGE}",
        {"default": 15.0, "high": 15.0, "highest": 22.0},
        on=("gpu", "NVIDIA [AHGB]*"),
        dtypes=F32,
    ),
    *entries(
        "product",
        f"bfloat16 has 7 bits; one, three and six passes: {_PAGE}",
        {"default": 12.0, "high": 19.0, "highest": 22.0},
        on=("tpu", "*"),
        dtypes=F32,
    ),
    *entries(
        "product",
        "products are exact, and summed in float32",
        {"default": 22.0},
        dtypes=("bfloat16", "float16"),
    ),
    *entries(
        "product",
        "products are exact, and summed in float32",
        {"default": 22.0},
        on=CPU,
        dtypes=("float8_e4m3fn",),
    ),
    *entries("sum of 4096 ones", "summed in float32", {"dot": 4096.0}),
    Expected("*", "*", "sum of 4096 ones: loop", "bfloat16", 256.0, "2^8 + 1 is rounded to 2^8"),
    Expected("*", "*", "sum of 4096 ones: loop", "float16", 2048.0, "2^11 + 1 rounds to 2^11"),
)
