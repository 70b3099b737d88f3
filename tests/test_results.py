"""The figures that README and docs print are those of the committed transfer run."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scalex_eqx as sx
from scalex_eqx.cli._commands import Transfer
from scalex_eqx.experiments import Run, analyse
from scalex_eqx.experiments._axes import AXES, Axis
from scalex_eqx.experiments._decide import MOST_SEEDS, Search, decide
from scalex_eqx.experiments._fits import to_json

ROOT = Path(__file__).parents[1]
RESULTS = json.loads((ROOT / "docs/results/transfer.json").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs/transfer.md").read_text(encoding="utf-8")
ANALYSES = {analysis["recipe"]: analysis for analysis in RESULTS["analyses"]}
# Texts, counts and flags are compared as they are. The numbers come from parabolas by least
# squares, in which each BLAS kernel adds in its own order. Losses that are wrong by a share of e,
# each with a random sign, moved the numbers of the committed runs by 120 e, and of one shallow
# bowl by 360 e. A fit is some ten roundings of 2^-53 deep: 10 x 360 x 2^-53 = 4e-13.
ROUNDING = 1e-12


def test_the_run_is_the_default_one():
    facts, default = RESULTS["facts"], Transfer()
    assert facts["recipes"] == ", ".join(default.recipes)
    assert facts["widths"].startswith(", ".join(map(str, default._asked().sizes)))
    assert facts["learning rates"] == ", ".join(default.learning_rates)
    assert facts["seeds"] == ", ".join(map(str, default.seeds))
    assert f"{default.steps} steps of 4 x 64 tokens" in facts["training"]
    # Those of the text, which the command gives if nothing else is asked for.
    assert (default.batch_size, default.sequence_length) == (None, None)


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """The paths at which two analyses differ by more than rounding."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        pairs = [(key, one[key], other[key]) for key in one]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = [(str(i), *pair) for i, pair in enumerate(zip(one, other, strict=True))]
    elif isinstance(one, float) and isinstance(other, float):
        return [] if abs(one - other) <= ROUNDING else [path]
    else:
        return [] if one == other else [path]
    return [found for key, a, b in pairs for found in differences(a, b, f"{path}/{key}")]


def analysed(results: Any, loss: Callable[[float], float] = lambda loss: loss) -> list[Any]:
    """The analyses that the stored runs lead to."""
    runs = [Run.from_json(run) for run in results["runs"]]
    runs = [
        dataclasses.replace(run, held_out_loss=run.held_out_loss and loss(run.held_out_loss))
        for run in runs
    ]
    return [to_json(analysis) for analysis in analyse(runs, axis=axis_of(results))]


def axis_of(results: Any) -> Axis:
    """The size that a sweep was over."""
    return next(axis for axis in AXES.values() if axis.names in results["analyses"][0])


def test_the_verdicts_follow_from_the_runs():
    assert differences(analysed(RESULTS), RESULTS["analyses"]) == []


def test_other_losses_and_other_verdicts_are_found():
    found = differences(analysed(RESULTS, lambda loss: loss * (1 + 1e-10)), RESULTS["analyses"])
    assert "/0/best_loss" in found and "/1/widths/0/loss" in found
    other = [{**RESULTS["analyses"][0], "verdict": "transfers"}, *RESULTS["analyses"][1:]]
    assert differences(analysed(RESULTS), other) == ["/0/verdict"]
    assert differences(analysed(RESULTS), RESULTS["analyses"][:1]) == [""]


def test_one_rate_drifts_and_full_alignment_transfers_and_ends_lower():
    one, full = ANALYSES["standard:adam:global"], ANALYSES["standard:adam:full"]
    assert one["verdict"] == "drifts"
    assert one["drift"]["exponent"] <= -0.5
    assert full["verdict"] == "transfers"
    low, high = full["drift"]["interval"]
    assert abs(full["drift"]["exponent"]) <= 0.25
    assert (high - low) / 2 <= 0.25
    assert full["best_loss"] < one["best_loss"]


