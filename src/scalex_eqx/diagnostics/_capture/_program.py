"""Following the weights through a traced program, without running it."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jax.extend.core import Literal

from ..._jaxprs import parameters
from ._operation import Operation, choice, operation_of, part_of_product
from ._origin import CONSTANT, DATA, Origin, chosen, derived, joined, of_each

# Each result is the operand in its place.
_IDENTITIES = frozenset({"optimization_barrier", "device_put"})


class NotFollowed(NamedTuple):
    """The path of a weight whose uses were not all found, and what became of it."""

    path: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Site:
    """Where a weight meets an input: the weight's path and origin, and the operation there.

    Of one of several weights in one value `cut` is where it is: axis, start and size.
    """

    path: str
    origin: Origin
    operation: Operation
    is_data: tuple[bool, ...]
    depth: int
    cut: tuple[int, int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Program:
    """A program and where the weights meet the inputs in it.

    - `jaxpr`, `constants`: the program.
    - `inner`: the programs within its equations, by the equation's number: one, or a condition's
        branches. Without those in which nothing happens to a weight.
    - `here`: the sites in its own equations, by the equation's number.
    - `pieces`: the equations whose results are pieces of a stack, and which of their operands they
        are made from.
    - `not_followed`: where a weight was lost.
    - `depth`: in how many scans it stands.
    """

    jaxpr: Any
    constants: Sequence[Any]
    inner: Mapping[int, tuple["Program", ...]]
    here: Mapping[int, tuple[Site, ...]]
    pieces: Mapping[int, int]
    not_followed: tuple[NotFollowed, ...]
    depth: int

    @property
    def sites(self) -> tuple[Site, ...]:
        """All sites, in the order in which the program reaches them."""
        return tuple(
            site
            for i in range(len(self.jaxpr.eqns))
            for sites in (*(inner.sites for inner in self.inner.get(i, ())), self.here.get(i, ()))
            for site in sites
        )

    @property
    def matters(self) -> bool:
        """Whether anything happens in it that has to be seen when it runs."""
        return bool(self.inner or self.here or self.pieces)


def follow(program: Any, origins: Sequence[Origin], depth: int = 0) -> tuple[Program, list[Origin]]:
    """The sites of a program whose arguments have the given origins, and those of its results."""
    jaxpr, constants = parameters.parts(program)
    known = dict(zip(jaxpr.invars, origins, strict=True))
    inner, here, pieces, lost = {}, {}, {}, []

    def origin(variable: Any) -> Origin:
        if isinstance(variable, Literal):
            return CONSTANT
        return known.get(variable, CONSTANT)

    for i, equation in enumerate(jaxpr.eqns):
        found = _follow_equation(equation, [origin(v) for v in equation.invars], depth)
        known |= zip(equation.outvars, found.results, strict=True)
        lost += found.not_followed
        if any(program.matters for program in found.inner):
            inner[i] = found.inner
        if found.sites:
            here[i] = found.sites
        if found.made_from is not None:
            pieces[i] = found.made_from
    lost = tuple(dict.fromkeys(lost))
    results = [origin(v) for v in jaxpr.outvars]
    return Program(jaxpr, constants, inner, here, pieces, lost, depth), results


def unfollowed(program: Any, paths: Iterable[str], why: str) -> Program:
    """A program in which nothing is followed."""
    jaxpr, constants = parameters.parts(program)
    lost = tuple(NotFollowed(path, f"is not followed, since this failed: {why}") for path in paths)
    return Program(jaxpr, constants, {}, {}, {}, lost, 0)


@dataclasses.dataclass(frozen=True)
class _Followed:
    results: Sequence[Origin]
    inner: tuple[Program, ...] = ()
    sites: tuple[Site, ...] = ()
    not_followed: tuple[NotFollowed, ...] = ()
    made_from: int | None = None


def _follow_equation(equation: Any, origins: list[Origin], depth: int) -> _Followed:
    name = equation.primitive.name
    if parameters.is_way_back(equation):
        return _Followed([DATA for _ in equation.outvars])
    if (wrapped := parameters.wrapped(equation)) is not None:
        inner, results = follow(wrapped, origins, depth)
        return _Followed(results, (inner,), (), inner.not_followed)
    if name == "scan" and (scan := parameters.scan(equation)) is not None:
        return _follow_scan(scan, origins, depth)
    if name == "cond" and (branches := parameters.branches(equation)) is not None:
        return _follow_branches(branches, origins, depth)
    if name in _IDENTITIES:
        return _Followed(origins)
    if not any(origin.is_data for origin in origins):
        results = derived(equation, origins)
        made_from = [i for i, origin in enumerate(origins) if origin.weights]
        is_piece = any(result.in_pieces for result in results)
        return _Followed(results, made_from=made_from[0] if is_piece else None)
    return _meet(equation, origins, depth)


def _meet(equation: Any, origins: list[Origin], depth: int) -> _Followed:
    """An equation in which weights meet the inputs, or are chosen by them."""
    name = equation.primitive.name
    is_data = tuple(origin.is_data for origin in origins)
    results = [DATA for _ in equation.outvars]
    if not results:
        # Something is printed or checked.
        return _Followed(results)
    weights = [i for i, origin in enumerate(origins) if origin.weights and not origin.is_data]
    if len(weights) == 1 and origins[weights[0]].lost is None:
        [i] = weights
        if (chooses := choice(equation, i, origins[i])) is not None:
            piece = chosen(equation, i, origins[i])
            if piece.is_matrix or len(piece.weights) > 1:
                return _Followed([piece], made_from=i)
            [path] = piece.weights
            return _Followed(results, (), (Site(path, piece, chooses, is_data, depth),), (), i)
    sites, lost = [], []
    for i in weights:
        if (each := _each_beside(equation, i, origins[i], is_data, depth)) is not None:
            sites += each
            continue
        operation = operation_of(equation, i, origins)
        if operation is not None and len(origins[i].weights) == 1 and origins[i].lost is None:
            [path] = origins[i].weights
            sites.append(Site(path, origins[i], operation, is_data, depth))
        else:
            lost += losses(origins[i], f"meets the inputs in {name}, where it is not followed")
    return _Followed(results, (), tuple(sites), tuple(lost))


def _each_beside(
    equation: Any, position: int, origin: Origin, is_data: tuple[bool, ...], depth: int
) -> list[Site] | None:
    """The sites of weights that meet the inputs in one product, beside each other in one value."""
    sites = []
    for one in origin.beside:
        operation = part_of_product(equation, position, origin.along, one)
        if operation is None:
            return None
        [path] = one.origin.weights
        cut = (origin.along, one.start, one.size)
        sites.append(Site(path, one.origin, operation, is_data, depth, cut))
    return sites or None


def losses(origin: Origin, what: str) -> list[NotFollowed]:
    """An entry for each weight that a value is made from, and `what` where no more is known."""
    found = []
    for path in sorted(origin.weights):
        others = ", ".join(sorted(origin.weights - {path}))
        together = f"is combined with {others} before it meets the inputs"
        found.append(NotFollowed(path, together if others else origin.lost or what))
    return found


def _follow_scan(scan: parameters.Scan, origins: list[Origin], depth: int) -> _Followed:
    """What the scan carries is data if it becomes so in any turn, so the turns are repeated."""
    constants, carries, lost = scan.constants, scan.carries, []
    split = constants + carries
    own, _ = parameters.parts(scan.body)
    unchanged = [out is own.invars[constants + i] for i, out in enumerate(own.outvars[:carries])]

    def entering(origin: Origin) -> Origin:
        if origin.in_pieces:
            lost.extend(losses(origin, "is in pieces where a scan takes it"))
            return DATA
        return _in_turns(origin, depth)

    outside = [
        origin if same else entering(origin)
        for origin, same in zip(origins[constants:split], unchanged, strict=True)
    ]
    carry = outside
    stacked = [_turn(entering(origin), depth) for origin in origins[split:]]
    while True:
        inner, results = follow(scan.body, [*origins[:constants], *carry, *stacked], depth + 1)
        after = [
            pair[0] if same else joined(*pair)
            for *pair, same in zip(carry, results[:carries], unchanged, strict=True)
        ]
        if after == carry:
            break
        carry = after
    lost += inner.not_followed
    for before, now in zip(outside, carry, strict=True):
        if now.is_data and not before.is_data:
            lost += losses(before, "is what a scan starts from")
    ends = [
        origin if same else _leaving(origin, depth, lost, 0)
        for origin, same in zip(carry, unchanged, strict=True)
    ]
    stacks = [_leaving(result, depth, lost, 1) for result in results[carries:]]
    return _Followed([*ends, *stacks], (inner,), (), tuple(lost))


def _in_turns(origin: Origin, depth: int) -> Origin:
    if origin.is_data:
        return origin
    return of_each(origin, lambda one: one._replace(loops=one.loops | {depth}))


def _turn(origin: Origin, depth: int) -> Origin:
    """What a turn sees of an operand that the scan runs along."""
    if origin.beside and origin.along == 0:
        # Each turn would have another weight.
        origin = origin._replace(beside=())
    found = of_each(origin, lambda one: _one_turn(one, depth))
    return found._replace(along=origin.along - 1) if origin.beside else found


def _one_turn(origin: Origin, depth: int) -> Origin:
    if origin.is_data or not origin.weights or not origin.axes:
        return origin
    axis, *axes = origin.axes
    turns = origin.turns
    if axis is not None and axis in origin.stack:
        turns = (*turns, (depth, axis))
    return origin._replace(axes=tuple(axes), turns=turns)


def _leaving(origin: Origin, depth: int, lost: list[NotFollowed], leading: int) -> Origin:
    """What a scan returns: `leading` axes of it are those of the turns."""
    if origin.is_data or not origin.weights:
        return origin
    runs = [axis for loop, axis in origin.turns if loop == depth]
    if origin.in_pieces or (runs and not leading):
        lost += losses(origin, "leaves a scan in pieces")
        return DATA
    axes = ((*runs, None)[:1] if leading else ()) + origin.axes
    turns = tuple(turn for turn in origin.turns if turn[0] != depth)
    return origin._replace(axes=axes, turns=turns, loops=origin.loops - {depth}, beside=())


def _follow_branches(branches: Sequence[Any], origins: list[Origin], depth: int) -> _Followed:
    """Every branch of a condition; what they return is no weight any more, unless all agree."""
    index, *operands = origins
    followed = [follow(branch, operands, depth) for branch in branches]
    lost = [entry for program, _ in followed for entry in program.not_followed]
    results = []
    for found in zip(*(results for _, results in followed), strict=True):
        kept = found[0]
        weights = [origin for origin in found if origin.weights and not origin.is_data]
        if not weights:
            kept = DATA if any(one.is_data for one in (index, *found)) else kept
        elif kept.in_pieces or any(origin != kept for origin in found):
            lost += [entry for one in weights for entry in losses(one, "leaves a branch of cond")]
            kept = DATA
        results.append(kept)
    inner = tuple(program for program, _ in followed)
    return _Followed(results, inner, (), tuple(dict.fromkeys(lost)))
