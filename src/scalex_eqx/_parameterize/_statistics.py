"""Arrays that other libraries don't train: running statistics, caches, what is marked as such."""

from collections.abc import Mapping

from .._weight import is_array
from ._kinds import is_mapping, is_of, said_kind
from ._nnx import is_param, variable
from ._nodes import Node, Path

# Of Flax's Linen, beside "params".
_COLLECTIONS = ("batch_stats", "cache", "intermediates")
# What an ExponentialMovingAverage of Haiku keeps.
_AVERAGE = {"hidden", "average", "counter"}


def untrained(node: Node) -> str | None:
    """Where an array stands that its own library doesn't train, in a phrase; `None` for others."""
    holder = variable(node)
    if holder is not None and not is_param(holder):
        return f"in {said_kind(holder)}"
    for parent, relative in node.parents:
        if is_of(parent, "paramax", "NonTrainable"):
            return f"in {said_kind(parent)}"
        if is_mapping(parent):
            found = _collection(parent, relative) or _average(parent)
            if found is not None:
                return found
    return None


def _collection(tree: Mapping, relative: Path) -> str | None:
    """A collection of Linen that stands beside the parameters."""
    name = getattr(relative[0], "key", None)
    if name in _COLLECTIONS and is_mapping(tree.get("params")):
        return f"in {name!r} beside Flax's 'params'"
    return None


def _average(state: Mapping) -> str | None:
    """What Haiku's batch norm keeps; that it counts its steps tells it from weights."""
    if len(state) != len(_AVERAGE) or set(state) != _AVERAGE:
        return None
    hidden, average, counter = (state[name] for name in ("hidden", "average", "counter"))
    if not all(map(is_array, (hidden, average, counter))) or hidden.shape != average.shape:
        return None
    counts = counter.shape == () and counter.dtype.kind in "iu"
    return "in a moving average of Haiku" if counts else None
