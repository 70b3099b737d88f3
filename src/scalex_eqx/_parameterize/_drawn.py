"""Arrays of one axis that may be biases, gains or summed over, and are no constants."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from .._weight import is_weight
from ._assign import Chosen, Triple, known
from ._names import says_bias
from ._nodes import Path, find_nodes
from ._statistics import untrained


def find_drawn(
    triples: Mapping[Path, Triple],
    chosen: Chosen,
    base: PyTree,
    settle: Callable[[], PyTree] | None,
) -> set[Path]:
    """The paths of arrays of one axis that grows, whose entries differ and that nothing is said of.

    Equal entries are those of a bias or gain that starts as a constant. Entries that differ may
    also be summed over, and then follow another law. Those of the base model are looked at; where
    it has shapes only, those of the wanted model. Under a trace the base model is made once more,
    and what then still is traced depends on what is traced outside, as what is drawn from a key
    does. Entries that nobody knows count as different.

    **Arguments:**

    - `triples`, `chosen`: the nodes, and what the options say of them.
    - `base`: the base model.
    - `settle`: makes the base model once more, with the values of all that can be known.
    """

    @functools.cache
    def settled() -> dict[int, Any]:
        if settle is None:
            return {}
        again = find_nodes(settle())
        return {id(x.leaf): again[path].leaf for path, x in find_nodes(base).items()}

    def varies(triple: Triple) -> bool:
        array = triple.base.array
        if isinstance(array, Tracer):
            array = settled().get(id(array), array)
        return _varies(triple.wanted.array if isinstance(array, jax.ShapeDtypeStruct) else array)

    silent = {path: triple for path, triple in triples.items() if path not in chosen.layouts}
    return {path for path, triple in silent.items() if _is_open(triple) and varies(triple)}


def _is_open(triple: Triple) -> bool:
    """Whether an array has one axis that may be a fan-in or a fan-out, for all that is known.

    Neither a declaration, nor a type, nor a name says more; axes of a deep stack are left out.
    """
    nodes = triple.base, triple.probe, triple.wanted
    if any(is_weight(node.leaf) for node in nodes):
        return False
    base, probe, _ = triple.shapes
    behind = max(triple.deep_axes, default=-1) + 1
    if not len(base) == len(probe) == behind + 1 or base[-1] == probe[-1]:
        return False
    is_known = untrained(triple.wanted) is not None or known(triple) is not None
    return not is_known and not says_bias(triple.wanted)


def _varies(x: Any) -> bool:
    """Whether the entries along the last axis differ, as far as anyone knows."""
    if isinstance(x, Tracer | jax.ShapeDtypeStruct):
        return True
    if not x.size:
        return False
    local = not isinstance(x, jax.Array) or x.is_fully_addressable
    x, numpy = (np.asarray(x), np) if local else (x, jnp)
    return bool(numpy.any(numpy.min(x, -1) != numpy.max(x, -1)))
