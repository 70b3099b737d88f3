"""What is measured against what is expected, and controls that the measuring must reject."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from numerics.capabilities import Capabilities
from numerics.expectations import EXPECTATIONS, OVERFLOW, Expected, expected
from numerics.formats import accuracy, casts, corners, matmul, roundings, scaled, subnormals
from numerics.formats.values import FLOAT8, WIDE, exactly, of, shown, tiny, ulps
from scalex_eqx.diagnostics import Device, Table

Measured = Callable[[str], dict[str, Table]]


@pytest.fixture(scope="session")
def tables(measured: Measured) -> dict[str, Table]:
    return measured("formats")


def expectation(device: Capabilities, operation: str, dtype: str) -> Expected:
    """What is expected; a test without expectation is skipped, its value is in the report."""
    found = expected(device.device, operation, dtype)
    if found is None:
        pytest.skip(f"nothing is known of {operation} in {dtype} on a {device.device.chip}")
    return found


@pytest.mark.parametrize("dtype", [*WIDE, *FLOAT8])
@pytest.mark.parametrize("operation", [operation.name for operation in subnormals.OPERATIONS])
def test_subnormal_numbers(tables, device, operation, dtype):
    entry = expectation(device, f"subnormal: {operation}", dtype)
    assert tables[subnormals.NAME].by_key()[(operation,)][dtype] == entry.value, entry.because


@pytest.mark.parametrize("dtype", WIDE)
def test_subnormal_numbers_agree_with_the_probe(tables, device, dtype):
    product = tables[subnormals.NAME].by_key()[("a * b -> subnormal",)][dtype]
    assert (product == "kept") == device.keeps_subnormals[dtype]


@pytest.mark.parametrize(("source", "dtype"), casts.PAIRS)
def test_casts(tables, source, dtype):
    row = tables[casts.NAME].by_key()[source, dtype]
    assert row["far above"] == row["inf"] == OVERFLOW[dtype]
    assert row["NaN"] == "NaN"
    assert row["differ from ml_dtypes"] == 0


def test_a_cast_that_saturates_is_counted():
    """The negative control: four bits have no infinity and no NaN."""
    x = of("float32", 1e9, np.inf)
    saturated = jax.jit(lambda x: jnp.clip(x, -448, 448).astype(jnp.float8_e4m3fn))(x)
    assert list(exactly(saturated)) == [448, 448]
    assert np.isnan(exactly(of("float8_e4m3fn", 1e9, np.inf))).all()


@pytest.mark.parametrize(("function", "dtype", "pair"), corners.cases())
def test_corners_of_atan2(tables, device, function, dtype, pair):
    entry = expectation(device, f"corner of {function}: {pair}", dtype)
    angle = tables[corners.NAME].by_key()[(pair,)][f"{function} {dtype}"]
    assert angle == entry.value, entry.because


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("operation", accuracy.FUNCTIONS)
def test_largest_error(tables, device, operation, dtype):
    entry = expectation(device, f"error: {operation}", dtype)
    error = tables[accuracy.NAME].by_key()[operation, dtype]["largest error, ulp"]
    assert error <= entry.number * (1 + 1e-6), entry.because


@pytest.mark.exhaustive
def test_largest_error_of_all(device):
    for row in accuracy.exhaustive().rows:
        entry = expected(device.device, f"error: {row['operation']}", str(row["dtype"]))
        if entry is not None:
            error = row["largest error, ulp"]
            assert isinstance(error, float)
            assert error <= entry.number * (1 + 1e-6), (row, entry.because)


def test_an_error_is_seen():
    """The negative control: the quotient as a product with the rounded reciprocal."""
    x = of("float32", *np.random.default_rng(0).uniform(1, 2, 4096))
    y = x[::-1].copy()
    product = jax.jit(lambda y, x: y * jax.lax.optimization_barrier(1 / x))(y, x)
    assert ulps(product, exactly(y) / exactly(x), "float32").max() > 0.6


@pytest.mark.parametrize("name", accuracy.FUNCTIONS)
def test_float64_is_exact_enough(name):
    """NumPy's float64 against 50 digits: its error is far below a float32's last place."""
    exact = {
        "sqrt": mpmath.sqrt,
        "rsqrt": lambda x: 1 / mpmath.sqrt(x),
        "reciprocal": lambda x: 1 / x,
        "log2": lambda x: mpmath.log(x, 2),
        "exp": mpmath.exp,
        "divide": mpmath.fdiv,
        "jnp.arctan2": mpmath.atan2,
        "sx.ops.atan2": mpmath.atan2,
    }[name]
    function = accuracy.FUNCTIONS[name]
    values = [exactly(x)[:200] for x in accuracy.arguments(name, "float16")]
    with mpmath.workdps(50):
        for arguments in zip(*values, strict=True):
            right = exact(*map(mpmath.mpf, map(float, arguments)))
            found = float(function.exact(*arguments))
            assert abs(found - right) <= abs(right) * 2.0**-50


@pytest.mark.parametrize(("form", "dtype", "excess"), roundings.CASES)
def test_roundings(tables, device, form, dtype, excess):
    suffix = "" if excess else ", no excess precision"
    entry = expectation(device, f"rounding: {form}{suffix}", dtype)
    row = tables[roundings.NAME].by_key()[form, dtype, excess]
    assert row["rounded"] == entry.value, entry.because


def test_a_rounding_that_is_left_out_is_seen():
    """The negative controls: what a compiler with excess precision makes of the forms."""

    def kahan(w, u, c):
        w, u, c = (x.astype(jnp.float32) for x in (w, u, c))
        y = u - c
        t = w + y
        return t.astype(jnp.bfloat16), ((t - w) - y).astype(jnp.bfloat16)

    assert roundings.rounded_fraction(lambda x: x, "bfloat16") == 0
    assert roundings.caught_fraction(kahan) == 0


@pytest.mark.parametrize(("dtype", "precision"), matmul.CASES)
def test_products(tables, device, dtype, precision):
    entry = expectation(device, f"product: {precision}", dtype)
    row = tables[matmul.PRODUCTS].by_key()[dtype, precision]
    assert row["bits"] >= entry.value, entry.because


@pytest.mark.parametrize("bits", [7, 10])
def test_products_of_rounded_operands(tables, bits):
    """Against operands rounded by NumPy and a product in float64, from other random numbers."""
    a, b = np.random.default_rng(1).normal(size=(2, matmul.SIZE, matmul.SIZE))
    mantissa, exponent = np.frexp(np.stack([a, b]))
    rounded = np.ldexp(np.round(np.ldexp(mantissa, bits + 1)), exponent - bits - 1)
    predicted = matmul.relative_error(rounded[0] @ rounded[1], a, b)
    row = tables[matmul.PRODUCTS].by_key()["float32", f"operands with {bits} bits"]
    # 262,144 entries of 512 products each: another draw changes the error by less than 1 %.
    assert row["error"] == pytest.approx(predicted, rel=0.02)


@pytest.mark.parametrize("how", ["dot", "loop"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_accumulation(tables, device, how, dtype):
    entry = expectation(device, f"sum of 4096 ones: {how}", dtype)
    row = tables[matmul.ACCUMULATION].by_key()[dtype, how]
    assert row["sum of 4096 ones"] == entry.value, entry.because


def test_a_wrong_expectation_would_fail(tables):
    """What is expected of a TPU's reciprocal is not expected of a CPU's."""
    cpu, tpu = (expected(Device(*where), "error: reciprocal", "float32") for where in DEVICES)
    assert cpu is not None and tpu is not None
    assert (cpu.value, tpu.value) == (0.5, 198.0)
    assert expected(Device("unheard of", "gpu"), "error: reciprocal", "float32") is None


DEVICES = (("some CPU", "cpu"), ("TPU v5 lite", "tpu"))


def test_every_expectation_says_why():
    assert all(len(entry.because) > 10 for entry in EXPECTATIONS)


def test_words_for_special_values():
    assert [shown(x) for x in (-0.0, np.pi / 2, -np.inf, np.nan)] == ["-0", "π/2", "-inf", "NaN"]
    assert tiny("float16") == 2.0**-14


SCALED = [(name, dtype) for name in scaled.OPERATIONS for dtype in scaled.DTYPES[:2]]
# Sizes in the limit of the sums are one, but for these: the slope of silu, whose factor is made for
# the output, and a softmax whose gradient is brought back by the output's factor.
OTHER_SIZES = {("gated_silu", "gradient of gate"): 1.04, ("softmax", "gradient of x"): 0.25}


@pytest.mark.parametrize(("operation", "dtype"), [*SCALED, ("linear", "float8")])
def test_scaled_operations(tables, device, operation, dtype):
    entry = expectation(device, f"scaled: {operation}", dtype)
    rows = [
        row
        for row in tables[scaled.NAME].rows
        if (row["operation"], row["dtype"]) == (operation, dtype)
    ]
    assert len(rows) >= 2
    for row in rows:
        assert row["error"] <= entry.value, (row, entry.because)
        # 131,072 normal numbers, in sums of 256 or 512: 1 +- 0.002, and correlations within rows.
        expected_size = OTHER_SIZES.get((operation, row["array"]), 1.0)
        assert row["size"] == pytest.approx(expected_size, rel=0.03), row


@pytest.mark.parametrize("array", ["output", "gradient of x", "gradient of w"])
def test_a_product_without_its_factors_is_of_another_size(array):
    """The negative control: neither size nor error pass."""
    linear = scaled.OPERATIONS["linear"]
    plain = linear._replace(compute=lambda x, w: x @ w.T)
    found, exact = scaled.results(plain, "float32")
    size = np.sqrt(np.mean(np.square(exactly(found[array]))))
    assert size > 10 and np.max(np.abs(exactly(found[array]) - exact[array])) > 1


@pytest.mark.parametrize("array", ["output", "gradient of x", "gradient of w"])
def test_bfloat16_is_not_within_the_error_of_float32(tables, device, array):
    entry = expectation(device, "scaled: linear", "float32")
    assert tables[scaled.NAME].by_key()["linear", "bfloat16", array]["error"] > 100 * entry.value
