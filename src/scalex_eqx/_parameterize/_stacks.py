"""Which arrays of a model stand in a stack of blocks that the depth makes longer."""

import dataclasses
import functools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from .._pages import Section, listed, see
from .._weight import is_weight, path_string
from ..theory import Parameterization
from ._assign import Triple
from ._nodes import Node, Path, sorted_strings

_NUMBER = re.compile(r"\d+(?!.*\d)")

# Members of one list, or keys that differ by a number, as block_0 and block_1.
_Group = tuple[Path, str]


def depth_ratio(
    depth: Any, base_depth: Any, parameterization: Any, branches: Any
) -> Fraction | None:
    """The ratio of the depths, `None` if there are none; the depth, if there is no base model.

    **Raises:** `ValueError` if the arguments contradict each other.
    """
    if not isinstance(parameterization, Parameterization):
        return None
    given = {"depth": depth, "base_depth": base_depth}
    missing = [name for name, value in given.items() if value is None]
    said = "branches" if len(missing) == 2 else "depth"
    if parameterization.branch is None and (len(missing) < 2 or branches is not None):
        name = parameterization.name
        raise ValueError(
            f"{said} is given, but parameterization {name} has no law for the depth; use "
            f"{name}.deep(1), or another exponent from 1/2 to 1{see(Section.depth)}"
        )
    if len(missing) == 2:
        return None
    if missing:
        raise ValueError(
            f"{missing[0]} is missing: give depth and base_depth, and a make that is called as "
            f"make(width, depth){see(Section.depth)}"
        )
    return Fraction(depth, base_depth if parameterization.unit is None else 1)


@dataclasses.dataclass(frozen=True)
class Stacks:
    """The stacks of a model: lists of blocks that get longer, and arrays with a stack axis.

    **Arguments:**

    - `base`: the paths of the model's nodes at the base depth.
    - `groups`: the members of which there are more in a deeper model.
    - `axes`: the axes that are longer there, counted from the front, by path.
    - `ratio`: of the wanted depth to the base depth.
    """

    base: Collection[Path]
    groups: frozenset[_Group]
    axes: Mapping[Path, tuple[int, ...]]
    ratio: Fraction

    @functools.cached_property
    def _members(self) -> dict[_Group, list[Any]]:
        return _members(self.base)

    def counterpart(self, path: Path) -> Path | None:
        """The path that stands for `path` at the base depth: the last block's that has it."""
        if path in self.base:
            return path
        return next((other for _, other in _alike(path, self.base, self._members)), None)

    def triple(self, path: Path, base: Node, probe: Node, wanted: Node) -> Triple:
        """The nodes, with what is known of their depth."""
        origin = self.counterpart(path)
        axes = self.axes.get(origin, ()) if origin is not None else ()
        inside = bool(axes) or any(group in self.groups for group in _groups(path))
        return Triple(base, probe, wanted, self.ratio if inside else Fraction(1), inside, axes)


def find_stacks(base: Mapping[Path, Node], deeper: Mapping[Path, Node], ratio: Fraction) -> Stacks:
    """The stacks that a model of the base depth and a deeper one of the same width show.

    **Raises:** `ValueError` if nothing gets longer, or something does that is no stack.
    """
    members, groups, errors = _members(base), set(), []
    for path in deeper:
        if path in base:
            continue
        found = next(_alike(path, base, members), None)
        if found is None:
            errors.append(
                f"{path_string(path)}: only in the deeper model, and no block at the base depth "
                "has its like"
            )
        else:
            groups.add(found[0])
    axes = {}
    for path in base:
        if path not in deeper:
            if not any(group in groups for group in _groups(path)):
                errors.append(f"{path_string(path)}: only at the base depth")
            continue
        shapes = base[path].array.shape, deeper[path].array.shape
        if len(shapes[0]) != len(shapes[1]):
            errors.append(f"{path_string(path)}: shapes {shapes[0]} and {shapes[1]}")
        elif shapes[0] != shapes[1]:
            axes[path] = tuple(i for i, (m, n) in enumerate(zip(*shapes, strict=True)) if m != n)
    if errors:
        heading = "what changes with the depth must be blocks that are alike, or stacked:"
        raise ValueError(listed(heading, errors) + see(Section.depth))
    if not groups and not axes:
        raise ValueError(
            "no array gets a longer stack, and no list of blocks more members, with the depth; "
            f"does make(width, depth) use its depth?{see(Section.depth)}"
        )
    return Stacks(base.keys(), frozenset(groups), axes, ratio)


