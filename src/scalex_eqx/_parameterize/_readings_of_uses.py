"""What the uses of arrays say, beside what shapes, declarations and options do."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.tree_util as jtu
from jaxtyping import PyTree

from .._pages import Section, see
from .._spec import WeightSpec
from .._uses import Reader, trace
from .._weight import Tie, is_weight, path_string
from ..theory import Role
from ._assign import Triple
from ._nodes import Node, Path
from ._shared import Use

_VALUE = jtu.GetAttrKey("value")


def with_readings(
    nodes: Mapping[Path, Triple], use: Callable[[PyTree], Any], models: tuple[PyTree, PyTree]
) -> dict[Path, Triple]:
    """Every triple with what is read from the uses of its array.

    **Arguments:**

    - `nodes`: the model's, by path.
    - `use`: what the training does with a model.
    - `models`: at the base and at the probe width.
    """
    places = {_array_path(path, triple.base): path for path, triple in nodes.items()}
    reader = Reader(trace(use, models, places.keys()))

    def read(path: Path, triple: Triple) -> Triple:
        if isinstance(triple.base.leaf, Tie):
            return triple
        base, probe = triple.base.array.shape, triple.probe.array.shape
        found = reader.read(_array_path(path, triple.base), base, probe)
        if found is not None and found.carriers:
            found = found._replace(carriers=tuple(places[path] for path in found.carriers))
        return dataclasses.replace(triple, read=found)

    return {path: read(path, triple) for path, triple in nodes.items()}


def _array_path(path: Path, node: Node) -> Path:
    return (*path, _VALUE) if is_weight(node.leaf) else path


def ties_by_hand(
    nodes: Mapping[Path, Triple],
    specs: Mapping[Path, WeightSpec],
    uses: Mapping[Path, Use],
    *,
    has_tie: bool,
) -> tuple[list[Path], list[Path], list[str]]:
    """The embeddings that a program uses as readout itself.

    **Arguments:**

    - `nodes`, `specs`: by path; specs are those of arrays that have a law.
    - `uses`: the second uses that `equinox.nn.Shared` makes, which have factors of their own.
    - `has_tie`: whether the model has a `Tie`.

    **Returns:** their paths, the paths of the arrays that carry the factor of the second use, and
    an error for each embedding of which nothing can.
    """
    shared = {source for use in uses.values() for source in use.sources}
    found, carriers, errors = [], [], []
    for path, triple in nodes.items():
        read = triple.read
        if read is None or not read.is_tied or has_tie or path not in specs:
            continue
        if shared & {path, (*path, _VALUE)} or specs[path].role is not Role.embedding:
            continue
        found.append(path)
        carriers += read.carriers
        if not all(specs.get(one) and specs[one].is_trained for one in read.carriers):
            carriers = []
        if not carriers:
            errors.append(
                f"{path_string(path)}: {read.why}. A tied readout has a factor of its own, 1/r, "
                "which can be put on the gain and bias that what it meets was multiplied with and "
                "added to last, but here there are none that do nothing else. Tie it with "
                "equinox.nn.Shared or scalex_eqx.nn.Embedding, which have a place for the factor"
                f"{see(Section.tie_by_hand)}"
            )
    return found, carriers, errors
