"""Layers of Flax and Haiku in a tree of dictionaries, told by their names where the shapes agree.

A name is a hint and no proof. A dictionary counts as a layer only if it has a layer's arrays and no
others, and if their shapes go together at two widths; what that leaves open is asked about.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax.tree_util as jtu

from .._weight import is_array, path_string
from ._growth import Shape
from ._kinds import is_mapping
from ._nnx import variable
from ._nodes import Node, Path
from ._readings import Layout, growing_axes

_MATRIX: Layout = ("in", "out")
_VECTOR: Layout = ("out",)

# By the name of a matrix, that of the bias beside it.
_BIAS_OF = {"kernel": "bias", "w": "b", "w_i": "b", "w_h": "b"}
_MATRICES = ({"kernel"}, {"kernel", "bias"}, {"w"}, {"w", "b"}, {"w_i", "w_h", "b"})
_NORMS = ({"scale"}, {"scale", "bias"}, {"scale", "offset"})
_EMBEDDINGS = ({"embedding"}, {"embeddings"})
_FIELDS = set().union(*_MATRICES, *_NORMS, *_EMBEDDINGS)
_HEADS = ("query", "key", "value")

_BIAS = re.compile(r"(.*_)?bias(_.*)?")
# What Linen calls modules that are given no name.
_AUTOMATIC = re.compile(r"[A-Z]\w*_\d+")
_DENSE, _CONV = re.compile(r"Dense_\d+"), re.compile(r"Conv_\d+")
# Paths of Haiku's modules, of which one inside another has a slash.
_LINEAR_OF_HAIKU = re.compile(r".*/(linear(_\d+)?|query|key|value)")
_EMBED_OF_HAIKU = re.compile(r"(.*/)?embed(_\d+)?")


class _Layer(NamedTuple):
    """The dictionary that an array stands in.

    **Arguments:**

    - `field`: the array's name there.
    - `base`, `probe`: the shapes of the arrays that stand in it themselves, at two widths.
    - `outer`: the nodes around it, outermost first, and it, each with the array's path from there.
    - `in_variable`: whether the array is in a variable of Flax NNX.
    """

    field: str
    base: Mapping[str, Shape]
    probe: Mapping[str, Shape]
    outer: Sequence[tuple[Any, Path]]
    in_variable: bool

    @property
    def name(self) -> str:
        """What the layer itself is called."""
        return _name(self.outer[-2][1]) if len(self.outer) > 1 else ""

    def has(self, kinds: Collection[set[str]]) -> bool:
        """Whether its arrays are those of one of some kinds of layers."""
        return set(self.base) in kinds and self.base.keys() == self.probe.keys()

    def shapes(self, field: str) -> tuple[Shape, Shape]:
        """Those of an array at the base and the probe width."""
        return self.base[field], self.probe[field]

    def is_of_flax(self) -> bool:
        """Whether something beside the array's own name says that the tree is one of Flax."""
        return self.in_variable or any(
            is_mapping(parent)
            and (_name(path) == "params" or any(_AUTOMATIC.fullmatch(str(key)) for key in parent))
            for parent, path in self.outer
        )


def says_bias(node: Node) -> bool:
    """Whether an array is a field that is called a bias."""
    place = -2 if variable(node) is not None else -1
    if len(node.parents) < -place:
        return False
    return _BIAS.fullmatch(_name(node.parents[place][1])) is not None


def named_layout(base: Node, probe: Node) -> Layout | None:
    """The layout of an array of Flax's Linen or of Haiku, if names and shapes agree about it."""
    if not is_array(base.array) or not is_array(probe.array):
        return None  # A Weight of something else, which is named elsewhere.
    shapes = base.array.shape, probe.array.shape
    if shapes[0] == shapes[1] or len(shapes[0]) != len(shapes[1]):
        return None  # No name is needed where nothing grows.
    layer = _layer(base, probe)
    layout = None if layer is None else _layout(layer)
    return layout if layout and _agrees(layout, *shapes) else None


def _layer(base: Node, probe: Node) -> _Layer | None:
    in_variable = variable(base) is not None
    parents, others = (x.parents[:-1] if in_variable else x.parents for x in (base, probe))
    if not parents or not others or not is_mapping(parents[-1][0]) or not is_mapping(others[-1][0]):
        return None
    field = _name(parents[-1][1])
    if field not in _FIELDS:
        return None
    return _Layer(field, _direct(parents[-1][0]), _direct(others[-1][0]), parents, in_variable)


def _name(path: Path) -> str:
    # Much quicker than JAX's way, for the keys that most paths have.
    key = getattr(path[0], "key", None) or getattr(path[0], "name", None)
    return key if isinstance(key, str) else path_string(path[:1])


def _direct(tree: Mapping) -> dict[str, Shape]:
    found = {}
    for name, value in tree.items():
        if is_array(value):
            found[name] = value.shape
        elif not is_mapping(value):
            leaves = jtu.tree_leaves(value)
            if len(leaves) == 1 and is_array(leaves[0]):
                found[name] = leaves[0].shape
    return found


