"""Makes a page of each results file in `numerics/results`, and tables with a column a device.

A new results file appears on the site without anyone writing a page.
"""

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, InclusionLevel

RESULTS = Path(__file__).parents[2] / "numerics/results"
_PICTURE = re.compile(r"^!\[(.+)\]\((.+)\)\n*", re.MULTILINE)
_MARKER = re.compile(r"<!-- devices: ([a-z ]+) -->")


def on_files(files, *, config):
    for path in sorted(RESULTS.glob("*.md")):
        name, text = path.stem, path.read_text(encoding="utf-8")
        pictures = dict(_PICTURE.findall(text))
        page = f"devices/{name}.md"
        files.append(
            File.generated(
                config,
                page,
                content=arranged(text, pictures, _read(path.with_suffix(".json"))),
                inclusion=InclusionLevel.NOT_IN_NAV,
            )
        )
        for picture in pictures.values():
            source = str(RESULTS / picture)
            files.append(File.generated(config, f"devices/{picture}", abs_src_path=source))
    return files


def on_page_markdown(markdown: str, *, page, **_) -> str:
    def table(match: re.Match[str]) -> str:
        if match[1] not in _TABLES:
            raise PluginError(f"{page.file.src_uri}: no such table: {match[0]}")
        return _TABLES[match[1]]()

    return _MARKER.sub(table, markdown)


def arranged(text: str, pictures: dict[str, str], results: dict[str, Any]) -> str:
    """The report with its device as title, and each picture in front of its room's tables."""
    text = _PICTURE.sub("", text).replace("# Measured numerics", f"# {_device(results)}", 1)
    for room, picture in pictures.items():
        place = re.search(rf"^## {room}\b", text, re.MULTILINE) or re.search("^## ", text, re.M)
        start = place.start() if place else len(text)
        shown = f"![What was measured: {room}]({picture})\n\n"
        text = text[:start] + shown + text[start:]
    return text


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _all() -> dict[str, dict[str, Any]]:
    return {path.stem: _read(path) for path in sorted(RESULTS.glob("*.json"))}


def _is_compiled(results: dict[str, Any]) -> bool:
    """Whether no device has executed it."""
    return results["device"]["platform"] == "compiled"


def _device(results: dict[str, Any]) -> str:
    if _is_compiled(results):
        return "Compiled for TPUs and CUDA GPUs"
    return f"{results['device']['chip']} ({results['device']['platform']})"


def _list() -> str:
    executed_first = sorted(_all().items(), key=lambda entry: _is_compiled(entry[1]))
    rows = [
        f"| [{_device(results)}](devices/{name}.md) | {results['date']} | "
        f"{results['versions']['jax']} |"
        for name, results in executed_first
    ]
    return "\n".join(["| results | date | JAX |", "|---|---|---|", *rows])


def _beside(name: str, keys: dict[str, str], value) -> str:
    """A table that all devices have, with a column for each; `keys` are headings by key."""
    devices = {device: results for device, results in _all().items() if not _is_compiled(results)}
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for device, results in devices.items():
        (table,) = (table for table in results["tables"] if table["name"] == name)
        for row in table["rows"]:
            rows.setdefault(tuple(str(row[key]) for key in keys), {})[device] = value(row)
    heads = [*keys.values(), *(_device(results) for results in devices.values())]
    lines = [[*key, *(cells.get(device, "") for device in devices)] for key, cells in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in [heads, ["---"] * len(heads), *lines])


def _found(row: dict[str, Any]) -> str:
    found = row["found"]
    return {True: "yes", False: "no"}[found] if isinstance(found, bool) else str(found)


_TABLES = {
    "list": _list,
    "capabilities": lambda: _beside("capabilities", {"capability": "capability"}, _found),
    "safe scales": lambda: _beside(
        "optimizers: verdicts",
        {"rule": "rule", "gradient": "gradient", "gradient_dtype": "in"},
        lambda row: f"2^{row['safe_low']} to 2^{row['safe_high']}",
    ),
}
