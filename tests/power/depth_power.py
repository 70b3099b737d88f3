"""How often the check over the depth is wrong: false alarms, and planted faults that it misses.

    python tests/power/depth_power.py [--checks 20] [--out docs/results/depth_power.json]

Right models of `deep.py` and each of its planted faults, at depths 2 and 8, `--checks` times, with
three seeds that no other check uses and five steps of 64 examples. Writes the table that the docs
show.
"""

import argparse
import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

from coordinate_power import SEEDS, Case, checks, upper_bound
from deep import ADAM, DEPTHS, FAULTS, Fault, batch, build, loss

import scalex_eqx as sx
from scalex_eqx.diagnostics import Table, record

RIGHT = {
    "alpha 1, adam": Fault(sx.mup.deep(1), ADAM, ()),
    "alpha 1/2, adam": Fault(sx.mup.deep("1/2"), ADAM, ()),
    "alpha 1/2, sgd": Fault(sx.mup.deep("1/2"), sx.sgd(0.3), ()),
}


# The least that a factor can be off by. The tests have those of alpha 1.
SMALLER = {
    f"{name}, alpha 1/2": dataclasses.replace(FAULTS[name], law=sx.mup.deep("1/2"))
    for name in ("a factor left out", "the depth counted twice")
}


def row(name: str, fault: Fault, count: int, first: int) -> dict[str, Any]:
    made_by = functools.partial(build, fault.law, **fault.options)
    case = Case(made_by, fault.tx, fault.culprits, loss, batch)
    made = checks(case, count, first, DEPTHS, "depth")
    verdicts = [check.verdict for check in made]
    named = sum(
        check.findings[:1] != () and check.findings[0].weight.startswith(fault.culprits)
        for check in made
    )
    found = {
        "case": name,
        "planted": bool(fault.culprits),
        "checks": len(made),
        "rejected": verdicts.count("rejected"),
        "inconclusive": verdicts.count("inconclusive"),
        "culprit named": named if fault.culprits else None,
    }
    print(found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checks", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("docs/results/depth_power.json"))
    arguments = parser.parse_args()
    # These models are small: compiling them takes far longer than training them.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    rows = [
        row(name, fault, arguments.checks, number * arguments.checks * SEEDS)
        for number, (name, fault) in enumerate({**RIGHT, **FAULTS, **SMALLER}.items())
    ]
    alarms, total = (
        sum(r[key] for r in rows if not r["planted"]) for key in ("rejected", "checks")
    )
    print(f"false alarms: {alarms} of {total}, at most {upper_bound(alarms, total):.1%} (95 %)")
    table = Table("check over the depth", ("case",), tuple(rows[0]), rows)
    print(table.to_markdown())
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    command = f"python tests/power/depth_power.py --checks {arguments.checks}"
    arguments.out.write_text(record([table], command).to_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
