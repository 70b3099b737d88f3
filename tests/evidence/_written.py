"""Results files: the numbers with where and when they are from."""

import json
import os
from pathlib import Path
from typing import Any

from scalex_eqx.diagnostics import record


def write(path: Path, command: str, content: dict[str, Any]) -> None:
    """Writes the content beside device, versions, command, date and cores, whole or not at all."""
    facts = json.loads(record([], command).to_json())
    head = {name: facts[name] for name in ("device", "versions", "command", "date")}
    text = json.dumps({**head, "cores": os.cpu_count(), **content}, indent=1, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)
