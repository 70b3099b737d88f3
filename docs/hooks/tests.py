"""Turns `[text](tests/x.py::test_y)` into a link to that line of the test, shown on the site.

A test that is not there fails the build, so that no formula is said to be held by a test that
was renamed.
"""

import os
import re
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"\[([^\]]+)\]\((tests/[\w/]+\.py)::(\w+)\)")


def on_files(files, *, config):
    pages = [file for file in files.documentation_pages() if file.abs_src_path]
    texts = [Path(file.abs_src_path).read_text(encoding="utf-8") for file in pages]
    for path in sorted({link[2] for text in texts for link in _LINK.finditer(text)}):
        if (ROOT / path).is_file():
            hidden = InclusionLevel.NOT_IN_NAV
            page = File.generated(config, f"{path}.md", content=shown(path), inclusion=hidden)
            files.append(page)
    return files


def on_page_markdown(markdown: str, *, page, **_) -> str:
    folder = os.path.dirname(page.file.dest_uri) or "."

    def link(match: re.Match[str]) -> str:
        text, path, name = match.groups()
        line = line_of(name, ROOT / path)
        if line is None:
            raise PluginError(f"{page.file.src_uri}: there is no test {name} in {path}")
        # Markdown knows nothing of the lines of a code block.
        return f'<a href="{os.path.relpath(path, folder)}.html#__codelineno-0-{line}">{text}</a>'

    return _LINK.sub(link, markdown)


def line_of(test: str, path: Path) -> int | None:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = (i for i, line in enumerate(lines, 1) if line.startswith(f"def {test}("))
    return next(found, None)


def shown(path: str) -> str:
    """A page with the source, which the site's search leaves alone."""
    code = (ROOT / path).read_text(encoding="utf-8")
    head = f"---\ntitle: {path}\nsearch:\n  exclude: true\nhide:\n  - toc\n---\n\n"
    return f'{head}# {path}\n\n````python linenums="1"\n{code}````\n'
