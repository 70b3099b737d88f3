"""Makes the tables of the evidence page from the files that its commands write.

`<!-- evidence: NAME -->` becomes a table: of a group's rows, of its claims, of alignment, or the
line that says where and when.
"""

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

RESULTS = Path(__file__).parents[1] / "results"
_MARKER = re.compile(r"<!-- evidence: ([a-z ]+) -->")


def on_page_markdown(markdown: str, *, page, **_) -> str:
    def table(match: re.Match[str]) -> str:
        if match[1] not in TABLES:
            raise PluginError(f"{page.file.src_uri}: no such table: {match[0]}")
        return TABLES[match[1]]()

    return _MARKER.sub(table, markdown)


def _read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def _table(heads: list[str], lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [heads, ["---"] * len(heads), *lines])


def ablations() -> str:
    """What the paper says of each row, by its criterion and by ours."""
    heads = [
        "what differs",
        "the paper",
        "its best",
        "by its criterion",
        "drift exponent p",
        "here, by p",
        "best loss at 128",
        "lost, gained, extrapolated",
    ]
    lines = []
    for row in _rows("ablations"):
        says = row["says"] or "no verdict"
        answer = f"**{row['answer']}**" if row["answer"] else ""
        if row["exploratory"]:
            answer += " (exploratory)"
        coarse = ", ".join(_power(octave) for octave in row["coarse"].values())
        lines.append(
            [
                row["name"],
                says,
                coarse,
                _criterion(row),
                _drift(row),
                f"{row['verdict']}: {answer}" if answer else row["verdict"],
                _loss(row),
                _useful(row),
            ]
        )
    return _table(heads, lines)


def _group(name: str) -> str:
    heads = [
        "row",
        "best rates",
        "drift exponent p",
        "verdict",
        "best loss at 128",
        "lost, gained, extrapolated",
    ]
    lines = [
        [
            row["name"],
            ", ".join(_power(rate) for rate in row["best rate"].values()),
            _drift(row),
            row["verdict"],
            _loss(row),
            _useful(row),
        ]
        for row in _rows(name)
    ]
    return _table(heads, lines)


def _claims(group: str) -> str:
    lines = []
    for one in _read("evidence.json")["claims"]:
        if one["group"] == group:
            means = [f"{m[0]:+.3f} [{m[1]:+.3f}, {m[2]:+.3f}]" for m in one["means"] if m]
            said = "; ".join(means) or one["reason"]
            kind = "p" if one["of"] == "exponent" else "nats"
            lines.append([one["claim"], one["source"], f"{said} ({kind})", f"**{one['answer']}**"])
    return _table(["claim", "source", "measured", "answer"], lines)


def _rows(group: str) -> list[dict[str, Any]]:
    return [row for row in _read("evidence.json")["rows"] if row["group"] == group]


def _power(octave: float | None) -> str:
    return "diverged" if octave is None else f"{octave:.3g}"


def _criterion(row: dict[str, Any]) -> str:
    """The paper's own verdict on our losses."""
    best = set(row["coarse"].values())
    if None in best:
        return "diverged"
    return "transfers" if len(best) == 1 else "fails"


def _drift(row: dict[str, Any]) -> str:
    if row["exponent"] is None:
        return row["reason"].split(";")[0]
    low, high = row["interval"]
    return f"{row['exponent']:+.2f} [{low:+.2f}, {high:+.2f}]"


def _loss(row: dict[str, Any]) -> str:
    loss = row["best loss"][max(row["best loss"], key=int)]
    return "diverged" if loss is None else f"{loss:.3f}"


def _useful(row: dict[str, Any]) -> str:
    """What the rate of the second largest width costs at the largest, what that one gains, and what
    the rate on the line through the smaller ones costs."""
    found = row["useful"]
    lost, gained = found["lost"][-1]["value"], found["gained"][-1]["value"]
    if lost is None or gained is None:
        return found["verdict"]
    line = found["extrapolated"]["value"]
    beyond = "not tried" if line is None else f"{line:.3f}"
    return f"{lost:.3f}, {gained:.3f}, {beyond}: {found['verdict']}"


