"""Runs the page docs/start.md as it stands, and draws docs/images/digits.png.

python docs/figures/start.py
"""

import os
import re
from pathlib import Path

DOCS = Path(__file__).parents[1]


def main():
    text = (DOCS / "start.md").read_text(encoding="utf-8")
    page: dict[str, object] = {"__name__": "start"}
    os.chdir(DOCS / "images")
    for block in re.findall(r"^```python[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        exec(block, page)


if __name__ == "__main__":
    main()
