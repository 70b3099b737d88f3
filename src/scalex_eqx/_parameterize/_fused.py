"""Arrays that are several weights in one: their parts as the caller says, each with its own law."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

from .._fused import Fused, cut
from .._pages import Section, see
from .._spec import WeightSpec
from .._uses import Parts as Cuts
from .._weight import Weight, is_weight, rebuilt
from ..theory import Role
from ._assign import Triple
from ._nodes import Node

Parts = Callable[[int], Sequence[int]]
"""How long the parts of an array are along its fan-out, of how long that is."""

_ROLES = (Role.hidden, Role.vector)


def fused(
    triple: Triple,
    spec: WeightSpec,
    parts: Parts,
    complete: Callable[[Triple, WeightSpec], Weight],
) -> Fused:
    """The parts of an array in its place.

    **Arguments:**

    - `triple`, `spec`: of the array as a whole.
    - `parts`: what the caller says.
    - `complete`: makes a weight of one of them.

    **Raises:** `ValueError` if they don't make up the array, or it is no layer inside the model.
    """
    if spec.role not in _ROLES:
        raise ValueError(
            f"has the role {spec.role}; parts are those of a matrix inside the model, of role "
            "hidden, or of its bias: drop the entry"
        )
    axis = min(spec.fan_out)
    nodes = triple.base, triple.probe, triple.wanted
    sizes = [_sizes(parts, node.array.shape[axis]) for node in nodes]
    if len({len(one) for one in sizes}) > 1:
        raise ValueError(
            f"parts gives {', '.join(map(str, sizes))} at the base, the probe and the wanted "
            "width; expected as many parts at each"
        )
    pieces = [list(_pieces(node, own, axis)) for node, own in zip(nodes, sizes, strict=True)]
    made = []
    for i, (base, probe, wanted) in enumerate(zip(*pieces, strict=True)):
        rate = Fraction(sizes[2][i], sizes[0][i])
        own = dataclasses.replace(triple, base=base, probe=probe, wanted=wanted)
        made.append(complete(own, _of_part(spec, rate)))
    return Fused(tuple(made), axis)


def check_parts(path: str, triple: Triple, spec: WeightSpec) -> None:
    """Refuses an array whose outputs are seen to be cut into parts that grow and parts that don't.

    **Raises:** `ValueError` with the entry of `parts` that is missing.
    """
    read = triple.read
    if read is None or read.parts is None or spec.role not in _ROLES or not spec.is_trained:
        return
    found, axes = read.parts, len(triple.base.array.shape)
    if spec.fan_out != (found.axis - axes,):
        return
    at = f" ({found.place})" if found.place else ""
    raise ValueError(
        f"its outputs are cut into {found.base} at the base width and {found.probe} at the probe "
        f"width{at}: parts that grow and parts that stay have gradients of different sizes, and "
        f"there is no one law for both. Name them, each a weight of its own: "
        f"{_suggestion(path, found)}{see(Section.fused)}"
    )


def _suggestion(path: str, found: Cuts) -> str:
    """The entry of `parts` that cuts an array as a program does."""
    stays = [a == b for a, b in zip(found.base, found.probe, strict=True)]
    fixed = sum(size for size, stay in zip(found.base, stays, strict=True) if stay)
    grown = [sum(sizes) - fixed for sizes in (found.base, found.probe)]
    shares = [Fraction(size, grown[0]) for size in found.base]
    if any(
        not stay and share * grown[1] != size
        for stay, share, size in zip(stays, shares, found.probe, strict=True)
    ):
        return f'parts={{"{path}": lambda rows: (...)}}, with their sizes where there are `rows`'
    words = [
        str(size) if stay else _share(f"rows - {fixed}", share)
        for stay, share, size in zip(stays, shares, found.base, strict=True)
    ]
    return f'parts={{"{path}": lambda rows: ({", ".join(words)})}}'


def _share(rest: str, share: Fraction) -> str:
    if share == 1:
        return rest
    times = "" if share.numerator == 1 else f" * {share.numerator}"
    return f"({rest}){times} // {share.denominator}"


def _sizes(parts: Parts, whole: int) -> tuple[int, ...]:
    given = parts(whole)
    sizes = tuple(given) if isinstance(given, Sequence) else ()
    whole_numbers = all(type(size) is int and size > 0 for size in sizes)
    if len(sizes) < 2 or not whole_numbers or sum(sizes) != whole:
        raise ValueError(
            f"parts({whole}) is {given!r}; expected two or more whole numbers above 0 that add up "
            f"to {whole}"
        )
    return sizes


def _pieces(node: Node, sizes: tuple[int, ...], axis: int) -> Iterator[Node]:
    for piece in cut(node.array, sizes, axis):
        leaf = rebuilt(node.leaf, piece) if is_weight(node.leaf) else piece
        yield dataclasses.replace(node, leaf=leaf)


def _of_part(spec: WeightSpec, rate: Fraction) -> WeightSpec:
    """The spec of the whole, for a part of which the fan-out grows at a rate of its own."""
    sizes = tuple((size, ratio) for size, ratio in spec.sizes if size != "fan_out")
    if spec.role is not Role.hidden:
        return dataclasses.replace(spec, width_ratio=rate, sizes=sizes)
    if rate != spec.width_ratio:
        sizes = (("fan_out", rate), *sizes)
    return dataclasses.replace(spec, sizes=sizes)
