"""Where gradients of different factors meet in a program of scaled operations."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
from jax.extend.core import Literal
from jaxtyping import PyTree

from .._jaxprs import parameters
from .._traced import traced
from .._weight import is_weight, path_string
from ..ops.scaled._scale import MARK

_DATA = object()
_SAME = 1e-5  # Of logarithms: factors stand in a program as float32.


@dataclasses.dataclass(frozen=True)
class UnequalEdge:
    """A value whose gradient is a sum of gradients that are scaled differently.

    **Arguments:**

    - `through`: what the two come back through: the next weights behind the value.
    - `ratio`: the second's backward over forward factors, divided by the first's.
    """

    through: tuple[str, str]
    ratio: float

    def __str__(self) -> str:
        one, other = self.through
        return (
            f"gradients that come back through {one} and through {other} meet, the second with "
            f"{self.ratio:.4g} times the first's backward over forward factors: expected the same; "
            'give the operations on one of the ways a constraint, such as "to_output_scale"'
        )


def unequal_edges(loss: Callable[..., Any], model: PyTree, *inputs: Any) -> tuple[UnequalEdge, ...]:
    r"""The edges of a model's graph at which gradients of different factors are added.

    A scaled operation multiplies the gradient by $b$ where the derivative has $f$. The gradient of
    any value is then the true one times the product of $b / f$ along its way back. Where a value is
    used twice the two ways must have the same product, or the sum points elsewhere than the loss's
    gradient does. A weight that is used once has a factor of its own, and is no such place.

    The program is traced and not run. Factors that are arrays are compared by how they are
    computed.

    **Arguments:**

    - `loss`: `loss(model, *inputs)`, of scaled operations, such as those of
        [`scalex_eqx.nn.unit`][].
    - `model`: with weights.
    - `inputs`: example inputs, or their shapes.

    **Returns:** the edges, none of them if the gradients are right.

    ??? cite "Source"

        The rule is that of cut-edges, Blake et al. (2024),
        [arXiv:2407.17465](https://arxiv.org/abs/2407.17465), appendix H.
    """
    with traced("loss"):
        closed, _, _ = eqx.filter_make_jaxpr(loss)(model, *inputs)
    jaxpr, _ = parameters.parts(closed)
    kinds = [
        path_string(path) if is_weight(leaf) else _DATA
        for path, leaf in jtu.tree_leaves_with_path(model, is_leaf=is_weight)
        for x in jtu.tree_leaves(leaf)
        if eqx.is_array(x)
    ]
    kinds += [_DATA] * (len(jaxpr.invars) - len(kinds))
    walk = _Walk()
    numbers = [walk.number("argument", i) for i in range(len(jaxpr.invars))]
    walk.back(jaxpr, kinds, numbers, [_Back()] * len(jaxpr.outvars))
    return tuple(dict.fromkeys(walk.edges))


@dataclasses.dataclass(frozen=True)
class _Back:
    """What multiplies a gradient that comes back, and the weight that it came through last.

    `symbols` are the numbers of factors that are arrays, each with its power.
    """

    log: float = 0.0
    symbols: frozenset[tuple[int, int]] = frozenset()
    through: str = "the result"

    def times(self, factor: Any, power: int) -> "_Back":
        """With a factor more, a number or the number of an array."""
        if isinstance(factor, float):
            return dataclasses.replace(self, log=self.log + power * math.log(factor))
        counts = Counter(dict(self.symbols))
        counts[factor] += power
        left = frozenset((symbol, n) for symbol, n in counts.items() if n)
        return dataclasses.replace(self, symbols=left)

    def is_like(self, other: "_Back") -> bool:
        return self.symbols == other.symbols and abs(self.log - other.log) < _SAME


class _Walk:
    """Numbers the values of a program, and follows its gradients back."""

    def __init__(self):
        self.known: dict[Any, int] = {}
        self.edges: list[UnequalEdge] = []

    def number(self, *of: Any) -> int:
        """Equal for values that are computed alike."""
        return self.known.setdefault(of, len(self.known))

    def back(
        self, jaxpr: Any, kinds: Sequence[Any], numbers: Sequence[int], ends: Sequence[Any]
    ) -> list[_Back | None]:
        """What comes back to the arguments of a program, given what comes to its results."""
        kind, number = self._forwards(jaxpr, kinds, numbers)
        found: dict[Any, _Back] = {}

        def add(variable: Any, new: _Back | None) -> None:
            if new is None or isinstance(variable, Literal) or not _has_gradient(variable):
                return
            old = found.setdefault(variable, new)
            if not old.is_like(new):
                self._meet(old, new)

        for variable, end in zip(jaxpr.outvars, ends, strict=True):
            add(variable, end)
        for equation in reversed(jaxpr.eqns):
            backs = [found.get(variable) for variable in equation.outvars]
            if any(back is not None for back in backs):
                values = [_known(number, x) for x in equation.invars]
                of = [_known(kind, x) for x in equation.invars]
                for variable, new in zip(
                    equation.invars, self._through(equation, of, values, backs), strict=True
                ):
                    add(variable, new)
        return [found.get(variable) for variable in jaxpr.invars]

    def _meet(self, old: _Back, new: _Back) -> None:
        ratio = math.exp(new.log - old.log) if old.symbols == new.symbols else math.nan
        self.edges.append(UnequalEdge((old.through, new.through), ratio))

    def _forwards(
        self, jaxpr: Any, kinds: Sequence[Any], numbers: Sequence[int]
    ) -> tuple[dict[Any, Any], dict[Any, int]]:
        """What each value is: a constant (`None`), a weight's (its path), or data; and its
        number."""
        kind = dict(zip(jaxpr.invars, kinds, strict=True))
        number = dict(zip(jaxpr.invars, numbers, strict=True))
        for equation in jaxpr.eqns:
            met = {_known(kind, x) for x in equation.invars} - {None}
            of = next(iter(met)) if len(met) == 1 else (_DATA if met else None)
            whats = [_value(number, x) for x in equation.invars]
            name = equation.primitive.name
            for i, variable in enumerate(equation.outvars):
                kind[variable] = of
                number[variable] = self.number(name, i, _said(equation), *whats)
        return kind, number

    def _through(
        self, equation: Any, kinds: list[Any], numbers: list[int], backs: list[_Back | None]
    ) -> list[_Back | None]:
        """What comes back to an equation's operands."""
        name, inner = equation.primitive.name, parameters.wrapped(equation)
        if name == "stop_gradient":
            return [None for _ in equation.invars]
        if inner is not None and _is_scaled(inner):
            (back,) = backs
            assert back is not None
            _, forward, backward = (
                _factor(x, n) for x, n in zip(equation.invars, numbers, strict=True)
            )
            return [back.times(backward, 1).times(forward, -1), None, None]
        if inner is not None:
            return self.back(parameters.parts(inner)[0], kinds, numbers, backs)
        if name == "scan" and (scan := parameters.scan(equation)) is not None:
            return self._scan(scan, kinds, numbers, backs)
        if name == "cond" and (branches := parameters.branches(equation)) is not None:
            ways = [
                self.back(parameters.parts(one)[0], kinds[1:], numbers[1:], backs)
                for one in branches
            ]
            return [None, *map(self._one, zip(*ways, strict=True))]
        back = self._one(backs)
        paths = [of for of in kinds if isinstance(of, str)]
        if back is not None and len(paths) == 1 and _DATA in kinds:
            # Behind it is a weight that what comes from in front has met.
            ahead = dataclasses.replace(back, through=paths[0])
            return [ahead if of is _DATA else back for of in kinds]
        return [back for _ in kinds]

    def _one(self, backs: Sequence[_Back | None]) -> _Back | None:
        """What comes back through all of several ways."""
        known = [back for back in backs if back is not None]
        for other in known[1:]:
            if not known[0].is_like(other):
                self._meet(known[0], other)
        return known[0] if known else None

    def _scan(
        self,
        scan: parameters.Scan,
        kinds: list[Any],
        numbers: list[int],
        backs: list[_Back | None],
    ) -> list[_Back | None]:
        """Turn by turn, from the last; what is the same in all turns gets all their gradients."""
        body = parameters.parts(scan.body)[0]
        carries, stacks = backs[: scan.carries], backs[scan.carries :]
        fixed: list[_Back | None] = [None] * scan.constants
        stacked: list[_Back | None] = []
        for _ in range(scan.length):
            found = self.back(body, kinds, numbers, [*carries, *stacks])
            before = carries
            fixed = [self._one(pair) for pair in zip(fixed, found[: scan.constants], strict=True)]
            carries = found[scan.constants : scan.constants + scan.carries]
            stacked = found[scan.constants + scan.carries :]
            if all(map(_alike, carries, before)):
                break
        return [*fixed, *carries, *stacked]


def _alike(one: _Back | None, other: _Back | None) -> bool:
    return one is other is None or (one is not None and other is not None and one.is_like(other))


def _is_scaled(program: Any) -> bool:
    """Whether a function with a derivative of its own is the one that scales."""
    return any(
        equation.primitive.name == "name" and equation.params.get("name") == MARK
        for equation in parameters.parts(program)[0].eqns
    )


def _factor(variable: Any, number: int) -> float | int:
    return float(variable.val) if isinstance(variable, Literal) else number


def _known(found: dict[Any, Any], variable: Any) -> Any:
    if isinstance(variable, Literal):
        return None
    return found.get(variable)


def _value(numbers: dict[Any, int], variable: Any) -> Any:
    """What a value is numbered by: a literal by itself."""
    return f"{variable.val}" if isinstance(variable, Literal) else numbers.get(variable)


def _said(equation: Any) -> str:
    """An equation's parameters, as far as they are short."""
    return ", ".join(
        f"{key}={value}" for key, value in sorted(equation.params.items()) if not _is_long(value)
    )


def _is_long(value: Any) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr") or callable(value)


def _has_gradient(variable: Any) -> bool:
    return jnp.issubdtype(variable.aval.dtype, jnp.inexact)
