"""The sections of the documentation that errors name, as they are installed."""

import re
import sys
from pathlib import Path

from ._pages import Section, topic

# Beside the package where it was installed from a wheel, and in a checkout the pages themselves.
_PLACES = (Path(__file__).parent / "_docs", Path(__file__).parents[2] / "docs")
_FENCE = re.compile(r"^(```.*?^```$)", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#+) (.*)$", re.MULTILINE)


def topics() -> dict[str, Section]:
    """All that can be explained, by name."""
    return {topic(section): section for section in Section}


def explanation(section: Section) -> str:
    """The section as Markdown, from its heading to the next of its rank.

    **Raises:** `LookupError` if the page was not installed, or has no such section.
    """
    page, _, anchor = section.partition("#")
    text = _page(page.removeprefix("docs/"))
    # Comments in blocks of code look like headings.
    blanked = _FENCE.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), text)
    headings = list(_HEADING.finditer(blanked))
    for position, heading in enumerate(headings):
        if slug(text[heading.start(2) : heading.end(2)]) == anchor:
            rank = len(heading[1])
            later = headings[position + 1 :]
            end = next((one.start() for one in later if len(one[1]) <= rank), len(text))
            return text[heading.start() : end].strip() + "\n"
    raise LookupError(f"{page} has no section {anchor}")


def heading(section: Section) -> str:
    """The section's heading, without marks."""
    return explanation(section).splitlines()[0].lstrip("# ").replace("`", "")


def slug(text: str) -> str:
    """The anchor that Python-Markdown's table of contents gives to a heading."""
    kept = re.sub(r"[^\w\s-]", "", text).strip().lower()
    return re.sub(r"[-\s]+", "-", kept)


def print_plainly(name: str = "") -> int:
    """Prints a section as Markdown, or the list of them; returns the exit code.

    Needs nothing but the standard library, so that errors can be looked up everywhere.
    """
    if not name:
        print(listing())
        return 0
    if name not in topics():
        print(f"scalex: {unknown(name)}", file=sys.stderr)
        return 2
    print(explanation(topics()[name]), end="")
    return 0


def listing() -> str:
    """The names of all topics, with their headings."""
    width = max(map(len, topics()))
    return "\n".join(f"{name:{width}}  {heading(one)}" for name, one in topics().items())


def unknown(name: str) -> str:
    """What is said of a name that is no topic."""
    return f"nothing is called {name!r}; choose from {', '.join(topics())}"


def _page(name: str) -> str:
    for place in _PLACES:
        path = place / name
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise LookupError(f"docs/{name} was not installed with this package")
