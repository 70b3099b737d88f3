"""What Optax's rules do that their users may not expect, where a model meets it.

Each is measured by `tests/scaling/optax_rules.py`, and stands in the table of the page *Optax's
rules*.
"""

from collections.abc import Iterator, Mapping

from .._makers import Maker
from .._parts import Part
from .._weight import Weight
from ..theory import Role
from ._data import PlanRow

# Of one number over the gradients of all weights.
_ONE_NUMBER = ("momo", "normalize", "scale_by_dog", "scale_by_dowg", "scale_by_polyak")
# Whose first step divides by the size of all gradients.
_FIRST_ZERO = ("dadapt_adamw", "normalize", "prodigy")
# Whose steps are relative to weights, and aren't at a weight of zero.
_RELATIVE = ("scale_by_trust_ratio",)
# That don't come back to where they were.
_DRIFTING = ("schedule_free",)


def optax_warnings(
    rows: tuple[PlanRow, ...],
    trained: Mapping[str, Weight],
    chain: list[Part],
    makers: Mapping[str, Maker],
) -> Iterator[str]:
    """A sentence for each that this model meets."""
    for part in chain:
        maker = makers.get(part.name)
        if part.rule is not None or maker is None or maker.package != "optax":
            continue
        own = [row for row in rows if row.path in trained and part.works_on(row.path)]
        zeros = [row.path for row in own if row.found_std == 0 and Role(row.role).is_matrix]
        narrow = [row.path for row in own if row.dtype == "bfloat16"]
        name = f"{maker.name} ({part.name})"
        if maker.name in _ONE_NUMBER:
            yield (
                f"{name} takes one number over the gradients of all weights: its updates are of "
                "degree 0 in all gradients together and of degree 1 between layers, and no "
                "family has that"
            )
        if maker.name in _FIRST_ZERO and len(zeros) > 1:
            yield (
                f"{', '.join(zeros)} start at zero; if one stands behind another, all first "
                f"gradients are zero, and {name} makes every weight NaN for good after such a step"
            )
        if maker.name in _RELATIVE and zeros:
            yield (
                f"{', '.join(zeros)}: zero at first; the steps of {name} are relative to weights, "
                "and there the first is of another size, thousands of times as large with lars, "
                "nearly none with fromage"
            )
        if maker.name in _DRIFTING and narrow:
            yield (
                f"{', '.join(narrow)}: {name} moves weights in bfloat16 also without a gradient; "
                "keep them in float32"
            )
