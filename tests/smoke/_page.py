"""Runs a page of the documentation as a reader would, with the standard library alone.

python tests/smoke/_page.py docs/start.md
"""

import contextlib
import io
import math
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A number in the sense of `near`: what stands around it is compared as text.
NUMBER = re.compile(r"([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)")

# Training of minutes is run at a smaller size: what stands on the page, and what runs.
SMALLER = {
    "start.md": {
        "widths=widths,\n    learning_rates": "widths=widths[:2],\n    learning_rates",
        "range(-10, -2)": "range(-8, -5)",
        "seeds=range(8)": "seeds=range(3)",
        "steps=40": "steps=4",
    }
}


def blocks(page: Path) -> list[tuple[str, str, int]]:
    """Language, content and first line of each fenced block."""
    text = page.read_text(encoding="utf-8")
    return [
        (match[1], match[2], text.count("\n", 0, match.start(2))) for match in BLOCK.finditer(text)
    ]


def near(shown: str, printed: str) -> bool:
    """Whether two texts differ in nothing but the last place of numbers, and there by one.

    Another processor, BLAS or JAX adds in another order. That moved spreads by 1e-7 of themselves,
    and losses after 45 steps of training by up to 2e-4 (without FMA and AVX). What is printed then
    moves by a unit of its last place where it lies beside a boundary of rounding, and by no more.
    Numbers of one digit and whole ones are the same everywhere.
    """
    one, other = NUMBER.split(shown), NUMBER.split(printed)
    if one[::2] != other[::2]:
        return False
    return all(a == b or _is_next(a, b) for a, b in zip(one[1::2], other[1::2], strict=True))


def _is_next(a: str, b: str) -> bool:
    digits = re.sub(r"e.*|\D", "", a).lstrip("0")
    if len(digits) < 2 or not re.search(r"[.e]", a):
        return False
    mantissa, _, power = a.partition("e")
    unit = 10.0 ** (int(power or 0) - len(mantissa.partition(".")[2]))
    return math.isclose(float(a), float(b), rel_tol=0, abs_tol=1.01 * unit)


def run(page: Path) -> None:
    """Runs the Python blocks, one after the other; each prints the text right behind it."""
    namespace: dict[str, Any] = {"__name__": f"page_{page.stem}"}
    printed: list[str] = []
    smaller = SMALLER.get(page.name, {})
    missing = [long for long in smaller if long not in page.read_text(encoding="utf-8")]
    if missing:
        raise AssertionError(f"{page} no longer has {', '.join(missing)}; see SMALLER")
    for language, content, line in blocks(page):
        if language == "python":
            for long, short in smaller.items():
                content = content.replace(long, short)
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile("\n" * line + content, page, "exec"), namespace)
            printed = output.getvalue().split()
        elif language == "text" and not near(" ".join(content.split()), " ".join(printed)):
            raise AssertionError(
                f"{page}:{line + 1} shows\n{content}\nand its block printed\n{' '.join(printed)}"
            )


if __name__ == "__main__":
    page = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        run(page)
