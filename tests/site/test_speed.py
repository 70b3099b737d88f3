"""The tables of the page on speed are those of the committed measurements."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/speed.md").read_text(encoding="utf-8")
MEASURED = json.loads((ROOT / "docs/results/sweep_speed.json").read_text(encoding="utf-8"))
PROFILE = json.loads((ROOT / "docs/results/sweep_profile.json").read_text(encoding="utf-8"))


def spread(found: dict[str, float]) -> str:
    median, least, greatest = (
        f"{x:,.0f}" if x >= 100 else f"{x:.3g}"
        for x in (found[name] for name in ("median", "least", "greatest"))
    )
    return f"{median} ({least} to {greatest})"


def rows_of_steps() -> list[str]:
    by_width: dict[int, dict[str, Any]] = {}
    for row in MEASURED["steps"]:
        by_width.setdefault(row["width"], {})[row["build"]] = row
    found = []
    for width, builds in by_width.items():
        now = builds["now"]
        ratios = [
            spread(builds[other]["now_to_this"]) if other in builds else ""
            for other in ("before", "loop")
        ]
        cells = [str(width), spread(now["milliseconds"]), spread(now["share"]), *ratios]
        found.append("| " + " | ".join(cells) + " |")
    return found


def rows_of_models() -> list[str]:
    return [
        f"| {row['width']} | {row['depth']} | {row['at_once']} | {spread(row['models_an_hour'])} | "
        f"{spread(row['share'])} |"
        for row in MEASURED["rates"]
    ]


def rows_of_the_profile() -> list[str]:
    shares = PROFILE["widths"].values()
    kinds = sorted(next(iter(shares)), key=lambda kind: -sum(share[kind] for share in shares))
    return [
        f"| {kind} | " + " | ".join(f"{share[kind]:.0%}" for share in shares) + " |"
        for kind in kinds
    ]


def test_the_tables():
    for rows in (rows_of_steps(), rows_of_models(), rows_of_the_profile()):
        assert "\n".join(rows).replace(" |  |", " | |") in PAGE


def test_how_models_an_hour_grow():
    for size, exponent in MEASURED["models_an_hour_grow_as"].items():
        assert f"{size} to the power {exponent:+.2f}" in PAGE
