"""How often the coordinate check is wrong: false alarms on correct models, faults that it misses.

    python tests/power/coordinate_power.py [--checks 20] [--out docs/results/coordinate_power.json]

Each of the twelve correct combinations of parameterization and family, each correct model of
`used.py`, and each planted fault, is checked `--checks` times, with three seeds that no other check
uses. The combinations are those of the multilayer perceptron of
tests/diagnostics/test_coordinates.py. All are trained at widths 32, 64 and 128, for five steps of
64 examples. Writes the table that the docs show.
"""

import argparse
import dataclasses
import functools
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import used
from deep import batch, loss
from scipy.stats import beta

import scalex_eqx as sx
from scalex_eqx.diagnostics import Results, Table, record
from scalex_eqx.diagnostics._coordinates._conflicts import conflicts
from scalex_eqx.diagnostics._coordinates._judge import SAMPLING_ERRORS, SHARP
from scalex_eqx.diagnostics._coordinates._law import laws, optimizer_parts
from scalex_eqx.diagnostics._coordinates._models import Over, shapes
from scalex_eqx.diagnostics._coordinates._report import judge
from scalex_eqx.diagnostics._coordinates._run import Measurements, measure

BASE, WIDTHS, SEEDS, STEPS = 32, (32, 64, 128), 3, 5
LEAST_DROP = 0.02
OPTIMIZERS = {
    "sgd": sx.sgd(0.3),
    "adam": sx.adam(0.01),
    "adafactor": sx.adafactor(0.03, min_factored_size=16),
}
PARAMETERIZATIONS = (sx.standard, sx.ntk, sx.mup, sx.mean_field)


class Perceptron(eqx.Module):
    layers: tuple[Any, ...]
    multiplied: bool = eqx.field(static=True)

    def __init__(self, width: int, key: Any, multiplied: bool = True):
        keys = jax.random.split(key, 4)
        self.layers = (
            sx.nn.Linear(8, width, key=keys[0]),
            sx.nn.Linear(width, width, key=keys[1]),
            sx.nn.Linear(width, width, key=keys[2]),
            sx.nn.Readout(width, 4, key=keys[3]),
        )
        self.multiplied = multiplied

    def __call__(self, x: Any) -> Any:
        for layer in self.layers[:-1]:
            x = jnp.tanh(layer(x))
        return self.layers[-1](x) if self.multiplied else self.layers[-1].weight.value @ x


def build(law: Any, width: int, key: Any, multiplied: bool = True, **options: Any) -> Any:
    return sx.parameterize(
        lambda width: Perceptron(width, key, multiplied),
        width=width,
        base_width=BASE,
        parameterization=law,
        **options,
    )


def doubled(width: int, key: Any) -> Any:
    def where(model: Any) -> Any:
        return model.layers[1].weight.value

    model = build(sx.standard, width, key)
    return eqx.tree_at(where, model, replace_fn=lambda w: w * (width / BASE) ** -0.5)


