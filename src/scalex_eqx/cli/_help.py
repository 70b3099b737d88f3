"""What `--help` says of a command, from its docstring."""

import inspect
import textwrap

_WIDTH = 79


def summary(command: type) -> str:
    """The first paragraph: what it does."""
    return _paragraphs(command)[0]


def description(command: type) -> str:
    """All paragraphs, in lines that fit a terminal; examples stay in one piece."""
    return "\n\n".join(
        text if text.startswith("Example: ") else filled(text) for text in _paragraphs(command)
    )


def filled(text: str) -> str:
    """A paragraph in lines that fit a terminal."""
    # tyro joins the lines of a paragraph again, but for those that start with a space.
    return textwrap.fill(text, _WIDTH, subsequent_indent="  ")


def _paragraphs(command: type) -> list[str]:
    return [" ".join(text.split()) for text in (inspect.getdoc(command) or "").split("\n\n")]
