"""Which family every rule of Optax is of; writes docs/results/optax_rules.json.

    python tests/scaling/optax_rules.py --out docs/results/optax_rules.json

Two cores take a quarter of an hour. `--page docs/optax.md` puts the table into the page, and
`--only adan adam` measures these again and keeps the rest.
"""

import argparse
import warnings
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax
import optax
from optax import contrib

from scalex_eqx.diagnostics import MeasuredFamily, Results, Table, family, record

RATE = 1e-3
COMMAND = "python tests/scaling/optax_rules.py --out docs/results/optax_rules.json"
NAME = "optax rules"

_ALIASES = """
    adabelief adadelta adafactor adagrad adam adamax adamaxw adamw adan amsgrad fromage lamb lars
    lion nadam nadamw noisy_sgd novograd optimistic_adam_v2 optimistic_gradient_descent radam
    rmsprop rprop sgd sign_sgd signum sm3 yogi
"""
_SCALES = """
    adadelta adam adamax adan amsgrad belief distance_over_gradients factored_rms lbfgs lion
    novograd optimistic_gradient param_block_norm param_block_rms polyak radam rms rss sign sm3
    stddev trust_ratio yogi
"""
_CONTRIBUTED = "acprop ademamix adopt galore madgrad muon simplified_ademamix sophia"
_WITHOUT_RATE = "cocob dadapt_adamw dog dowg momo momo_adam prodigy"
_CONTRIBUTED_SCALES = "acprop ademamix adopt cocob galore simplified_ademamix"

NOT_MEASURED = {
    "optimistic_adam": "raises an error that names optimistic_adam_v2",
    "scale_by_learning_rate": "multiplies by a number",
    "scale_by_schedule": "multiplies by a number",
    "scale_by_zoom_linesearch": "measured within lbfgs",
}
"""Functions of Optax that are named as rules are, and why they are not here."""


def _dimensions(tree: Any) -> Any:
    return jax.tree.map(lambda x: contrib.MuonDimensionNumbers(), tree)


def _key(noisy: Callable[..., Any]) -> Any:
    return noisy(RATE, key=0)


def rules() -> dict[str, Any]:
    """Every rule, by the call that makes it."""
    found: dict[str, Any] = {}
    for name in _ALIASES.split():
        maker = getattr(optax, name)
        text = f"{name}(1e-3, key=0)" if name == "noisy_sgd" else f"{name}(1e-3)"
        found[text] = _key(maker) if name == "noisy_sgd" else maker(RATE)
    found |= {"polyak_sgd()": optax.polyak_sgd(), "lbfgs()": optax.lbfgs()}
    found |= {
        f"scale_by_{name}()": getattr(optax, f"scale_by_{name}")() for name in _SCALES.split()
    }
    found["scale_by_rprop(1e-3)"] = optax.scale_by_rprop(RATE)
    found["normalize_by_update_norm()"] = optax.normalize_by_update_norm()
    found["chain(sgd(1.0), scale_by_backtracking_linesearch(20))"] = optax.chain(
        optax.sgd(1.0), optax.scale_by_backtracking_linesearch(20)
    )
    found["chain(sgd(1e-3), contrib.reduce_on_plateau())"] = optax.chain(
        optax.sgd(RATE), contrib.reduce_on_plateau()
    )
    return found | {f"contrib.{text}": tx for text, tx in _contributed().items()}


def _contributed() -> dict[str, Any]:
    found: dict[str, Any] = {f"{n}(1e-3)": getattr(contrib, n)(RATE) for n in _CONTRIBUTED.split()}
    found |= {f"{n}()": getattr(contrib, n)() for n in _WITHOUT_RATE.split()}
    found |= {
        f"scale_by_{n}()": getattr(contrib, f"scale_by_{n}")() for n in _CONTRIBUTED_SCALES.split()
    }
    return found | {
        "scale_by_madgrad(1e-3)": contrib.scale_by_madgrad(RATE),
        "scale_by_muon(weight_dimension_numbers=...)": contrib.scale_by_muon(
            weight_dimension_numbers=_dimensions
        ),
        "muon(1e-3, consistent_rms=0.2)": contrib.muon(RATE, consistent_rms=0.2),
        "normalize()": contrib.normalize(),
        "schedule_free_sgd(1e-3)": contrib.schedule_free_sgd(RATE),
        "schedule_free_adamw(1e-3)": contrib.schedule_free_adamw(RATE),
        "schedule_free(sgd(1e-3), 1e-3)": contrib.schedule_free(optax.sgd(RATE), RATE),
        "mechanize(sgd(1.0))": contrib.mechanize(optax.sgd(1.0)),
        "sam(sgd(1e-3), chain(normalize(), sgd(0.05)))": contrib.sam(
            optax.sgd(RATE), optax.chain(contrib.normalize(), optax.sgd(0.05))
        ),
        "dpsgd(1e-3, 1.0, 0.1, 0)": contrib.dpsgd(RATE, 1.0, 0.1, 0),
        "differentially_private_aggregate(1.0, 0.1, 0)": contrib.differentially_private_aggregate(
            1.0, 0.1, 0
        ),
        "split_real_and_imaginary(adam(1e-3))": contrib.split_real_and_imaginary(optax.adam(RATE)),
    }


