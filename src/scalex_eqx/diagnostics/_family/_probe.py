"""What update rules are tried on: weights, gradients, and what goes with them."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from ..._spec import WeightSpec
from ..._weight import Weight
from ...theory import Role, standard

SPREAD = 0.1
"""The root mean square of all weights."""

Leaves = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Probe:
    """Arrays by name, and the gradients that they get.

    **Arguments:**

    - `weights`: at the beginning.
    - `gradients`: the same with an axis of steps in front; of root mean square about one.
    """

    weights: Leaves
    gradients: Leaves

    @property
    def steps(self) -> int:
        """How many there are."""
        return len(next(iter(self.gradients.values())))


SMALL = {"tall": (12, 6), "wide": (6, 12), "vector": (8,)}
"""No matrix is square: in a square one all rows of an orthogonal update are alike."""


@functools.cache
def small_probe(steps: int) -> Probe:
    """Two matrices and a vector.

    A gradient has a constant part and noise of half its size: without noise those rules that divide
    by a spread would divide by nothing, and without the constant part they would go nowhere.
    """
    rng = np.random.default_rng(0)
    weights, gradients = {}, {}
    for name, shape in SMALL.items():
        weights[name] = _weights(rng, shape)
        sizes = rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)
        gradients[name] = _float32(sizes + 0.5 * rng.normal(size=(steps, *shape)))
    return Probe(weights, gradients)


LARGE = 128
"""From this size on some rules keep less than an entry of state for each of the weight's."""

# So long that the root mean square of its entries is no matter of chance.
_LENGTH = 1024

SIDES = {
    "square": (1, 1),
    "high": (2, 1),
    "broad": (1, 2),
    "both": (2, 2),
}


@functools.cache
def large_probe(steps: int) -> Probe:
    """Matrices of several shapes, a square one whose gradient has rank one, and two vectors."""
    sides = dict.fromkeys(SIDES) | {"of rank one": 1}
    return _large(steps, sides, {"short": _LENGTH, "long": 2 * _LENGTH})


@functools.cache
def rank_one_probe(steps: int) -> Probe:
    """Matrices of these shapes with gradients of rank one."""
    return _large(steps, dict.fromkeys(SIDES, 1), {})


def _large(steps: int, ranks: Mapping[str, int | None], lengths: Mapping[str, int]) -> Probe:
    rng = np.random.default_rng(1)
    weights, gradients = {}, {}
    for name, rank in ranks.items():
        times = SIDES.get(name, (1, 1))
        shape = (LARGE * times[0], LARGE * times[1])
        weights[name] = _weights(rng, shape)
        gradients[name] = _of_rank(rng, steps, shape, rank)
    for name, length in lengths.items():
        weights[name] = _weights(rng, (length,))
        gradients[name] = _of_rank(rng, steps, (length,), None)
    return Probe(weights, gradients)


def _weights(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    drawn = rng.normal(size=shape)
    return _float32(SPREAD * drawn / np.sqrt(np.mean(np.square(drawn))))


def _of_rank(
    rng: np.random.Generator, steps: int, shape: tuple[int, ...], rank: int | None
) -> np.ndarray:
    """Gradients that stay within one space of that rank, whatever is averaged over them."""
    if rank is None:
        # Of random signs and nearly one size: the squares have rank one, as factored rules take it.
        sizes = rng.uniform(0.75, 1.25, shape) * rng.choice([-1.0, 1.0], shape)
        return _float32(sizes + 0.2 * rng.normal(size=(steps, *shape)))
    left, right = (rng.normal(size=(n, rank)) for n in shape)
    # None changes its sign: what is left of two opposite steps is rounding.
    parts = rng.uniform(0.5, 1.5, size=(steps, rank))
    drawn = np.einsum("ik,tk,jk->tij", left, parts, right)
    return _float32(drawn / np.sqrt(np.mean(np.square(drawn))))


def _float32(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32)


def only(probe: Probe, leaf: str) -> Probe:
    """The probe with one of its leaves."""
    return Probe({leaf: probe.weights[leaf]}, {leaf: probe.gradients[leaf]})


Wrap = Callable[[Mapping[str, Any]], PyTree]


def plain(leaves: Mapping[str, Any]) -> PyTree:
    """The tree of arrays as it is."""
    return dict(leaves)


def annotated(leaves: Mapping[str, Any]) -> PyTree:
    """The same with every array a weight of the base model, for rules that ask for its law."""
    return {name: Weight(x, _SPECS[len(x.shape)]) for name, x in leaves.items()}


def matrices(leaves: Mapping[str, Any]) -> PyTree:
    """The tree without the vectors, for rules that refuse them."""
    return {name: x for name, x in leaves.items() if len(x.shape) == 2}


def arrays(tree: PyTree) -> dict[str, Any]:
    """The arrays of such a tree."""
    return {name: x.value if isinstance(x, Weight) else x for name, x in tree.items()}


def _spec(fan_in: tuple[int, ...], fan_out: tuple[int, ...], role: Role) -> WeightSpec:
    return WeightSpec(
        fan_in,
        fan_out,
        std=SPREAD,
        role=role,
        parameterization=standard,
        width_ratio=Fraction(1),
    )


_SPECS = {1: _spec((), (-1,), Role.vector), 2: _spec((-1,), (-2,), Role.hidden)}


def shapes(probe: Probe, wrap: Wrap) -> PyTree:
    """The tree that a rule begins with, as shapes."""
    return wrap({n: jax.ShapeDtypeStruct(x.shape, x.dtype) for n, x in probe.weights.items()})
