"""What is said of the sizes in a model."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from .._columns import columns
from ._formats import FORMATS

GROUPS = {
    "weights": ("weight",),
    # What comes out of a product is summed in a wide format, and judged where it goes in next.
    "activations": ("input",),
    "gradients": ("output gradient", "weight gradient"),
}
"""The kinds that a format is chosen for together."""

_NOUNS = {
    "weight": "{}",
    "input": "what goes into {}",
    "output": "what comes out of {}",
    "output gradient": "the gradient of what comes out of {}",
    "weight gradient": "the gradient of {}",
}


def _worst(rows: Iterable[Any], format: str, kinds: Sequence[str]) -> Any:
    return max(
        (row for row in rows if row.kind in kinds),
        key=lambda row: row.lost(format),
        default=None,
    )


def _since(rows: Sequence[Any], worst: Any, format: str, most: float) -> int:
    """The first step from which on the worst one's array loses as much up to its worst."""
    own = [row for row in rows if (row.weight, row.kind) == (worst.weight, worst.kind)]
    since = worst.step
    for row in reversed([row for row in own if row.step <= worst.step]):
        if row.lost(format) <= most:
            break
        since = row.step
    return since


def verdicts(rows: Sequence[Any], most: float) -> tuple[str, ...]:
    """A sentence for each format and kind of which more than `most` are lost."""
    found = []
    for format in FORMATS:
        for kinds in GROUPS.values():
            worst = _worst(rows, format, kinds)
            if worst is not None and worst.lost(format) > most:
                found.append(_verdict(rows, worst, format, most))
    return tuple(found)


def _verdict(rows: Sequence[Any], worst: Any, format: str, most: float) -> str:
    since = _since(rows, worst, format, most)
    until = "" if since == worst.step else f", most at step {worst.step}"
    how = "become zero" if worst.zeroed[format] >= worst.overflowing[format] else "overflow"
    what = _NOUNS[worst.kind].format(worst.weight)
    return (
        f"{format}: {_share(worst.lost(format))} of the entries of {what} {how} from step "
        f"{since}{until}"
    )


def printed(rows: Sequence[Any], most: float) -> str:
    """The sizes at the first and the last step, what each format loses, and the verdicts."""
    steps = list(dict.fromkeys(row.step for row in rows))
    kinds = list(dict.fromkeys(row.kind for row in rows))
    paths = list(dict.fromkeys(row.weight for row in rows))
    known = {(row.step, row.weight, row.kind): row for row in rows}
    sizes = [["size", *kinds]]
    for path in paths:
        ends = [[known.get((step, path, kind)) for kind in kinds] for step in (steps[0], steps[-1])]
        sizes.append([path, *map(_course, *ends)])
    lost = [["most lost in", *GROUPS]]
    for format in FORMATS:
        worst = [_worst(rows, format, group) for group in GROUPS.values()]
        lost.append([format, *(_share(one.lost(format)) if one else "-" for one in worst)])
    said = verdicts(rows, most) or (f"no format loses more than {_share(most)} of an array",)
    heading = f"log2 of root mean squares, at step {steps[0]} and step {steps[-1]}"
    heading += "; outputs before any factor behind the product"
    return "\n".join([heading, columns(sizes, text=1), "", columns(lost, text=1), "", *said])


def _course(first: Any, last: Any) -> str:
    if first is None or last is None:
        return "-"
    ends = [_log2(first.size), _log2(last.size)]
    return ends[0] if first is last else " to ".join(ends)


def _log2(size: float) -> str:
    if not 0 < size < math.inf:
        return "0" if size == 0 else str(size)
    # Adding zero makes -0 positive.
    return f"{round(math.log2(size), 1) + 0.0:.1f}"


def _share(share: float) -> str:
    """In percent, with two digits."""
    if share == 0:
        return "0"
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 9.95 else f"{percent:.2g} %"