def test_the_slope_agrees_with_an_independent_fit():
    """Parabolas through three points and one regression over all seeds, by `numpy.polyfit`."""
    for recipe, analysis in ANALYSES.items():
        widths, optima = [], []
        for width in (64, 128, 256):
            for seed in range(4):
                curve = sorted(
                    (np.log2(run["learning_rate"]), run["held_out_loss"])
                    for run in RESULTS["runs"]
                    if (run["recipe"], run["width"], run["seed"]) == (recipe, width, seed)
                )
                best = min(range(len(curve)), key=lambda i: curve[i][1])
                around = np.array(curve[best - 1 : best + 2])
                a, b, _ = np.polyfit(around[:, 0], around[:, 1], 2)
                widths.append(np.log2(width))
                optima.append(-b / (2 * a))
        assert np.polyfit(widths, optima, 1)[0] == pytest.approx(
            analysis["drift"]["exponent"], abs=1e-6
        )


@pytest.mark.parametrize("recipe", ANALYSES)
def test_the_page_prints_the_run(recipe):
    analysis = ANALYSES[recipe]
    for summary in analysis["widths"]:
        row = (
            f"| {summary['width']} | 2^{summary['log2_learning_rate']:.2f} "
            f"± {summary['log2_spread']:.2f} | {summary['loss']:.4f} "
            f"± {summary['loss_spread']:.4f} |"
        )
        assert row in PAGE
    (low, high), (cheap, dear) = analysis["drift"]["interval"], analysis["reuse"]["interval"]
    assert (
        f"| `{recipe}` | {analysis['drift']['exponent']:.3f} [{low:+.3f}, {high:+.3f}] | "
        f"{analysis['reuse']['cost']:.4f} [{cheap:+.4f}, {dear:+.4f}] | {analysis['verdict']} |"
    ) in PAGE


@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("transfer", "adam_atan2"),
        ("transfer", "relative"),
        ("choosing", "parameterizations"),
        ("sizes", "depth"),
        ("sizes", "batch"),
        ("sizes", "muon"),
    ],
)
def test_the_page_prints_the_other_runs(page, name):
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    results = json.loads((ROOT / f"docs/results/transfer_{name}.json").read_text(encoding="utf-8"))
    assert differences(analysed(results), results["analyses"]) == []
    for analysis in results["analyses"]:
        interval = analysis["drift"]["interval"]
        # Of one seed there is none.
        said = "" if interval is None else " [{:+.2f}, {:+.2f}]".format(*interval)
        sizes = analysis[axis_of(results).names]
        rates = ", ".join(f"2^{x['log2_learning_rate']:.2f}" for x in sizes)
        assert (
            f"| `{analysis['recipe']}` | {rates} | {analysis['drift']['exponent']:+.2f}{said} | "
            f"{analysis['reuse']['cost']:.3f} | {analysis['best_loss']:.4f} | "
            f"{analysis['verdict']} |"
        ) in text


def test_per_layer_rates_need_full_alignment_in_either_parameterization():
    """What the page on choosing concludes: full transfers, none leaves half of the drift."""
    path = ROOT / "docs/results/transfer_parameterizations.json"
    analyses = json.loads(path.read_text(encoding="utf-8"))["analyses"]
    found = {analysis["recipe"]: analysis for analysis in analyses}
    for parameterization in ("standard", "mup"):
        one, full, none = (
            found[f"{parameterization}:adam:{rates}"] for rates in ("global", "full", "none")
        )
        assert (one["verdict"], full["verdict"], none["verdict"]) == (
            "drifts",
            "transfers",
            "drifts",
        )
        assert 0.4 < none["drift"]["exponent"] / one["drift"]["exponent"] < 0.7
    losses = {recipe: analysis["best_loss"] for recipe, analysis in found.items()}
    assert min(losses, key=lambda recipe: losses[recipe]) == "standard:adam:full"
    assert max(losses.values()) - min(losses.values()) < 0.035


