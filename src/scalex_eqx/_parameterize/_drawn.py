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

    def is_drawn(triple: Triple) -> bool:
        array = triple.base.array
        array = triple.wanted.array if isinstance(array, jax.ShapeDtypeStruct) else array
        if says_bias(triple.wanted) or not _varies(array) or _is_known(triple):
            return False
        # Making the model takes time, and is left to the last.
        return not isinstance(array, Tracer) or _varies(settled().get(id(array), array))

    silent = {
        path: triple
        for path, triple in triples.items()
        if path not in chosen.layouts and (triple.read is None or triple.read.layout is None)
    }
    return {path for path, triple in silent.items() if _has_one_axis(triple) and is_drawn(triple)}


def _has_one_axis(triple: Triple) -> bool:
    """Whether an array has one axis behind those of a deep stack, and that grows."""
    if any(is_weight(node.leaf) for node in (triple.base, triple.probe, triple.wanted)):
        return False
    base, probe, _ = triple.shapes
    behind = max(triple.deep_axes, default=-1) + 1
    return len(base) == len(probe) == behind + 1 and base[-1] != probe[-1]


def _is_known(triple: Triple) -> bool:
    """Whether a type or names of a layer say what an array is, or that it is not trained."""
    return untrained(triple.wanted) is not None or known(triple) is not None


def _varies(x: Any) -> bool:
    """Whether the entries along the last axis differ, as far as anyone knows."""
    if isinstance(x, Tracer | jax.ShapeDtypeStruct):
        return True
    if not x.size:
        return False
    local = not isinstance(x, jax.Array) or x.is_fully_addressable
    x, numpy = (np.asarray(x), np) if local else (x, jnp)
    return bool(numpy.any(numpy.min(x, -1) != numpy.max(x, -1)))
