"""What the types of Flax NNX say of the arrays in them."""

from collections.abc import Callable
from typing import Any

from .._weight import path_string
from ._kinds import is_of
from ._nodes import Node
from ._readings import Layout

_NNX = "flax.nnx"
_VECTOR: Layout = ("out",)
_MATRIX: Layout = ("in", "out")


def variable(node: Node) -> Any | None:
    """The variable of Flax NNX that directly holds an array, if one does."""
    owner = node.parents[-1][0] if node.parents else None
    return owner if is_of(owner, _NNX, "Variable") else None


def is_param(variable: Any) -> bool:
    """Whether a variable is one that Flax's optimizers train."""
    return is_of(variable, _NNX, "Param")


def _general(layer: Any) -> Layout:
    return ("in",) * len(layer.in_features) + _general_bias(layer)


def _general_bias(layer: Any) -> Layout:
    return ("out",) * len(layer.out_features)


def _kernel(conv: Any) -> Layout:
    return ("in",) * len(conv.kernel_size) + _MATRIX


def _transposed_kernel(conv: Any) -> Layout:
    last = _MATRIX[::-1] if conv.transpose_kernel else _MATRIX
    return ("in",) * len(conv.kernel_size) + last


def _einsum(layer: Any) -> Layout | None:
    """The kernel's axes: those in the result are produced, those of the input alone summed over."""
    operands, _, result = layer.einsum_str.partition("->")
    inputs, _, kernel = operands.partition(",")
    names = ["out" if axis in result else "in" for axis in kernel]
    # One that is in all three numbers separate weights, and one in the kernel alone no one's input.
    plain = all((axis in inputs) is not (axis in result) for axis in kernel)
    return tuple(names) if plain else None


def _einsum_bias(layer: Any) -> Layout:
    return ("out",) * len(layer.bias_shape)


_Fields = dict[str, Layout | Callable[[Any], Layout | None]]

_AFFINE: _Fields = {"scale": _VECTOR, "bias": _VECTOR}
_LAYERS: dict[str, _Fields] = {
    "Linear": {"kernel": _MATRIX, "bias": _VECTOR},
    "LinearGeneral": {"kernel": _general, "bias": _general_bias},
    "Einsum": {"kernel": _einsum, "bias": _einsum_bias},
    "Conv": {"kernel": _kernel, "bias": _VECTOR},
    "ConvTranspose": {"kernel": _transposed_kernel, "bias": _VECTOR},
    "Embed": {"embedding": _MATRIX},
    "LoRA": {"lora_a": _MATRIX, "lora_b": _MATRIX},
    "BatchNorm": _AFFINE,
    "LayerNorm": _AFFINE,
    "RMSNorm": _AFFINE,
    "GroupNorm": _AFFINE,
    "InstanceNorm": _AFFINE,
}


def nnx_layout(node: Node) -> Layout | None:
    """The layout of an array that is a field of a layer of Flax NNX, or of a subclass."""
    owner, field = _owner(node)
    if is_of(variable(node), _NNX, "LoRAParam") and field in _LAYERS["LoRA"]:
        return _MATRIX
    for name, fields in _LAYERS.items():
        if field in fields and is_of(owner, _NNX, name):
            layout = fields[field]
            return layout(owner) if callable(layout) else layout
    return None


def is_adapters_inner(node: Node) -> bool:
    """Whether an array is the way down of Flax's LoRA, whose outputs go on to the way up."""
    owner, field = _owner(node)
    is_lora = is_of(owner, _NNX, "LoRA") or is_of(variable(node), _NNX, "LoRAParam")
    return is_lora and field == "lora_a"


def _owner(node: Node) -> tuple[Any, str]:
    """What holds the variable of an array, and the variable's name there."""
    if variable(node) is None or len(node.parents) < 2:
        return None, ""
    owner, relative = node.parents[-2]
    return owner, path_string(relative[:1])