def _agrees(layout: Layout, base: Shape, probe: Shape) -> bool:
    """Whether at most one axis of each fan grows, and none in front of them."""
    if len(layout) > len(base):
        return False
    growing = growing_axes(base, probe)
    fans = [layout[axis] for axis in growing if axis >= -len(layout)]
    return len(growing) == len(fans) == len(set(fans))


def _layout(layer: _Layer) -> Layout | None:
    if layer.has(_MATRICES):
        return _of_matrix(layer)
    if layer.has(_NORMS):
        return _of_norm(layer)
    if layer.has(_EMBEDDINGS):
        return _of_embedding(layer)
    return None


def _of_matrix(layer: _Layer) -> Layout | None:
    is_bias = layer.field not in _BIAS_OF
    matrix = next(name for name in layer.base if name in _BIAS_OF) if is_bias else layer.field
    bias = _BIAS_OF[matrix]
    if bias not in layer.base:
        return _of_kernel_alone(layer) if matrix == "kernel" else _of_w_alone(layer)
    transposed = "transpose" in layer.name.lower()
    found = _paired(layer.shapes(matrix), layer.shapes(bias), transposed=transposed)
    return found and found[is_bias]


def _paired(
    matrices: Sequence[Shape], biases: Sequence[Shape], *, transposed: bool
) -> tuple[Layout, Layout] | None:
    """The layouts of a matrix and of its bias, if their shapes go together in one way only.

    The bias has the axes that the matrix produces, behind those that number stacked layers.
    """
    axes, own = len(matrices[0]), len(biases[0])
    if own > 1 and all(size == 1 for bias in biases for size in bias[1:]):
        # One of channels that stand in front of the places.
        found = _paired(matrices, [bias[:1] for bias in biases], transposed=transposed)
        return found and (found[0], _VECTOR * own)
    both = list(zip(matrices, biases, strict=True))
    found = []
    for stack in range(own if axes > own else 0):
        produced = axes - own + stack
        if all(m[:stack] == b[:stack] and m[produced:] == b[stack:] for m, b in both):
            out = _VECTOR * (own - stack)
            found.append((("in",) * (axes - own) + out, out))
    in_front = transposed and own == 1 and axes > 2 and all(m[-2:-1] == b for m, b in both)
    if not found and in_front:
        found.append((("in",) * (axes - 2) + _MATRIX[::-1], _VECTOR))
    return found[0] if len(found) == 1 else None


def _of_kernel_alone(layer: _Layer) -> Layout | None:
    axes = len(layer.base["kernel"])
    heads = _of_heads(layer)
    if heads is not None:
        return heads
    if _CONV.fullmatch(layer.name):
        return ("in",) * (axes - 1) + _VECTOR
    # A Dense has two axes, and a stack of them more.
    return _MATRIX if _DENSE.fullmatch(layer.name) or (axes == 2 and layer.is_of_flax()) else None


def _of_heads(layer: _Layer) -> Layout | None:
    """The kernels of Flax's attention, whose heads and their dimension are axes of their own."""
    attention = layer.outer[-2][0] if len(layer.outer) > 1 else None
    if not is_attention(attention) or len(layer.base["kernel"]) < 3:
        return None
    if layer.name == "out":
        return ("in", "in", "out")
    return ("in", "out", "out") if layer.name in _HEADS else None


def is_attention(tree: Any) -> bool:
    """Whether `tree` has the kernels of Flax's attention, by their names and shapes."""
    if not is_mapping(tree) or not all(is_mapping(tree.get(name)) for name in (*_HEADS, "out")):
        return False
    query, out = (_direct(tree[name]).get("kernel", ()) for name in ("query", "out"))
    return len(query) == len(out) >= 3 and query[-2:] == out[-3:-1]


def heads_of(attention: Mapping) -> int:
    """The dimension of the heads of Flax's attention."""
    return _direct(attention["query"])["kernel"][-1]


def _of_w_alone(layer: _Layer) -> Layout | None:
    is_matrix = len(layer.base[layer.field]) == 2 and layer.field == "w"
    return _MATRIX if is_matrix and _LINEAR_OF_HAIKU.fullmatch(layer.name) else None


def _of_norm(layer: _Layer) -> Layout | None:
    shape, probe = layer.shapes(layer.field)
    if growing_axes(shape, probe) != [-1] or set(layer.base.values()) != {shape}:
        return None
    if all(size == 1 for size in shape[:-1]):
        return _VECTOR * len(shape) if len(layer.base) > 1 or layer.is_of_flax() else None
    return _VECTOR if layer.is_of_flax() else None


def _of_embedding(layer: _Layer) -> Layout | None:
    shape, probe = layer.shapes(layer.field)
    if len(shape) != 2 or growing_axes(shape, probe) != [-1]:
        return None
    is_own = (
        layer.is_of_flax() if layer.field == "embedding" else _EMBED_OF_HAIKU.fullmatch(layer.name)
    )
    return _MATRIX if is_own else None
