"""The reader of compiled programs and the NumPy that computes them, on programs written by hand."""

from collections import Counter

import numpy as np
import pytest

from numerics.aot.arithmetic import run
from numerics.aot.hlo import parse
from numerics.formats.values import of

# The shape of a program for a TPU: layouts with parentheses, memory on the chip, a copy started.
PROGRAM = """HloModule jit_step

%fused (a: f32[8], b: f32[8]) -> (f32[8], bf16[8]) {
  %a = f32[8]{0:T(128)} parameter(0)
  %b = f32[8]{0:T(128)} parameter(1)
  %sum = f32[8]{0:T(128)} add(%a, %b)
  ROUNDING
  %narrow = bf16[8]{0:T(128)(2,1)} convert(%kept)
  %lost = f32[8]{0:T(128)} subtract(%sum, %kept), metadata={op_name="sub"}
  ROOT %both = (f32[8]{0:T(128)}, bf16[8]{0:T(128)(2,1)}) tuple(%lost, %narrow)
}

ENTRY %main (x: f32[8], y: f32[8]) -> (f32[8], bf16[8]) {
  %x = f32[8]{0:T(128)} parameter(0), sharding={replicated}
  %y = f32[8]{0:T(128)} parameter(1)
  %start = (f32[8]{0:T(128)S(1)}, f32[8]{0:T(128)}, u32[]{:S(2)}) copy-start(%y)
  %done = f32[8]{0:T(128)S(1)} copy-done(%start)
  %loop = (f32[8]{0:T(128)}, bf16[8]{0:T(128)(2,1)}) fusion(%x, %done), kind=kLoop, calls=%fused
  %first = f32[8]{0:T(128)} get-tuple-element(%loop), index=0
  %second = bf16[8]{0:T(128)(2,1)} get-tuple-element(%loop), index=1
  %sent = f32[8]{0:T(128)} all-reduce-start(%first), to_apply=%add
  %back = f32[8]{0:T(128)} all-reduce-done(%sent)
  ROOT %out = (f32[8]{0:T(128)}, bf16[8]{0:T(128)(2,1)}) tuple(%back, %second)
}
"""
REDUCED = "%kept = f32[8]{0} reduce-precision(%sum), exponent_bits=8, mantissa_bits=7"
ELIDED = "%kept = f32[8]{0} copy(%sum)"


def test_counts():
    module = parse(PROGRAM.replace("ROUNDING", REDUCED))
    assert module.entry == "main"
    assert module.fusions() == 1
    assert module.count("all-reduce") == 1
    assert module.count("all-gather") == 0
    assert module.converts() == Counter({"f32 -> bf16": 1})


def test_bytes():
    """Read y for the copy, x for the loop; write 32 + 16; the all-reduce reads and writes 32."""
    module = parse(PROGRAM.replace("ROUNDING", REDUCED))
    assert module.bytes_moved() == 32 + 32 + (32 + 16) + (32 + 32)


@pytest.mark.parametrize(("rounding", "survives"), [(REDUCED, True), (ELIDED, False)])
def test_a_rounding_and_its_absence_are_told_apart(rounding, survives):
    text = (
        PROGRAM.replace("ROUNDING", rounding)
        .replace("all-reduce-start(%first), to_apply=%add", "copy-start(%first)")
        .replace("all-reduce-done", "copy-done")
    )
    x = np.linspace(1, 2, 8, dtype=np.float32)
    y = np.full(8, 2.0**-12, np.float32)
    lost, narrow = run(parse(text), (x, y))
    exact = x.astype(np.float64) + y
    assert np.array_equal(narrow, of("bfloat16", *exact))
    assert np.all(lost != 0) if survives else np.all(lost == 0)
    if survives:
        np.testing.assert_allclose(lost, exact - narrow.astype(np.float64), atol=2.0**-24)


def test_an_operation_that_is_not_element_wise_is_refused():
    text = PROGRAM.replace("ROUNDING", REDUCED).replace("subtract(%sum, %kept)", "cosine(%sum)")
    with pytest.raises(ValueError, match="cosine is not an element-wise operation"):
        run(parse(text), (np.ones(8, np.float32), np.ones(8, np.float32)))
