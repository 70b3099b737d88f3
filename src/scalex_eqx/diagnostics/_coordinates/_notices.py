"""What is worth telling beside the findings."""

from collections.abc import Mapping, Sequence

from ._judge import LOOSE, is_declared_inside
from ._law import Law
from ._rows import CoordinateRow
from ._run import Measurements


def broken_assumptions(rows: Sequence[CoordinateRow]) -> list[str]:
    """Where a measured alignment is not the assumed one, beyond tolerance and interval."""
    told = []
    for row in rows:
        # Over the depth nothing is assumed of sums over a fan-in, which stays.
        for name in ("alpha", "omega", "u") if row.law.over == "width" else ():
            measured, assumed = (
                getattr(row, name),
                row.law.aligned(getattr(row.law.alignment, name)),
            )
            if not row.law.role.sums_over_width or measured is None:
                continue
            low = measured.value if measured.interval is None else measured.interval[0]
            if measured.value > assumed + LOOSE / 2 and low > assumed:
                told.append(f"{row.name}: {name} is {measured}, above the assumed {assumed:g}")
    return told


def declarations(laws: Mapping[str, Law], found: Measurements) -> list[str]:
    """What is judged as it is declared, though something else speaks against it."""
    told = []
    for law in {law.path: law for law in laws.values()}.values():
        if is_declared_inside(law, found):
            told.append(
                f"{law.path} is judged as {law.spec.role}, as it is declared, though its shapes "
                f"are those of a {law.shown} weight"
            )
    families = {
        (law.family.name, law.measured_family.name)
        for law in laws.values()
        if law.measured_family is not None
    }
    told += [
        f"updates are judged as those of the family {declared}, as declared, though by the rules "
        f"in front of the scaling they are those of {measured}"
        for declared, measured in sorted(families)
    ]
    return told
