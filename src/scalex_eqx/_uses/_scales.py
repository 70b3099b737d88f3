"""In which arrays of the model a value is homogeneous: twice as large, it is twice as large."""

from collections.abc import Sequence

from ._equation import LINEAR
from ._value import Value


def product_scales(operands: Sequence[Value]) -> int:
    """The arrays in which a product is homogeneous: those of one factor that no other touches."""
    if any(value.scales == -1 for value in operands):
        return -1
    ordered = sorted(range(len(operands)), key=lambda i: not operands[i].is_pure)
    for i in ordered:
        others = (value.touched for k, value in enumerate(operands) if k != i)
        if operands[i].scales and not any(operands[i].scales & other for other in others):
            return operands[i].scales
    return 0


def entry_scales(name: str, operands: Sequence[Value]) -> int:
    if name == "mul":
        return product_scales(operands)
    if name == "div":
        return 0 if operands[0].scales & operands[1].touched else operands[0].scales
    if name in ("add", "add_any", "sub", "concatenate", "stack", "pad"):
        return _added(operands)
    if name == "select_n":
        return 0 if operands[0].touched else _added(operands[1:])
    if name in LINEAR:
        return operands[0].scales
    return 0


def _added(operands: Sequence[Value]) -> int:
    """A sum of what is homogeneous is so, in the arrays of all together."""
    scales = [value.scales for value in operands]
    if not all(scales):
        return 0
    found = 0
    for one in scales:
        found |= one if one > 0 else 0
    if not found:
        return -1
    # A term that depends on an array of another's, but isn't homogeneous in it, spoils it.
    spoilt = any(found & ~one & value.touched for one, value in zip(scales, operands, strict=True))
    return 0 if spoilt and any(one > 0 for one in scales) else found