def notes() -> str:
    found = [(row["name"], row["note"]) for row in _read("evidence.json")["rows"] if row["note"]]
    return "\n".join(f"- *{name}*: {note}." for name, note in found)


def facts() -> str:
    read = _read("evidence.json")
    hours = sum(row["seconds"] for row in read["rows"]) / 3600
    device, versions, sizes = read["device"], read["versions"], read["sizes"]
    runs = sum(len(x) for row in read["rows"] for w in row["losses"].values() for x in w.values())
    return (
        f"{len(read['rows'])} rows, {runs:,} runs, widths {', '.join(map(str, sizes['widths']))}, "
        f"{len(sizes['seeds'])} seeds: {hours:.1f} hours on {read['cores']} cores of an "
        f"{device['chip']} that had other work to do, {read['date']}, Python "
        f"{versions['python']}, JAX {versions['jax']}."
    )


def recipes() -> str:
    """Which recipe and study every row is."""
    lines = [
        [row["name"], row["study"], f"`{row['recipe']}`"] for row in _read("evidence.json")["rows"]
    ]
    return _table(["row", "model and schedule", "recipe"], lines)


def alignment() -> str:
    """By steps: the mean over matrices of each moment, and how far each preset is from it."""
    read = _read("evidence_alignment.json")
    lines = []
    for steps in sorted({row["steps"] for row in read["rows"]}):
        rows = [row for row in read["rows"] if row["steps"] == steps]
        means = [
            _mean([row[name]["value"] for row in rows if row[name]])
            for name in ("alpha", "omega", "u")
        ]
        prescribed = _mean([row["prescribed"] for row in rows])
        far = {
            preset: _mean([abs(row["prescribed"] - row[preset]) for row in rows])
            for preset in ("full", "none")
        }
        lines.append(
            [str(steps), *(f"{x:.2f}" for x in (*means, prescribed, far["full"], far["none"]))]
        )
    heads = ["steps", "alpha", "omega", "u", "prescribed c", "from full", "from none"]
    return _table(heads, lines)


def underflow() -> str:
    """What a constant epsilon costs at each width, and what the base width predicts."""
    read = _read("evidence_underflow.json")
    widths = [str(width) for width in read["sizes"]["widths"]]
    lines = []
    for row in read["rows"]:
        if "epsilon" in row:
            name = row["parameterization"].replace("_", "-")
            cells = [_cost(row["cost"][n], row["predicted"][n]) for n in widths]
            lines.append([name, f"{float(row['epsilon']):g}", *cells])
    return _table(["parameterization", "epsilon", *widths], lines)


def base_costs() -> str:
    base = _read("evidence_underflow.json")["rows"][0]["cost"]
    (costs,) = base.values()
    ordered = sorted(costs, key=float)
    return _table(
        ["epsilon", *(f"{float(eps):g}" for eps in ordered)],
        [["cost at width 32", *(f"{costs[eps][0]:+.3f}" for eps in ordered)]],
    )


def _cost(found: list[float], predicted: list[float | None]) -> str:
    mean, low, high = found
    least, most = ("beyond" if x is None else f"{x:+.3f}" for x in predicted)
    said = least if least == most else f"{least} to {most}"
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}], predicted {said}"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


TABLES = {
    "ablations": ablations,
    "epsilon": lambda: _group("epsilon"),
    "embedding": lambda: _group("embedding"),
    "decay": lambda: _group("decay"),
    "epsilon claims": lambda: _claims("epsilon"),
    "embedding claims": lambda: _claims("embedding"),
    "decay claims": lambda: _claims("decay"),
    "notes": notes,
    "facts": facts,
    "recipes": recipes,
    "alignment": alignment,
    "underflow": underflow,
    "base costs": base_costs,
}
