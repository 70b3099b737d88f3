"""Computes in NumPy what a compiled program of element-wise operations computes.

Every operation is rounded to the dtype that the program says, so a rounding that the compiler
has left out is left out here too. Nothing of JAX takes part.
"""

import functools
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from numerics.aot.hlo import Instruction, Module

_DTYPES: dict[str, Any] = {
    "f32": np.float32,
    "bf16": ml_dtypes.bfloat16,
    "f8e4m3fn": ml_dtypes.float8_e4m3fn,
    "pred": np.bool_,
    "s32": np.int32,
}
_IN_FLOAT64: dict[str, Callable] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "negate": operator.neg,
    "abs": np.abs,
}
_AS_IT_IS = {"copy", "bitcast", "copy-start", "copy-done", "broadcast", "opt-barrier", "reshape"}


def run(module: Module, arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The results of the program for arguments of any one length.

    **Raises:** `ValueError` for an operation that is not element-wise or not known here.
    """
    return _results(module, module.entry, arguments)


def _results(module: Module, name: str, arguments: Sequence[Any]) -> list[Any]:
    values: dict[str, list[Any]] = {}
    for instruction in module.computations[name]:
        if instruction.operation == "parameter":
            values[instruction.name] = [arguments[int(instruction.operands[0])]]
        elif instruction.operation == "constant":
            values[instruction.name] = [_constant(instruction)]
        else:
            operands = [values[operand] for operand in instruction.operands]
            values[instruction.name] = _computed(module, instruction, operands)
        if instruction.is_root:
            return values[instruction.name]
    raise ValueError(f"computation {name} has no result")


def _computed(module: Module, instruction: Instruction, operands: list[list[Any]]) -> list[Any]:
    operation = instruction.operation
    if operation == "tuple":
        return [part for operand in operands for part in operand]
    if operation == "get-tuple-element":
        found = re.search(r"index=(\d+)", instruction.attributes)
        assert found is not None
        return [operands[0][int(found[1])]]
    first = [operand[0] for operand in operands]
    if operation == "fusion" and instruction.called is not None:
        return _results(module, instruction.called, first)
    return [_element_wise(instruction, first)]


def _element_wise(instruction: Instruction, operands: list[Any]) -> Any:
    operation, dtype = instruction.operation, _DTYPES[instruction.shapes[0].dtype]
    if operation in _AS_IT_IS:
        return operands[0]
    if operation == "convert":
        return operands[0].astype(dtype)
    if operation == "reduce-precision":
        return _reduced(operands[0], instruction.attributes)
    if operation == "is-finite":
        return np.isfinite(operands[0])
    if operation == "select":
        return np.where(*operands)
    if operation in _IN_FLOAT64:
        # The sum or product of two float32 in float64, rounded once more, is that of float32.
        wide = (np.asarray(x).astype(np.float64) for x in operands)
        return _IN_FLOAT64[operation](*wide).astype(dtype)
    raise ValueError(f"{operation} is not an element-wise operation that is known here")


def _reduced(x: np.ndarray, attributes: str) -> np.ndarray:
    bits = tuple(map(int, re.findall(r"(?:exponent|mantissa)_bits=(\d+)", attributes)))
    if bits != (8, 7):
        raise ValueError(f"reduce-precision to {bits} bits is not known here; expected (8, 7)")
    return x.astype(ml_dtypes.bfloat16).astype(x.dtype)


def _constant(instruction: Instruction) -> Any:
    return _DTYPES[instruction.shapes[0].dtype](_number(instruction.operands[0]))


@functools.cache
def _number(text: str) -> float:
    return float(text == "true") if text in ("true", "false") else float(text)