def test_the_readme_prints_the_run():
    for analysis in ANALYSES.values():
        low, high = analysis["drift"]["interval"]
        rates = ", ".join(f"2^{w['log2_learning_rate']:.2f}" for w in analysis["widths"])
        assert (
            f"| {rates} | {analysis['drift']['exponent']:.2f} [{low:+.2f}, {high:+.2f}]: "
            f"{analysis['verdict']} | {analysis['reuse']['cost']:.3f} | "
            f"{analysis['best_loss']:.4f} |"
        ) in README


@pytest.mark.parametrize("text", [README, PAGE])
def test_hardware_date_and_data_are_named(text):
    facts = RESULTS["facts"]
    digest = re.search(r"sha256 (\w+)", facts["data"])
    assert digest is not None
    assert digest[1] in text
    words = " ".join(text.split())
    assert f"{len(RESULTS['runs'])} runs in {facts['training time'].split()[0]} s" in words
    assert "two cores of an AMD EPYC, 22 November 2026" in words


def test_the_page_on_diagnostics_prints_the_measured_recipe():
    path = ROOT / "docs/results/transfer-measured.json"
    [analysis] = json.loads(path.read_text(encoding="utf-8"))["analyses"]
    page = (ROOT / "docs/diagnostics.md").read_text(encoding="utf-8")
    for name, one in {
        "as measured": analysis,
        "full alignment": ANALYSES["standard:adam:full"],
    }.items():
        low, high = one["drift"]["interval"]
        rates = ", ".join(f"2^{w['log2_learning_rate']:.2f}" for w in one["widths"])
        last = one["widths"][-1]
        assert (
            f"| {name} | {rates} | {one['drift']['exponent']:.2f} [{low:+.2f}, {high:+.2f}] | "
            f"{last['loss']:.4f} ± {last['loss_spread']:.4f} |"
        ) in page


def test_the_page_on_numerics_prints_the_results_of_a_cpu():
    text = (ROOT / "numerics/results/cpu-amd-epyc.json").read_text(encoding="utf-8")
    results = sx.diagnostics.Results.from_json(text)
    page = (ROOT / "docs/numerics.md").read_text(encoding="utf-8")
    rows = results.table("training: held-out loss").by_key()
    for name, rule in {
        "Adam, epsilon 1e-8": "adam, eps 1e-8",
        "Adam, epsilon 1e-12": "adam",
        "Adafactor, epsilon 0": "adafactor, eps 0",
        "Adam-atan2": "adam_atan2",
        "Lion": "lion",
    }.items():
        [row] = [row for key, row in rows.items() if key[:2] == (rule, "float32")]
        losses = [row[f"loss x 2^{power}"] for power in (0, -20, -40, -60)]
        assert f"| {name} | {' | '.join(f'{loss:.2f}' for loss in losses)} |" in page
    for row in results.table("optimizers: second moment after a drop").rows:
        assert f"| {row['update']:.2f} |" in page


def results_of(name: str, table: str) -> list[Any]:
    text = (ROOT / f"docs/results/{name}.json").read_text(encoding="utf-8")
    return list(sx.diagnostics.Results.from_json(text).table(table).rows)


def test_the_page_on_blocks_prints_its_results():
    page = (ROOT / "docs/blocks.md").read_text(encoding="utf-8")

    def line(name: str, row: Any, columns: tuple[str, ...]) -> str:
        numbers = ("-" if row[c] is None else f"{row[c] + 0.0:+.2f}" for c in columns)
        return " | ".join(("|", name, *numbers))[2:]

    models = ("plain", "grouped", "fixed", "smaller", "experts")
    for row in results_of("feature_changes", "feature changes"):
        if row["parameterization"] == "mup":
            assert line(row["output"], row, models) in page
    columns = ("output", "change", "gradient of down", "gradient of router")
    for row in results_of("expert_sizes", "expert sizes"):
        assert line(row["what grows"], row, columns) in page
    for row in results_of("block_checks", "gated blocks"):
        assert f"| {row['case']} | {row['verdict']} | {row['first named'] or ''} |" in page
        expected = "passes" if row["planted"] is None else "rejected"
        assert row["verdict"] == expected
        assert str(row["first named"]).startswith(row["planted"] or "None")


