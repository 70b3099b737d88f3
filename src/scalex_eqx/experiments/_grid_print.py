"""A grid's outcome on the terminal."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ._grid_report import GridReport
from ._grid_words import ANSWER_STYLES, cells, columns, means, notes, rules_of


def print_grid(report: GridReport, console: Console) -> None:
    """Prints a table for each update rule, and the answer to each claim.

    **Arguments:**

    - `console`: anything from 80 columns on.
    """
    if report.missing:
        console.print(
            f"{report.missing} of {len(report.runs) + report.missing} runs are missing: the same "
            "`scalex sweep` command trains them",
            style="yellow",
        )
    for rule, rows in rules_of(report).items():
        title = Text(rule, style="bold")
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for place, name in enumerate(columns(report)):
            table.add_column(name, justify="right" if place else "left", no_wrap=not place)
        for place, row in enumerate(rows):
            table.add_row(*map(Text, cells(row)), end_section=place % 3 == 2)
        console.print(table)
        for note in notes(rows):
            console.print(Text(note, style="yellow"), soft_wrap=True)
    console.print(Text("\nWhat was published, and whether it holds here", style="bold"))
    for one in report.claims:
        console.print(Text(f"\n{one.claim.text} ({one.claim.published})"))
        line = f"{one.answer}: {one.reason}" if one.reason else str(one.answer)
        console.print(Text(f"  {line}", style=ANSWER_STYLES[one.answer]))
        for mean in means(one):
            console.print(Text(f"  {mean}", style="dim"))
