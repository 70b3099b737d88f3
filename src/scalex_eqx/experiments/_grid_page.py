"""A grid's outcome as one page that needs no network."""

import base64
from html import escape
from pathlib import Path

from ._grid_report import GridReport
from ._grid_words import cells, columns, how, means, notes, rules_of
from ._html import page, pairs
from ._judged import Judged
from ._write import written_whole

_KINDS = {"holds here": "transfers", "doesn't hold here": "drifts", "can't be told": "cannot"}
_TITLE = "Parameterizations, update rules and rates"


def write_grid_page(report: GridReport, picture: Path, path: Path, *, command: str) -> None:
    """Writes the report as one self-contained page.

    **Arguments:**

    - `picture`: the PNG that `plot_grid` wrote; it is embedded.
    - `command`: what rebuilds the report.
    """
    encoded = base64.b64encode(picture.read_bytes()).decode("ascii")
    body = [
        f"<h1>{_TITLE}</h1>",
        *map(_claim, report.claims),
        f'<img src="data:image/png;base64,{encoded}" alt="Drift exponents of all recipes with '
        'their intervals, and losses at the largest width">',
        *(_rule(report, rule) for rule in rules_of(report)),
        "<h2>How it was judged</h2>",
        *(f"<p>{escape(paragraph)}</p>" for paragraph in how(report)),
        "<h2>Facts</h2>",
        pairs(list(report.facts.items())),
        "<h2>Rebuild</h2>",
        f"<pre>{escape(command)}</pre>",
    ]
    with written_whole(path) as unfinished:
        unfinished.write_text(page(_TITLE, "\n".join(body)), encoding="utf-8")


def _claim(one: Judged) -> str:
    found = "<br>".join(map(escape, (*([one.reason] if one.reason else []), *means(one))))
    return (
        f'<p class="verdict {_KINDS[one.answer]}"><b>{escape(one.answer)}</b>: '
        f"{escape(one.claim.text)} ({escape(one.claim.published)})<br><small>{found}</small></p>"
    )


def _rule(report: GridReport, rule: str) -> str:
    rows = rules_of(report)[rule]
    head = "".join(f"<th>{escape(name)}</th>" for name in columns(report))
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells(row)) + "</tr>\n"
        for row in rows
    )
    said = "".join(f"<p>{escape(note)}</p>\n" for note in notes(rows))
    return (
        f'<h2>{escape(rule)}</h2>\n<div class="wide"><table class="widths">\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}</tbody></table></div>\n{said}"
    )
