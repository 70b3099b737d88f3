"""The width ratios that the shapes of three models show."""

from collections.abc import Mapping
from fractions import Fraction

from .._pages import Section, listed, see
from .._weight import path_string
from ..theory import Role
from ._assign import Chosen, Triple
from ._growth import Shape
from ._nodes import Path


def infer_ratios(triples: Mapping[Path, Triple], chosen: Chosen) -> tuple[Fraction, Fraction]:
    """The ratios of the probe and of the wanted width to the base width.

    The width's is the one at which most axes grow. A frozen array may have none, and is asked only
    if no other array grows.

    **Raises:** `ValueError` if two rates are as frequent, or if nothing grows from the base to the
    probe width.
    """
    lawful = {
        path: triple
        for path, triple in triples.items()
        if chosen.roles.get(path) is not Role.buffer
    }
    trained = {path: x for path, x in lawful.items() if path not in chosen.frozen}
    grows = any(triple.base.array.shape != triple.probe.array.shape for triple in trained.values())
    asked = trained if grows else lawful
    shapes = {path_string(path): triple.shapes for path, triple in asked.items()}
    probe = _ratio("probe", {path: (base, other) for path, (base, other, _) in shapes.items()})
    if probe == 1:
        raise ValueError(
            "base and probe have the same shapes; which axes grow can only be seen from two "
            f"different widths{see(Section.width)}"
        )
    return probe, _ratio("the model", {path: (base, x) for path, (base, _, x) in shapes.items()})


def _ratio(name: str, shapes: dict[str, tuple[Shape, Shape]]) -> Fraction:
    rates: dict[Fraction, list[str]] = {}
    for path, (base, other) in shapes.items():
        if len(base) != len(other):
            raise ValueError(
                f"{path}: shape {base} in base and {other} in {name}; expected as many axes in both"
            )
        for axis, (size, grown) in enumerate(zip(base, other, strict=True)):
            if grown != size:
                rates.setdefault(Fraction(grown, size), []).append(f"{path} axis {axis}")
    if not rates:
        return Fraction(1)
    # Fans that are rounded, or that have a width of their own, are fewer than those that don't.
    most = max(map(len, rates.values()))
    width = [rate for rate, axes in rates.items() if len(axes) == most]
    if len(width) > 1:
        heading = (
            f"from base to {name} axes grow at different rates, and as many at each; which one is "
            "the model's width cannot be told:"
        )
        lines = [f"by {rate}: {', '.join(axes)}" for rate, axes in rates.items()]
        raise ValueError(listed(heading, lines) + see(Section.growth))
    return width[0]
