"""The page's table of costs is that of the committed results."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
CASES = json.loads((ROOT / "docs/results/per_example_cost.json").read_text(encoding="utf-8"))[
    "cases"
]
NAMES = {
    "mlp": "MLP, of examples",
    "tokens": "Transformer, of tokens",
    "examples": "Transformer, of examples",
}


def table() -> str:
    rows = ["| | | time | temporaries |", "|---|---|---|---|"]
    for case, name in NAMES.items():
        if case not in CASES:
            continue
        for arm, found in CASES[case]["arms"].items():
            low, median, high = (f"{x:.3g}" for x in found["ratio"])
            memory = f"{found['temporaries ratio']:.3g}"
            rows.append(f"| {name} | {arm} | {median} ({low} to {high}) | {memory} |")
    return "\n".join(rows)


def test_the_table():
    assert table() in (ROOT / "docs/per-example.md").read_text(encoding="utf-8")