def test_the_page_on_fine_tuning_prints_its_results():
    """And says of the best rates what the numbers say."""
    page = (ROOT / "docs/fine-tuning.md").read_text(encoding="utf-8")
    drifts: dict[str, list[float]] = {"law": [], "one rate": []}
    for row in results_of("adapters", "rates"):
        cells = [f"| {row['width']}"]
        for name, found in drifts.items():
            found.append(row[f"{name}: log2 of the best"])
            cells += [f"{found[-1]:.2f}", f"{row[f'{name}: loss']:.4f}"]
        assert " | ".join(cells) + " |" in page
    assert np.ptp(drifts["law"]) < 0.25
    assert drifts["one rate"][0] - drifts["one rate"][-1] > 1
    for row in results_of("adapters", "changes"):
        assert f"| {row['change of']} | {row['law']:+.2f} | {row['one rate']:+.2f} |" in page
    for row in results_of("adapters", "ranks"):
        after = " | ".join(f"{row[f'after {steps}']:+.2f}" for steps in (1, 16))
        assert f"| {row['factor']} | {after} |" in page


def test_the_page_on_packages_prints_its_table():
    """No role that is read from the use is wrong, and no option is needed."""
    page = (ROOT / "docs/packages.md").read_text(encoding="utf-8")
    rows = results_of("packages", "packages")
    columns = ("arrays", "asked", "options", "wrong", "options with use", "wrong with use")
    for row in rows:
        counts = " | ".join(str(row[column]) for column in columns)
        base = "bitwise" if row["bitwise"] else "other"
        line = f"| {row['package']} | {row['model']} | {counts} | {base} | {row['check']} |"
        assert line in page.splitlines()
        assert row["bitwise"] and row["check"] in ("passes", "inconclusive")
        assert row["wrong with use"] == row["options with use"] == 0
    assert len({row["package"] for row in rows}) >= 8
    assert len([line for line in page.splitlines() if line.count("|") == 11]) == 2 + len(rows)


def test_the_page_on_theory_prints_the_exponents_of_sizes():
    """And what it says of those that are outside of their tolerance, and of planted faults."""
    page = (ROOT / "docs/theory.md").read_text(encoding="utf-8")
    quantities = ("spread", "adam", "adafactor", "sgd", "gradient", "cross-entropy")
    worst: dict[str, list[float]] = {}
    for row in results_of("size_exponents", "furthest from the law"):
        found = worst.setdefault(row["case"], [0.0] * len(quantities))
        worst[row["case"]] = [
            max(before, row[name]) for before, name in zip(found, quantities, strict=True)
        ]
    for case, values in worst.items():
        assert f"| {case} | {' | '.join(f'{value:.2f}' for value in values)} |" in page
    tolerances = {"spread": 0.03, "adam": 0.03, "adafactor": 0.03, "sgd": 0.1, "gradient": 0.1}
    rows = results_of("size_exponents", "exponents")
    judged = [row for row in rows if row["quantity"] in tolerances]
    outside = [
        row for row in judged if abs(row["measured"] - row["law"]) > tolerances[row["quantity"]]
    ]
    assert f"{len(rows)} exponents" in page and f"{len(outside)} are outside" in page
    named = {"query/bias", "key/bias", "key_norm/gain"}
    assert {row["weight"].split("/", 2)[2] for row in outside} <= named
    faults = results_of("size_exponents", "planted faults")
    assert all(row["seen"] == row["exponents"] for row in faults)
    count = sum(row["exponents"] for row in faults)
    assert f"{count} of the {count} exponents" in page.replace("\n", " ")


POWER = json.loads((ROOT / "docs/results/decide_power.json").read_text(encoding="utf-8"))["rows"]
SMOOTH = ("quadratic", "kinked", "exponential")


