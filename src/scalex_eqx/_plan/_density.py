"""What the density does to the rates of masked weights, in words, and whose rule that is."""

from collections.abc import Iterator, Mapping
from fractions import Fraction

from .._parts import Part
from .._weight import Weight
from ..theory import Alignment, UpdateFamily, density_exponent, full_alignment

_PUBLISHED = "Dey et al. (2024), arXiv:2405.15743"
_DERIVED = "derived here from the balance of the width, not published"


def density_lines(part: Part, weights: Mapping[str, Weight]) -> Iterator[str]:
    """A line for each family of updates that masked weights have under a rule."""
    rule = part.rule
    if rule is None or rule.family is None:
        return
    masked = {
        path: weight
        for path, weight in weights.items()
        if weight.spec.density is not None and weight.spec.is_trained and part.works_on(path)
    }
    if not masked:
        return
    if all(weight.spec.size_ratio("density") == 1 for weight in masked.values()):
        yield f"{part.name}  density: that of the base, or no base is given; nothing follows it"
        return
    if not isinstance(rule.rates, Alignment):
        yield f"{part.name}  density: these rates don't follow it; the spread does"
        return
    families = {rule.family.of_role(w.spec.role) for w in masked.values() if w.spec.role}
    for family in sorted(families, key=lambda one: one.name):
        exponent = density_exponent(family, rule.rates)
        yield (
            f"{part.name}  density: spread as density^-1/2, learning rate of {family.name} as "
            f"density^{-exponent}, eps not at all ({_source(family, rule.rates)})"
        )


def _source(family: UpdateFamily, rates: Alignment) -> str:
    published = (0, 0) if family.name == "adam" else (1, 0)
    degrees = (family.gradient_degree, family.weight_degree)
    plain = family.name in ("adam", "sgd") and degrees == tuple(map(Fraction, published))
    return _PUBLISHED if plain and rates == full_alignment else _DERIVED
