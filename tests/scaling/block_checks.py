"""The coordinate check of a gated model with fixed key-value heads, rounded sizes and experts.

    python tests/scaling/block_checks.py [--out docs/results/block_checks.json]

Each parameterization is to pass with Adam, and muP with each update family; planted faults are to
be rejected with the culprit named first. The model is that of `_blocks.py`, at widths 16 and 64,
with two seeds and after two steps. Under SGD it has no experts: the gradient of one follows the
number of tokens that choose it, which two seeds don't average. Writes the table that the docs show.
"""

import argparse
import functools
from pathlib import Path
from typing import Any

from _blocks import check

import scalex_eqx as sx
from scalex_eqx.diagnostics import Table, record

PARAMETERIZATIONS = (sx.standard, sx.ntk, sx.mup, sx.mean_field)
RIGHT = {
    **{f"{law.name}, adam": (law, sx.adam(0.01), 3) for law in PARAMETERIZATIONS},
    "mup, adafactor": (sx.mup, sx.adafactor(0.03, min_factored_size=8), 3),
    "mup, sgd, without experts": (sx.mup, sx.sgd(0.3), 0),
}
ADAM_RATES = sx.theory.learning_rate_exponents(sx.standard, "adam", sx.full_alignment)
VALUE, ROUTER = "blocks/attention/value/weight", "blocks/mlp/router/weight"


def cases() -> dict[str, tuple[str | None, Any]]:
    """By name, who is to be named, and the check."""
    found: dict[str, tuple[str | None, Any]] = {
        name: (None, functools.partial(check, law, tx, experts=experts))
        for name, (law, tx, experts) in RIGHT.items()
    }
    wrong_router = sx.adam(0.01, {**ADAM_RATES, f"*/{ROUTER.partition('/')[2]}": 0})
    found["values taken for a readout (muP, adam)"] = (
        VALUE,
        functools.partial(check, sx.mup, role=None),
    )
    found["a router's rate without its fan-in (standard, adam)"] = (
        ROUTER,
        functools.partial(check, sx.standard, wrong_router),
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/results/block_checks.json"))
    arguments = parser.parse_args()
    rows = []
    for name, (culprit, run) in cases().items():
        found = run()
        first = found.findings[0].weight if found.findings else None
        rows.append(
            {
                "case": name,
                "planted": culprit,
                "verdict": found.verdict,
                "first named": first,
            }
        )
        print(rows[-1], flush=True)
        if (culprit is None) != (found.verdict == "passes"):
            print(found)
    table = Table("gated blocks", ("case",), ("case", "planted", "verdict", "first named"), rows)
    print(table.to_markdown())
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    command = "python tests/scaling/block_checks.py"
    arguments.out.write_text(record([table], command).to_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
