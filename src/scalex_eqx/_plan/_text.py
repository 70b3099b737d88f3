from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._data import Plan, PlanRow

_COLUMNS = (
    "weight",
    "role",
    "shape",
    "multiplier",
    "init std",
    "found",
    "lr factor",
    "lr",
    "eps",
    "decay",
    "why",
)
_TEXT_COLUMNS = ("weight", "role", "shape", "why")
_UNKNOWN = "?"
_NONE = "-"
# As many weights of a ratio of their own are named.
_NAMED = 3


def as_text(plan: "Plan", width: int | None = None) -> str:
    """The plan as plain text in columns; paths have lines of their own if `width` needs it."""
    padded = []
    for column in _columns(plan):
        longest = max(map(len, column))
        pad = str.ljust if column[0] in _TEXT_COLUMNS else str.rjust
        padded.append([pad(cell, longest) for cell in column])
    table = ["  ".join(row).rstrip() for row in zip(*padded, strict=True)]
    if width is not None and max(map(len, table)) > width:
        paths, *others = padded
        rows = zip(paths, *others, strict=True)
        table = [f"{path.rstrip()}\n  {'  '.join(rest).rstrip()}" for path, *rest in rows]
    return "\n".join([*table, "", *_notes(plan)])


def _columns(plan: "Plan") -> list[tuple[str, ...]]:
    """Names and cells of the columns in which there is something to see."""
    columns = zip(_COLUMNS, *map(_cells, plan.rows), strict=True)
    return [column for column in columns if not set(column[1:]) <= {_NONE}]


def _notes(plan: "Plan") -> list[str]:
    return [
        f"width ratio {'; '.join(_ratios(plan))}",
        *_depths(plan),
        *_densities(plan),
        *plan.optimizer,
        *(f"warning: {warning}" for warning in plan.warnings),
        f"fingerprint {plan.fingerprint}",
    ]


def _ratios(plan: "Plan") -> Iterator[str]:
    """The width ratio of most weights, and others with the weights that have them."""
    found: dict[str, list[str]] = {}
    for row in plan.rows:
        found.setdefault(str(row.width_ratio), []).append(row.path)
    most, *others = sorted(found, key=lambda ratio: -len(found[ratio]))
    yield most
    for ratio in others:
        named, more = found[ratio][:_NAMED], len(found[ratio]) - _NAMED
        yield f"{ratio} of {', '.join(named)}" + (f" and {more} more" if more > 0 else "")


def _depths(plan: "Plan") -> Iterator[str]:
    """The depth ratio of what stands in a stack that is deeper than the base model's."""
    deeper = Counter(row.depth_ratio for row in plan.rows if row.depth_ratio != 1)
    for ratio, count in deeper.items():
        yield f"depth ratio {ratio} of the {count} weights in stacks of blocks"


def _densities(plan: "Plan") -> Iterator[str]:
    """The density of masked weights, with the names of a few of them."""
    found: dict[tuple[Fraction, Fraction], list[str]] = {}
    for row in plan.rows:
        if row.density is not None:
            found.setdefault((row.density, row.density_ratio), []).append(row.path)
    for (density, ratio), paths in found.items():
        named, more = paths[:_NAMED], len(paths) - _NAMED
        whose = ", ".join(named) + (f" and {more} more" if more > 0 else "")
        yield f"density {density} of {whose}; density ratio {ratio}"


def _cells(row: "PlanRow") -> tuple[str, ...]:
    return (
        row.path,
        row.role if row.is_trained or row.role == "buffer" else f"{row.role}, frozen",
        "x".join(map(str, row.shape)) or "scalar",
        short(row.multiplier),
        _known(row.intended_std, _NONE),
        _known(row.found_std, _NONE),
        *(
            (
                _known(row.learning_rate_factor),
                _known(row.learning_rate),
                _eps(row),
                _NONE if row.weight_decay == 0 else _known(row.weight_decay),
            )
            if row.is_trained
            else (_NONE,) * 4
        ),
        row.why or _NONE,
    )


def _eps(row: "PlanRow") -> str:
    if row.eps is None:
        return _UNKNOWN if row.eps_note else _NONE
    return f"{row.eps_note} {short(row.eps)}".strip()


def _known(value: float | None, otherwise: str = _UNKNOWN) -> str:
    return otherwise if value is None else short(value)


def short(value: Any) -> str:
    """Four significant digits."""
    return f"{value:.4g}"