def row(rule: str, found: MeasuredFamily) -> dict[str, Any]:
    """What the table keeps of a rule."""
    return {
        "rule": rule,
        "family": None if found.family is None else found.family.name,
        "p": _number(found.gradient.together),
        "p between layers": _number(found.gradient.between),
        "p first": _number(found.gradient.first),
        "q": _number(found.weight.together),
        "q between layers": _number(found.weight.between),
        "scope": found.gradient.scope,
        "scope at 128": found.shape.scope,
        "weight scope": found.weight.scope,
        **{f"p at {scale:g}": round(x, 3) for scale, x in found.slopes.items()},
        "low": found.reach.low,
        "high": found.reach.high,
        "below": found.reach.below,
        "above": found.reach.above,
        "weight low": found.weight_reach.low,
        "norm": found.shape.norm,
        "fan-in": _number(found.shape.fan_in),
        "fan-out": _number(found.shape.fan_out),
        "both": _number(found.shape.both),
        "rank": round(found.shape.rank, 2),
        "vector": ", ".join(map(_number, found.vector)),
        "first": round(found.first[0], 2),
        "first of a vector": round(found.first[1], 2),
        "every": found.period,
        "decay": found.decay,
        "without gradient": found.without_gradient,
        "wander": found.wander[0],
        "wander in bfloat16": found.wander[1],
        "zero first": found.zero_first,
        "zero weight": found.zero_weight,
        "bytes": round(found.state_bytes, 3),
        "why none": "; ".join(found.reasons),
    }


def _number(x: Any) -> str:
    return f"{x:.3f}" if isinstance(x, float) else str(x)


def measured(names: list[str] | None, kept: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each rule; those that aren't asked for as they are."""
    found = []
    for text, tx in rules().items():
        name = text.split("(")[0].removeprefix("contrib.")
        if names and name not in names and text in kept:
            found.append(kept[text])
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(row(text, family(tx, layout="in, out")))
        print(text, found[-1]["family"], found[-1]["p"], found[-1]["q"], flush=True)
    return found


HEAD = ("rule", "family", "p", "together", "q", "holds down to", "bytes", "what else")


def page_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table of the page, a line each."""
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    for row in rows:
        degrees = [
            _both(row, "p", row["p between layers"]),
            _LOOKS.get(row["scope"], row["scope"]),
            _both(row, "q", row["q between layers"]),
        ]
        family = "none" if row["family"] is None else row["family"]
        cells = [f"`{row['rule']}`", family, *degrees, _low(row), f"{row['bytes']:.3g}"]
        lines.append(f"| {' | '.join([*cells, '; '.join(_else(row))])} |")
    return lines


_LOOKS = {"tensor": "weight", "tree": "all"}


def _both(row: Mapping[str, Any], name: str, between: str) -> str:
    together = row[name]
    if together == between or abs(float(Fraction(together)) - float(Fraction(between))) <= 0.02:
        return together
    return f"{together} of all, {between} between layers"


def _low(row: Mapping[str, Any]) -> str:
    return "" if row["low"] <= 1e-15 else f"{row['low']:.1e}"


def _else(row: Mapping[str, Any]) -> list[str]:
    """What is unusual, as short as it goes."""
    said = (
        [row["why none"]]
        if row["family"] is None and "number for all" not in row["why none"]
        else []
    )
    if row["p first"] not in (row["p"], "nan"):
        said.append(f"p {row['p first']} in the first update")
    if row["family"] is not None and row["norm"] == "spectral":
        said.append(f"spectral, o {row['fan-in']} in fan-in, {row['fan-out']} in fan-out")
    elif {row["fan-in"], row["fan-out"]} - {"0", "nan"}:
        said.append(f"o {row['fan-in']} in fan-in, {row['fan-out']} in fan-out")
    if _together(row) != row["both"]:
        said.append(f"o {row['both']} where both grow")
    if row["every"] > 1:
        said.append(f"moves every {row['every']} steps")
    if row["zero first"] != "as usual":
        said.append(f"first gradient zero: {row['zero first']}")
    if row["zero weight"] != "as usual":
        said.append(f"weight zero: {row['zero weight']}")
    if row["decay"]:
        said.append(f"decay {row['decay']:.1e}")
    elif row["wander"] > 1e-6:
        said.append(f"without gradient moves weights by {row['wander']:.1e}")
    if row["wander in bfloat16"] > max(1e-3, 10 * row["wander"]):
        said.append(f"without gradient moves bfloat16 by {row['wander in bfloat16']:.1e}")
    return said


def _together(row: Mapping[str, Any]) -> str:
    """The offset that both fans together have if it is a power of each."""
    fans = [row["fan-in"], row["fan-out"]]
    return "nan" if "nan" in fans else str(sum(map(Fraction, fans)))


def write_page(page: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Puts the table in the place of the one that is there."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start = lines.index(f"| {' | '.join(HEAD)} |")
    end = next(i for i in range(start, len(lines)) if not lines[i].startswith("|"))
    text = "\n".join([*lines[:start], *page_lines(rows), *lines[end:]])
    page.write_text(text + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--page", type=Path, help="put the table of OUT into this page, and end")
    arguments = parser.parse_args()
    kept = {}
    if arguments.page is not None:
        results = Results.from_json(arguments.out.read_text(encoding="utf-8"))
        write_page(arguments.page, results.table(NAME).rows)
        return
    if arguments.only and arguments.out.exists():
        old = Results.from_json(arguments.out.read_text(encoding="utf-8"))
        kept = {str(row["rule"]): row for row in old.table(NAME).rows}
    rows = measured(arguments.only, kept)
    table = Table(NAME, ("rule",), tuple(rows[0]), rows)
    arguments.out.write_text(record([table], COMMAND).to_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
