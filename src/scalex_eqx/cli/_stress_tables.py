"""What `scalex stress` prints."""

import shlex
import sys

from rich.console import Console
from rich.table import Table as Printed

from .. import diagnostics
from ..diagnostics import Headroom, Results, StressExpectation, Table
from ..diagnostics._results import shown

# Widths beyond are all the same to a reader.
_ANY_WIDTH = 1e12

Found = dict[str, diagnostics.Stress]
Judged = dict[str, list[StressExpectation]]


def print_found(console: Console, heading: str, found: Found, judged: Judged) -> None:
    """Prints the verdicts, and what was not as expected."""
    _say(console, heading)
    _print_verdicts(console, found)
    _say(console, "largest: of all updates at any scale, relative to the largest at scale 1")
    failed = [(name, e) for name, one in judged.items() for e in one if not e.holds]
    for name, e in failed:
        bounds = f"expected {e.low:.3g} to {e.high:.3g}"
        _say(
            console,
            f"NOT AS EXPECTED: {name}: {e.quantity} is {e.found:.3g}, {bounds}: {e.why}",
        )
    if judged and not failed:
        _say(console, "All as the formulas and the number formats lead to expect.")
    for name in found:
        if name not in judged:
            _say(console, f"{name} was measured, and not held against an expectation.")


def _expected_table(judged: Judged) -> Table:
    columns = ("rule", *StressExpectation._fields, "holds")
    rows = [
        {"rule": name, **e._asdict(), "holds": e.holds} for name, one in judged.items() for e in one
    ]
    return Table("expectations", ("rule", "quantity"), columns, rows)


def _headroom_table(nearest: dict[str, Headroom]) -> Table:
    rows = [{"rule": name, **one._asdict()} for name, one in nearest.items()]
    return Table("headroom", ("rule",), ("rule", *Headroom._fields), rows)


def print_json(
    console: Console, found: Found, judged: Judged, nearest: dict[str, Headroom]
) -> None:
    """Prints the verdicts, expectations and headroom as `Results`."""
    tables = [diagnostics.stress_table(list(found.values())), _expected_table(judged)]
    tables += [_headroom_table(nearest)] if nearest else []
    results = diagnostics.record(tables, shlex.join(["scalex", *sys.argv[1:]]))
    console.print(results.to_json(), soft_wrap=True, markup=False, highlight=False, end="")


def _print_verdicts(console: Console, found: Found) -> None:
    headings = ("rule", "safe k", "below", "above", "largest", "infinite\ngradient")
    printed = _columns(*headings)
    for name, result in found.items():
        safe = result.safe
        printed.add_row(
            name,
            "nowhere" if safe is None else f"{safe.low} to {safe.high}",
            result.below,
            result.above,
            f"{result.excess:.3g}",
            result.infinity,
        )
    console.print(printed, markup=False, highlight=False)


def print_headroom(console: Console, nearest: dict[str, Headroom], model: str) -> None:
    """Prints how far a model is from each rule's lower edge; `model` says which, for people."""
    _say(console, "")
    _say(
        console,
        f"{model}, at first: the weight that is nearest to where the rule has lost 10 % of its "
        "update.",
    )
    headings = ("rule", "weight", "gradient", "edge", "octaves\nabove", "10 % lost\nat width")
    printed = _columns(*headings)
    for rule, one in nearest.items():
        lost = f"{one.lost_at:.2g}" if one.lost_at < _ANY_WIDTH else f"> {_ANY_WIDTH:.0e}"
        sizes = (f"2^{one.gradient:.1f}", f"2^{one.edge:.1f}", f"{one.octaves:.1f}")
        printed.add_row(rule, one.weight.removesuffix("/weight"), *sizes, lost)
    console.print(printed, markup=False, highlight=False)


def print_differences(console: Console, first: Results, second: Results) -> int:
    """Prints what differs; 1 if anything does."""
    _say(console, f"first: {first.device.chip}, {first.date}")
    _say(console, f"second: {second.device.chip}, {second.date}")
    differences = diagnostics.compare(first, second)
    for table in differences:
        _say(console, "")
        _say(console, table.name)
        for cell in table.cells:
            keys = ", ".join(shown(cell[k]) for k in cell if k not in ("column", "first", "second"))
            values = f"{shown(cell['first'])} | {shown(cell['second'])}"
            _say(console, f"  {keys}: {cell['column']}: {values}")
        for name, rows in (("first", table.only_first), ("second", table.only_second)):
            for row in rows:
                _say(console, f"  only in the {name}: {', '.join(map(shown, row.values()))}")
    if not differences:
        _say(console, "no difference beyond the tables' tolerances")
    return int(bool(differences))


def _columns(*names: str) -> Printed:
    table = Printed(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for number, name in enumerate(names):
        table.add_column(name, overflow="fold", no_wrap=number == 0)
    return table


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False)
