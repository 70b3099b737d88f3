"""Following the weights through a traced program, without running it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jax.extend.core import Literal

from . import _parameters as parameters
from ._operation import Operation, operation_of
from ._origin import CONSTANT, DATA, Origin, derived

# Each result is the operand in its place.
_IDENTITIES = frozenset({"optimization_barrier", "device_put"})


class NotFollowed(NamedTuple):
    """The path of a weight whose uses were not all found, and what became of it."""

    path: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Site:
    """Where a weight meets an input: the weight's path and origin, and the operation there."""

    path: str
    origin: Origin
    operation: Operation
    is_data: tuple[bool, ...]
    depth: int


@dataclasses.dataclass(frozen=True)
class Program:
    """A program and where the weights meet the inputs in it.

    - `jaxpr`, `constants`: the program.
    - `inner`: the programs within its equations that hold sites, by the equation's number.
    - `here`: the sites in its own equations, by the equation's number.
    - `not_followed`: where a weight was lost.
    - `depth`: in how many scans it stands.
    """

    jaxpr: Any
    constants: Sequence[Any]
    inner: Mapping[int, "Program"]
    here: Mapping[int, tuple[Site, ...]]
    not_followed: tuple[NotFollowed, ...]
    depth: int

    @property
    def sites(self) -> tuple[Site, ...]:
        """All sites, in the order in which the program reaches them."""
        return tuple(
            site
            for i in range(len(self.jaxpr.eqns))
            for site in (self.inner[i].sites if i in self.inner else self.here.get(i, ()))
        )


def follow(program: Any, origins: Sequence[Origin], depth: int = 0) -> tuple[Program, list[Origin]]:
    """The sites of a program whose arguments have the given origins, and those of its results."""
    jaxpr, constants = parameters.parts(program)
    known = dict(zip(jaxpr.invars, origins, strict=True))
    inner, here, lost = {}, {}, []

    def origin(variable: Any) -> Origin:
        if isinstance(variable, Literal):
            return CONSTANT
        return known.get(variable, CONSTANT)

    for i, equation in enumerate(jaxpr.eqns):
        found = _follow_equation(equation, [origin(v) for v in equation.invars], depth)
        known |= zip(equation.outvars, found.results, strict=True)
        lost += found.not_followed
        if found.inner is not None and found.inner.sites:
            inner[i] = found.inner
        if found.sites:
            here[i] = found.sites
    lost = tuple(dict.fromkeys(lost))
    results = [origin(v) for v in jaxpr.outvars]
    return Program(jaxpr, constants, inner, here, lost, depth), results


@dataclasses.dataclass(frozen=True)
class _Followed:
    results: Sequence[Origin]
    inner: Program | None = None
    sites: tuple[Site, ...] = ()
    not_followed: tuple[NotFollowed, ...] = ()


def _follow_equation(equation: Any, origins: list[Origin], depth: int) -> _Followed:
    name = equation.primitive.name
    if (wrapped := parameters.wrapped(equation)) is not None:
        inner, results = follow(wrapped, origins, depth)
        return _Followed(results, inner, (), inner.not_followed)
    if name == "scan" and (scan := parameters.scan(equation)) is not None:
        return _follow_scan(scan, origins, depth)
    if name in _IDENTITIES:
        return _Followed(origins)
    results = derived(equation, origins)
    if not any(origin.is_data for origin in origins):
        return _Followed(results)
    is_data = tuple(origin.is_data for origin in origins)
    sites, lost = [], []
    for position, origin in enumerate(origins):
        operation = operation_of(equation, position) if origin.weights else None
        if operation is not None and len(origin.weights) == 1:
            [path] = origin.weights
            sites.append(Site(path, origin, operation, is_data, depth))
        else:
            lost += _lost(origin, f"meets the inputs in {name}, where it is not followed")
    return _Followed(results, None, tuple(sites), tuple(lost))


def _lost(origin: Origin, what: str) -> list[NotFollowed]:
    found = []
    for path in sorted(origin.weights):
        others = ", ".join(sorted(origin.weights - {path}))
        reason = f"is combined with {others} before it meets the inputs" if others else what
        found.append(NotFollowed(path, reason))
    return found


def _follow_scan(scan: parameters.Scan, origins: list[Origin], depth: int) -> _Followed:
    """What the scan carries is data if it becomes so in any turn, so the turns are repeated."""
    constants, carries = scan.constants, scan.carries
    split = constants + carries
    own, _ = parameters.parts(scan.body)
    unchanged = [out is own.invars[constants + i] for i, out in enumerate(own.outvars[:carries])]
    outside = [
        origin if same else _in_turns(origin, depth)
        for origin, same in zip(origins[constants:split], unchanged, strict=True)
    ]
    carry = outside
    stacked = [_in_turns(_slice(origin), depth) for origin in origins[split:]]
    while True:
        inner, results = follow(scan.body, [*origins[:constants], *carry, *stacked], depth + 1)
        after = [_joined(*pair) for pair in zip(carry, results[:carries], strict=True)]
        if after == carry:
            break
        carry = after
    lost = [*inner.not_followed]
    for before, now in zip(outside, carry, strict=True):
        if now.is_data:
            lost += _lost(before, "is what a scan starts from")
    ends = [result.leaving(depth) for result in carry]
    stacks = [
        result.leaving(depth)._replace(axes=(None, *result.axes)) for result in results[carries:]
    ]
    return _Followed([*ends, *stacks], inner, (), tuple(lost))


def _in_turns(origin: Origin, depth: int) -> Origin:
    return origin if origin.is_data else origin._replace(loops=origin.loops | {depth})


def _slice(origin: Origin) -> Origin:
    return origin._replace(axes=origin.axes[1:])


def _joined(first: Origin, second: Origin) -> Origin:
    if first.is_data or second.is_data:
        return DATA
    same = first.axes == second.axes
    axes = first.axes if same or not second.weights else (None,) * len(second.axes)
    return Origin(False, first.weights | second.weights, axes, first.loops | second.loops)