def counted(way: str, noise: float, drift: float, shapes: tuple[str, ...]) -> list[Any]:
    """The rows of a case of the search's error rates, of either sign."""
    return [
        row
        for row in POWER
        if (row["way"], row["noise"], abs(row["drift"])) == (way, noise, abs(drift))
        and row["shape"] in shapes
        and row["place"] == -7.5
    ]


def shares(rows: list[Any]) -> list[str]:
    """Per cent of all their sweeps that end in each verdict."""
    sweeps = sum(row["sweeps"] for row in rows)
    found = [sum(row["transfers"] for row in rows)]
    found += [sum(row["drifts up"] + row["drifts down"] for row in rows)]
    found += [sum(row["cannot tell"] for row in rows)]
    return [f"{100 * count / sweeps:.1f}" for count in found]


def test_the_page_prints_the_error_rates_of_the_search():
    for noise in (1.0, 2.0):
        for drift in (0.0, 0.1, 0.25, -0.4, -0.7, -1.0):
            rows = counted("search", noise, drift, SMOOTH)
            name = "±0.25" if drift == 0.25 else f"{drift:g}"
            sweeps = sum(row["sweeps"] for row in rows)
            runs, work = (np.mean([row[x] for row in rows]) for x in ("runs", "work"))
            cells = " % | ".join(shares(rows))
            line = f"| {name} | {noise:g} x | {sweeps} | {cells} % | {runs:.0f} | {work:.2f} |"
            assert line in PAGE
    for shape in (*SMOOTH, "cliff"):
        ways = ("search", "uncorrected", "grid")
        cells = [" / ".join(shares(counted(way, 1.0, 0.25, (shape,)))[:2]) for way in ways]
        assert "| " + " | ".join(f"{cell} %" for cell in cells) + " |" in PAGE


def test_the_search_holds_its_error_rates_and_the_uncorrected_one_does_not():
    """In every case of 1,000 sweeps."""
    at_margin = [row for row in POWER if abs(row["drift"]) == 0.25]
    for row in at_margin:
        worst = max(row["transfers"], row["drifts up"], row["drifts down"]) / row["sweeps"]
        if row["way"] == "search":
            assert row["sweeps"] >= 1000 and worst <= 0.05
        elif row["way"] == "uncorrected":
            assert worst > 0.06
    clear = [row for row in POWER if row["way"] == "search" and row["drift"] in (0.0, -0.7, -1.0)]
    for row in clear:
        wrong = row["drifts up"] + (row["transfers"] if row["drift"] else row["drifts down"])
        assert wrong == 0
    edges = [row for row in POWER if row["shape"] in ("falling", "rising") or row["place"] != -7.5]
    assert [row["cannot tell"] for row in edges] == [row["sweeps"] for row in edges] == [1000] * 3


def test_the_page_prints_the_searched_run():
    """Its verdicts are those of the grid, and follow from its runs."""
    text = (ROOT / "docs/results/transfer_decided.json").read_text(encoding="utf-8")
    results = json.loads(text)
    assert len(results["runs"]) == sum(one["searched"]["runs"] for one in results["analyses"])
    for analysis in results["analyses"]:
        drift, found = analysis["drift"], analysis["searched"]
        assert analysis["verdict"] == ANALYSES[analysis["recipe"]]["verdict"]
        runs = [
            Run.from_json(run) for run in results["runs"] if run["recipe"] == analysis["recipe"]
        ]
        search = Search(
            (64, 128, 256),
            tuple(2.0**exponent for exponent in range(-10, -4)),
            tuple(range(MOST_SEEDS)),
            dict.fromkeys((64, 128, 256), 1.0),
        )
        decision = decide(search, runs)
        assert not decision.wanted and str(decision.verdict) == analysis["verdict"]
        assert decision.drift.exponent == pytest.approx(drift["exponent"], abs=ROUNDING)
        low, high = drift["interval"]
        assert (
            f"| `{analysis['recipe']}` | {drift['exponent']:+.2f} [{low:+.2f}, {high:+.2f}] | "
            f"{len(drift['by_seed'])} | {found['runs']} of 72 | {found['share']:.2f} | "
            f"{analysis['verdict']} |"
        ) in PAGE
