"""What is demanded of the compiled programs. Without the compilers' packages, it is skipped."""

from collections.abc import Callable

import pytest

from numerics.aot import measure
from numerics.aot.compiled import Compiled, compiled, missing_packages
from numerics.aot.programs import BFLOAT16_RULES, FLOAT32_RULES, FLUSHING, KAHAN_STEP, SHARDED
from numerics.aot.targets import TARGETS, USUAL
from numerics.expectations import Expected, expected
from numerics.formats import roundings
from scalex_eqx.diagnostics import Device, Table

MISSING = missing_packages()
pytestmark = [
    pytest.mark.aot,
    pytest.mark.skipif(
        bool(MISSING), reason=f"{', '.join(MISSING)} not installed: run make numerics-aot"
    ),
]

Measured = Callable[[str], dict[str, Table]]
EVERY = [pytest.param(name, marks=() if name in USUAL else pytest.mark.stress) for name in TARGETS]
CUDA = [param for param in EVERY if TARGETS[str(param.values[0])].platform == "cuda"]
TPU = [param for param in EVERY if TARGETS[str(param.values[0])].platform == "tpu"]


@pytest.fixture(scope="session")
def tables(measured: Measured) -> dict[str, Table]:
    return measured("aot")


@pytest.fixture(scope="session")
def programs(thorough: bool) -> dict[str, dict[str, Compiled]]:
    return {name: dict(found) for name, found in compiled(thorough).items()}


def expectation(target: str, operation: str, dtype: str = "float32") -> Expected | None:
    return expected(Device(target, f"compiled {TARGETS[target].platform}"), operation, dtype)


@pytest.mark.parametrize("target", EVERY)
def test_fusions(tables, target):
    judged = 0
    for rule in (*FLOAT32_RULES, *BFLOAT16_RULES):
        entry = expectation(target, f"fusions: {rule}")
        if entry is not None:
            assert tables[measure.RULES].by_key()[target, rule]["fusions"] == entry.value, rule
            judged += 1
    assert judged == 8


@pytest.mark.parametrize("rule", [*FLOAT32_RULES, *BFLOAT16_RULES])
@pytest.mark.parametrize("target", EVERY)
def test_traffic(tables, target, rule):
    entry = expectation(target, f"traffic: {rule}")
    assert entry is not None
    traffic = tables[measure.RULES].by_key()[target, rule]["traffic"]
    # 64 kB are enough for everything that is not a matrix of 268 MB.
    assert 1 - 2.0**-12 <= traffic <= entry.value, entry.because


@pytest.mark.parametrize("target", TPU)
def test_traffic_is_as_the_compiler_counts_it(programs, target):
    for rule in ("adam", "adam_atan2", "sgd", "low_precision(adam, master)"):
        program = programs[target][rule]
        assert program.traffic == pytest.approx(program.counted, rel=1e-3)


@pytest.mark.parametrize("target", EVERY)
def test_no_cast_that_the_rule_does_not_ask_for(tables, target):
    rows = tables[measure.RULES].by_key()
    assert {rule: rows[target, rule]["casts"] for rule in FLOAT32_RULES} == dict.fromkeys(
        FLOAT32_RULES, ""
    )
    for rule in ("low_precision(adam, master)", "low_precision(adam, kahan)"):
        assert rows[target, rule]["casts"] == "bf16 -> f32, f32 -> bf16"


@pytest.mark.parametrize("dtype", measure.CASTS)
@pytest.mark.parametrize("target", EVERY)
def test_casts_there_and_back(tables, target, dtype):
    entry = expectation(target, "rounding: cast there and back", dtype)
    assert entry is not None
    row = tables[measure.ROUNDINGS].by_key()[(target,)]
    assert row[f"cast to {dtype} and back"] == entry.value, entry.because


@pytest.mark.parametrize("form", [*roundings.KAHAN, KAHAN_STEP])
@pytest.mark.parametrize("target", EVERY)
def test_compensated_sums(tables, target, form):
    """`naive Kahan` is the control: it has to lose its rounding where the compiler elides it."""
    entry = expectation(target, f"rounding: {form}", "bfloat16")
    assert entry is not None
    assert tables[measure.ROUNDINGS].by_key()[(target,)][form] == entry.value, entry.because


@pytest.mark.parametrize("target", EVERY)
def test_the_rounding_of_low_precision_weights_stands_in_the_program(programs, target):
    found = programs[target]
    for rule in (KAHAN_STEP, "low_precision(adam, kahan)", "Kahan with sx.ops.rounded"):
        assert "exponent_bits=8, mantissa_bits=7" in found[rule].text
    assert "exponent_bits=8, mantissa_bits=7" not in found["naive Kahan"].text


@pytest.mark.parametrize("target", EVERY)
def test_collectives_of_a_sharded_weight(tables, target):
    """Element-wise rules need none. The control is Adafactor, whose means go over all chips."""
    rows = tables[measure.SHARDED_RULES].by_key()
    totals = {
        rule: sum(int(str(rows[target, rule][name])) for name in measure.COLLECTIVES)
        for rule in SHARDED
    }
    assert totals["adam"] == totals["adam_atan2"] == 0
    assert rows[target, "adafactor"]["all-reduce"] != 0


@pytest.mark.parametrize("target", EVERY)
def test_collectives_of_a_training_step(tables, target):
    """The gradients are averaged over the batch's chips, and nothing else is sent."""
    rows = tables[measure.STEP].by_key()
    single, split = rows[target, 1], rows[target, 4]
    assert all(single[name] == 0 for name in measure.COLLECTIVES)
    assert split["all-reduce"] != 0
    assert all(split[name] == 0 for name in measure.COLLECTIVES if name != "all-reduce")


@pytest.mark.parametrize("target", CUDA)
def test_ptx_does_not_flush(tables, programs, target):
    rows = tables[measure.PTX].by_key()
    for rule in (*FLOAT32_RULES, *BFLOAT16_RULES):
        assert ".entry" in programs[target][rule].ptx
        entry = expectation(target, f"flushing: {rule}")
        assert entry is not None
        assert rows[target, rule]["instructions that flush"] == entry.value, entry.because
    # The control was told to.
    told = str(rows[target, FLUSHING]["instructions that flush"])
    assert all(word in told for word in ("add", "mul", "div", "sqrt"))


@pytest.mark.parametrize("target", TPU)
def test_precision_of_products(tables, target):
    rows = tables[measure.PRODUCTS].by_key()
    assert rows[target, "highest"]["operand precision"] == "highest,highest"
    assert rows[target, "default"]["operand precision"] == "default"
