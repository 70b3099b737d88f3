"""How far a rule moves the weights, without what it would do to them without a gradient."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._run import Leaves, Updates
from ._settings import FACTOR

# Decay is taken off where it is the smaller part of an update: where it is as large as the rest,
# the rule has made it so, and the two don't add up.
_MOST_DECAY = 0.5
_PARALLEL = 1e-3


@dataclasses.dataclass(frozen=True)
class Drift:
    """What a rule does to weights that get no gradient.

    **Arguments:**

    - `kind`: `nothing`; `decay`, a share of each weight; `constant`, the same whatever the weights
        are, as noise is; `other`; `not finite`.
    - `share`: of the weight, in each step, by leaf; for decay.
    - `updates`: in each step, by leaf; if they are constant.
    """

    kind: str
    share: Mapping[str, np.ndarray]
    updates: Leaves

    @property
    def decay(self) -> float:
        """The share of a matrix that is taken off in the first step that does it."""
        shares = [x[np.flatnonzero(x)[0]] for x in self.share.values() if np.any(x)]
        return float(max(shares, key=abs)) if shares and self.kind == "decay" else 0.0


def drift(keys: Sequence[Any], found: Updates) -> Drift:
    """What happens without gradients, told from weights of two sizes."""
    plain, up = keys.index(("zero", 0)), keys.index(("zero", "up"))
    updates = {name: x[plain] for name, x in found.updates.items()}
    raised = {name: x[up] for name, x in found.updates.items()}
    if not all(np.isfinite(x).all() for x in (*updates.values(), *raised.values())):
        return Drift("not finite", {}, {})
    if not any(x.any() for x in updates.values()):
        return Drift("nothing", {}, {})
    weights = {name: x[plain] for name, x in found.weights.items()}
    shares = {name: _share(updates[name], weights[name]) for name in updates}
    usual = keys.index(("all", 0.0))
    small = all(
        root_mean_square(updates[name])
        <= _MOST_DECAY * root_mean_square(found.updates[name][usual])
        for name in updates
    )
    if all(map(np.array_equal, updates.values(), raised.values())):
        return Drift("constant", {}, updates)
    is_decay = all(
        root_mean_square(updates[n] + _times(shares[n], weights[n]))
        <= _PARALLEL * root_mean_square(updates[n])
        and np.allclose(_share(raised[n], found.weights[n][up]), shares[n], rtol=_PARALLEL, atol=0)
        for n in updates
    )
    return Drift("decay" if is_decay and small else "other", shares, {})


def _share(updates: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of the weight in each step, by least squares."""
    axes = tuple(range(1, updates.ndim))
    return -np.sum(updates * weights, axes) / np.sum(np.square(weights), axes)


def _times(share: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return share.reshape(-1, *[1] * (weights.ndim - 1)) * weights


class Moved:
    """The updates of a run without the drift, by setting.

    **Arguments:**

    - `keys`: the names of the settings, in their order.
    - `found`: what came out.
    - `without`: the drift.
    - `skip`: the steps before those that are added up.
    """

    def __init__(self, keys: Sequence[Any], found: Updates, without: Drift, skip: int = 0):
        self.places = {key: i for i, key in enumerate(keys)}
        self.found, self.without, self.skip = found, without, skip

    def steps(self, key: Any, leaf: str) -> np.ndarray:
        """Every step's update of a leaf."""
        i = self.places[key]
        updates = self.found.updates[leaf][i]
        kind = self.without.kind
        if kind == "decay" and leaf in self.without.share:
            share = self.without.share[leaf][: len(updates)]
            return updates + _times(share, self.found.weights[leaf][i])
        if kind == "constant" and leaf in self.without.updates:
            return updates - self.without.updates[leaf]
        return updates

    def path(self, key: Any, leaf: str) -> np.ndarray:
        """How far it goes from where it has settled, in all."""
        # A sum of what has overflowed isn't finite, and needs no warning.
        with np.errstate(invalid="ignore", over="ignore"):
            return self.steps(key, leaf)[self.skip :].sum(0)

    def first(self, key: Any, leaf: str) -> np.ndarray:
        """The update of the first step in which the rule moves anything."""
        base = self.steps(("all", 0.0), leaf)
        moves = np.flatnonzero([step.any() for step in base])
        return self.steps(key, leaf)[moves[0] if len(moves) else 0]


def root_mean_square(x: np.ndarray) -> float:
    """Of all entries; infinite where a square is."""
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.sqrt(np.mean(np.square(x))))


def degree(larger: np.ndarray, usual: np.ndarray) -> float:
    r"""$\log_{16}$ of the ratio of their root mean squares; NaN if one of them isn't positive."""
    sizes = root_mean_square(larger), root_mean_square(usual)
    if not all(np.isfinite(x) and x > 0 for x in sizes):
        return float("nan")
    return float(np.log(sizes[0] / sizes[1]) / np.log(FACTOR))
