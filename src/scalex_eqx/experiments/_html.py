"""A report that is one file: it needs no network, and can be mailed."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from ._axes import WIDTH
from ._fits import RecipeAnalysis
from ._wording import cells, columns, conclusions, rules
from ._write import written_whole

_STYLE = """
:root { color-scheme: light dark; --text: #1c1e21; --faint: #5b6167; --line: #dcdfe3;
  --page: #ffffff; --box: #f5f6f8; --transfers: #00695c; --drifts: #b3400f; --cannot: #6a5200; }
@media (prefers-color-scheme: dark) { :root { --text: #e8eaed; --faint: #a3a9b0;
  --line: #3a3f45; --page: #16181b; --box: #202328; --transfers: #4fd1b5; --drifts: #ff9a6b;
  --cannot: #e3c565; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 54rem; padding: 1.25rem; background: var(--page);
  color: var(--text); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0.5rem 0 1.25rem; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 0.6rem; }
.verdict { border-left: 0.3rem solid var(--cannot); background: var(--box); margin: 0.6rem 0;
  padding: 0.6rem 0.9rem; border-radius: 0 0.4rem 0.4rem 0; }
.verdict b { color: var(--cannot); }
.transfers { border-color: var(--transfers); } .transfers b { color: var(--transfers); }
.drifts { border-color: var(--drifts); } .drifts b { color: var(--drifts); }
img { display: block; width: 100%; height: auto; background: #fff; border-radius: 0.5rem;
  margin-top: 1.5rem; border: 1px solid var(--line); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 0.75rem 0.35rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--faint); white-space: nowrap; }
.widths td:not(:last-child) { white-space: nowrap; }
pre { background: var(--box); padding: 0.8rem; border-radius: 0.4rem; overflow-x: auto; }
"""


def write_html(
    title: str,
    facts: Mapping[str, str],
    analyses: Sequence[RecipeAnalysis],
    picture: Path,
    path: Path,
    *,
    command: str = "",
) -> None:
    """Writes the report as one self-contained page.

    **Arguments:**

    - `title`: the heading.
    - `facts`: settings, data digest, hardware, date: whatever a reader needs to trust it.
    - `analyses`: from `analyse`.
    - `picture`: the PNG that `plot_transfer` wrote; it is embedded.
    - `path`: the page to write.
    - `command`: what rebuilds the report, if anything does.
    """
    axis = analyses[0].axis if analyses else WIDTH
    encoded = base64.b64encode(picture.read_bytes()).decode("ascii")
    body = [
        f"<h1>{escape(title)}</h1>",
        *map(_verdict, analyses),
        f'<img src="data:image/png;base64,{encoded}" alt="Held-out loss against learning rate, '
        f'a line for each {axis.noun} and a panel for each recipe">',
        *map(_recipe, analyses),
        "<h2>How it was judged</h2>",
        *(
            f"<p>{escape(rule)}</p>"
            for rule in rules(searched=any(one.searched for one in analyses), axis=axis)
        ),
        *(["<h2>Facts</h2>", pairs(list(facts.items()))] if facts else []),
        *(["<h2>Rebuild</h2>", f"<pre>{escape(command)}</pre>"] if command else []),
    ]
    with written_whole(path) as unfinished:
        unfinished.write_text(page(title, "\n".join(body)), encoding="utf-8")


def page(title: str, body: str) -> str:
    """A page that is one file."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _verdict(analysis: RecipeAnalysis) -> str:
    kind = analysis.verdict.split()[0]
    recipe, rest = escape(analysis.recipe), escape(analysis.sentence)
    # The recipe opens its sentence.
    return f'<p class="verdict {kind}"><b>{recipe}</b>{rest.removeprefix(recipe)}</p>'


def _recipe(analysis: RecipeAnalysis) -> str:
    header = "".join(f"<th>{escape(name)}</th>" for name in columns(analysis.axis))
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells(summary)) + "</tr>\n"
        for summary in analysis.sizes
    )
    return (
        f'<h2>{escape(analysis.recipe)}</h2>\n<div class="wide"><table class="widths">\n'
        f"<thead><tr>{header}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n"
        f"{pairs(conclusions(analysis))}"
    )


def pairs(entries: Sequence[tuple[str, str]]) -> str:
    """A table of names and values."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>\n'
        for name, value in entries
    )
    return f'<div class="wide"><table class="pairs"><tbody>\n{rows}</tbody></table></div>'