def labelled(law: Any, path: str, role: str) -> Any:
    return functools.partial(build, law, roles={path: role}, force=True)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and optimizer, and the weights that may be named if something is wrong with it."""

    build: Any
    tx: Any
    culprits: tuple[str, ...] = ()
    loss: Any = loss
    batch: Any = batch


def layers(*numbers: int) -> tuple[str, ...]:
    return tuple(f"layers/{number}/weight" for number in numbers)


ADAM = OPTIMIZERS["adam"]
CORRECT = {
    f"{law.name}, {name}": Case(functools.partial(build, law), tx)
    for law in PARAMETERIZATIONS
    for name, tx in OPTIMIZERS.items()
}
STANDARD = functools.partial(build, sx.standard)
FAULTS = {
    "one learning rate for all (standard, adam)": Case(
        STANDARD, sx.adam(0.01, sx.global_rate), layers(1, 2, 3)
    ),
    "a hidden weight labelled embedding (standard, adam)": Case(
        labelled(sx.standard, "layers/2/weight", "embedding"), ADAM, layers(2)
    ),
    "the readout labelled hidden (muP, sgd)": Case(
        labelled(sx.mup, "layers/3/weight", "hidden"), OPTIMIZERS["sgd"], layers(3)
    ),
    "a doubled init exponent (standard, adam)": Case(doubled, ADAM, layers(1)),
    "a missing multiplier (muP, adam)": Case(
        functools.partial(build, sx.mup, multiplied=False), ADAM, layers(3)
    ),
    "coupled decay (standard, adamw)": Case(
        STANDARD, sx.adamw(0.01, 0.1, decay_mode="coupled"), layers(1, 2, 3)
    ),
}
BY_USE = {
    f"{name} ({law.name}, {family})": Case(
        used.builder(kind, law, BASE), OPTIMIZERS[family], loss=kind.loss, batch=used.batch
    )
    for name, kind in used.RIGHT.items()
    for law, family in ((sx.standard, "adam"), (sx.mup, "sgd"))
}
FAULTS |= {
    f"{name} (muP, adam)": Case(
        used.builder(kind, sx.mup, BASE), ADAM, (kind.culprit,), kind.loss, used.batch
    )
    for name, kind in used.WRONG.items()
}


def of_seeds(found: Measurements, start: int) -> Measurements:
    """What was measured with three of the seeds."""
    part = slice(start, start + SEEDS)

    def cut(by_width: Any) -> Any:
        return [seeds[part] for seeds in by_width]

    return dataclasses.replace(
        found,
        seeds=found.seeds[part],
        uses={step: cut(uses) for step, uses in found.uses.items()},
        gradients=cut(found.gradients),
        last_gradients=cut(found.last_gradients),
        moved=cut(found.moved),
        decay=cut(found.decay),
        peaks=cut(found.peaks),
        losses=found.losses[:, part],
    )


def checks(
    case: Case, count: int, first: int, sizes: Sequence[int] = WIDTHS, over: Over = "width"
) -> list[Any]:
    seeds = range(first, first + count * SEEDS)
    models = shapes(case.build, sizes, over)
    chain = optimizer_parts(models[-1], case.tx)
    law = laws(sizes, models, chain, None, None, over)
    known = conflicts(case.loss, case.batch, models, law, chain, over)
    found = measure(
        case.build,
        case.loss,
        case.tx,
        case.batch,
        widths=sizes,
        models=models,
        seeds=seeds,
        steps=(1, STEPS),
        over=over,
    )
    return [judge(of_seeds(found, SEEDS * i), law, LEAST_DROP, known=known) for i in range(count)]


def strays(checks: list[Any]) -> dict[str, float]:
    """How far each measured exponent is from what it is meant to be, at the furthest."""
    found: dict[str, list[float]] = {}
    for row in (row for check in checks for row in check.rows):
        law, matrix = row.law, row.law.role in ("embedding", "hidden", "readout")
        if row.initial is not None:
            off = abs(row.initial.value + float(law.size))
            allowed = SHARP + SAMPLING_ERRORS * row.sampling
            found.setdefault("initial size, of its tolerance", []).append(off / allowed)
        if row.update is not None and row.update_expected is not None:
            found.setdefault("first update", []).append(abs(row.update.value - row.update_expected))
        if row.gradient is not None and matrix:
            off = abs(row.gradient.value + float(law.gradient))
            found.setdefault("first gradient", []).append(off)
        if row.input is not None and law.role in ("hidden", "readout"):
            found.setdefault("first input", []).append(row.input.value)
        if row.change is not None and row.change_explained is not None:
            change = row.change.value
            beyond = change - max(row.change_explained, 0.0)
            found.setdefault("change, beyond what is explained", []).append(beyond)
            beyond = change - max(row.change_assumed, 0.0)
            found.setdefault("change, beyond what is assumed", []).append(beyond)
    return {name: max(values) for name, values in found.items()}


def upper_bound(events: int, trials: int) -> float:
    """The upper 95 % bound of a rate (Clopper and Pearson)."""
    return float(beta.ppf(0.95, events + 1, trials - events))


def write(
    arguments: argparse.Namespace, rows: list[dict[str, Any]], strayed: list[dict[str, Any]]
) -> Table:
    """Writes what there is so far; the table of how far correct models stray."""
    columns = ("case", "planted", "checks", "rejected", "inconclusive", "culprit named")
    table = Table("coordinate check", ("case",), columns, rows)
    furthest: dict[str, float] = {}
    for row in strayed:
        furthest[row["exponent"]] = max(furthest.get(row["exponent"], -math.inf), row["furthest"])
    most = [{"exponent": name, "furthest": stray} for name, stray in furthest.items()]
    table_of_all = Table("how far correct models stray", ("exponent",), tuple(most[0]), most)
    of_cases = Table("by case", ("case", "exponent"), ("case", "exponent", "furthest"), strayed)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    command = f"python tests/power/coordinate_power.py --checks {arguments.checks}"
    results = record([table, table_of_all, of_cases], command)
    arguments.out.write_text(results.to_json(), encoding="utf-8")
    return table_of_all


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checks", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("docs/results/coordinate_power.json"))
    parser.add_argument("--only", default="", help="a regular expression for names of cases")
    parser.add_argument("--add", type=Path, nargs="*", default=[], help="results of other cases")
    arguments = parser.parse_args()
    # These models are small: compiling them takes far longer than training them.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    rows, strayed = [], []
    for path in arguments.add:
        earlier = Results.from_json(path.read_text(encoding="utf-8"))
        rows += earlier.table("coordinate check").rows
        strayed += earlier.table("by case").rows
    for number, (name, case) in enumerate({**CORRECT, **BY_USE, **FAULTS}.items()):
        if not re.search(arguments.only, name):
            continue
        made = checks(case, arguments.checks, number * arguments.checks * SEEDS)
        verdicts = [check.verdict for check in made]
        named = sum(
            check.findings[:1] != () and check.findings[0].weight in case.culprits for check in made
        )
        rows.append(
            {
                "case": name,
                "planted": bool(case.culprits),
                "checks": len(made),
                "rejected": verdicts.count("rejected"),
                "inconclusive": verdicts.count("inconclusive"),
                "culprit named": named if case.culprits else None,
            }
        )
        print(rows[-1], flush=True)
        if case.culprits:
            continue
        strayed += [
            {"case": name, "exponent": exponent, "furthest": stray}
            for exponent, stray in strays(made).items()
        ]
        for check in made:
            if check.verdict != "passes":
                print("   ", check.summary, flush=True)
    right = [row for row in rows if not row["planted"]]
    wrong = [row for row in rows if row["planted"]]
    alarms, total = (sum(row[name] for row in right) for name in ("rejected", "checks"))
    print(f"false alarms: {alarms} of {total}, at most {upper_bound(alarms, total):.1%} (95 %)")
    named, planted = (sum(row[name] for row in wrong) for name in ("culprit named", "checks"))
    print(f"faults missed: {planted - named} of {planted}")
    print(write(arguments, rows, strayed).to_markdown())


if __name__ == "__main__":
    main()
