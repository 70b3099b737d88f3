"""Weights that a check can't vouch for, with the reason and the remedy."""

import math
from collections.abc import Mapping, Sequence

from .._alignment import weight_name
from ._law import Law
from ._rows import CoordinateRow
from ._run import Measurements, without_gradient


def unjudged(
    rows: Sequence[CoordinateRow], laws: Mapping[str, Law], found: Measurements
) -> tuple[list[str], list[str]]:
    """The trained weights that stand in the way of a pass, and notices for them and others.

    A vector without any gradient, at first and after the last step, is said but may pass: nothing
    trains it, as the bias of attention keys.
    """
    lost = {entry.path: entry.reason for entry in found.not_followed}
    idle = set(without_gradient(found.gradients))
    # A single step doesn't tell what has no gradient from what has none yet.
    never = idle & set(without_gradient(found.last_gradients)) if found.steps[-1] > 1 else set()
    by_name, met = {row.name: row for row in rows}, _met(found)
    names, told = [], []
    for name, law in laws.items():
        row = by_name.get(name)
        if name in idle:
            told.append(_idle(name, never=name in never))
        if name in never and not law.role.is_matrix and law.path not in lost:
            continue
        reason = None
        if law.path in lost:
            reason = ""
        elif row is None:
            reason = "has no use that was found at every width or depth, so that it has no row"
        elif where := _unmet(name, met, found):
            reason = (
                f"is met by no input at {where}, or by none that is finite; give the check a "
                "larger batch, that reaches every member of a stack"
            )
        elif row.update is None and name not in idle:
            reason = (
                "is not moved by the first update at every width, though it has a gradient; give "
                "it a learning rate, or parameterize it as frozen"
            )
        elif row.update is None:
            reason = ""
        if reason is not None:
            names.append(name)
        if reason:
            told.append(f"not judged: {name} {reason}")
    listed = {law.path for law in laws.values()}
    names += [path for path in lost if path not in listed]
    told += [f"not followed: {path} {reason}" for path, reason in lost.items()]
    return names, told


def _idle(name: str, *, never: bool) -> str:
    text = f"{name} has no gradient at first, so that its update is not judged"
    if never:
        return f"{text}, nor after the last step"
    return f"{text}; start what is zero behind it, as a readout or a gate, elsewhere for the check"


def _met(found: Measurements) -> list[list[set[str]]]:
    """By width and seed, the weights of which some use put out something finite."""
    return [
        [
            {weight_name(use) for use, size in uses.items() if math.isfinite(float(size.output))}
            for uses in by_seed
        ]
        for by_seed in found.uses[found.steps[-1]]
    ]


def _unmet(name: str, met: Sequence[Sequence[set[str]]], found: Measurements) -> str:
    """Where no use of a weight has a size: widths and seeds, in words."""
    places = []
    for width, by_seed in zip(found.widths, met, strict=True):
        seeds = [
            seed for seed, names in zip(found.seeds, by_seed, strict=True) if name not in names
        ]
        if seeds:
            places.append(f"{found.over} {width} with seed {', '.join(map(str, seeds))}")
    return "; ".join(places)