def deep_triples(
    base: Mapping[Path, Node],
    probe: Mapping[Path, Node],
    wanted: Mapping[Path, Node],
    stacks: Stacks,
) -> dict[Path, Triple]:
    """The nodes at each path of the wanted model, of another depth than the others."""
    origins = {path: stacks.counterpart(path) for path in wanted}
    lost = {path for path, origin in origins.items() if origin not in base or origin not in probe}
    kept = {path for path in base if not any(group in stacks.groups for group in _groups(path))}
    gone = kept - set(wanted)
    if lost or gone:
        raise ValueError(
            "but for the number of blocks the models must have the same weights at every depth; "
            f"there are {', '.join(sorted_strings(lost | gone))}{see(Section.depth)}"
        )
    return {
        path: stacks.triple(path, base[origin], probe[origin], node)
        for path, node in wanted.items()
        if (origin := origins[path]) is not None
    }


def branch_errors(
    triples: Mapping[Path, Triple], ends: Collection[Path], chosen: Collection[Path]
) -> list[str]:
    """What is wrong with the ends of residual branches, if there is a law for the depth.

    **Arguments:**

    - `triples`: of all weights.
    - `ends`: the paths of those that end a branch.
    - `chosen`: the paths that `branches` names.
    """
    errors = [
        f"{path_string(path)}: branches says that a residual branch ends in it, but it stands in "
        f"no stack that gets longer with the depth; drop it there{see(Section.depth)}"
        for path in chosen
        if path in triples and not triples[path].in_stack
    ]
    inside = [path for path, triple in triples.items() if triple.in_stack and not _scaled(triple)]
    if inside and not any(path in ends for path in inside):
        shown = ", ".join(map(path_string, inside[:4])) + (", ..." if len(inside) > 4 else "")
        errors.append(
            "no array of the stack ends a residual branch, so that nothing would carry the "
            f"branches' factor; there are {shown}. Name what is added to the stream, weights and "
            'biases, as branches=["*/output/*", "*/down/*"], or declare it with '
            f"scalex_eqx.nn.ends_branch{see(Section.depth)}"
        )
    return errors


def _scaled(triple: Triple) -> bool:
    """Whether its block scales its branches by itself."""
    leaf = triple.wanted.leaf
    return is_weight(leaf) and leaf.spec.scaled


def _group(path: Path, place: int) -> _Group | None:
    name = path_string(path[place : place + 1])
    alike = _NUMBER.sub("#", name)
    return None if alike == name else (path[:place], alike)


def _groups(path: Path) -> Iterator[_Group]:
    for place in range(len(path)):
        group = _group(path, place)
        if group is not None:
            yield group


def _members(paths: Collection[Path]) -> dict[_Group, list[Any]]:
    """The keys of each group, the last first."""
    found: dict[_Group, dict[Any, int]] = {}
    for path in paths:
        for group in _groups(path):
            key = path[len(group[0])]
            match = _NUMBER.search(path_string((key,)))
            found.setdefault(group, {})[key] = int(match.group()) if match else 0
    return {group: sorted(keys, key=keys.__getitem__)[::-1] for group, keys in found.items()}


def _alike(
    path: Path, known: Collection[Path], members: Mapping[_Group, Sequence[Any]]
) -> Iterator[tuple[_Group, Path]]:
    """Paths that differ from `path` by which block it is, of the last block first."""
    for place in reversed(range(len(path))):
        group = _group(path, place)
        if group is None:
            continue
        for key in members.get(group, ()):
            other = (*path[:place], key, *path[place + 1 :])
            if other in known:
                yield group, other
