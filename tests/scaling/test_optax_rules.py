"""The table of Optax's rules is of all of them, is what was measured, and what formulas say."""

import inspect
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import optax
import pytest
from optax import contrib

from scalex_eqx.diagnostics import Results, family

from . import optax_rules

ROOT = Path(__file__).parents[2]
RESULTS = Results.from_json((ROOT / "docs/results/optax_rules.json").read_text(encoding="utf-8"))
ROWS: dict[str, Any] = {str(row["rule"]): row for row in RESULTS.table(optax_rules.NAME).rows}
PAGE = (ROOT / "docs/optax.md").read_text(encoding="utf-8")
# Between layers where the two differ.
TOLERANCE = 0.02

_ADAM = """
    adabelief adadelta adagrad adam adamax adamaxw adamw adan amsgrad lion nadam nadamw radam
    optimistic_adam_v2 rmsprop rprop sign_sgd signum sm3 yogi scale_by_adadelta scale_by_adam
    scale_by_adamax scale_by_adan scale_by_amsgrad scale_by_belief scale_by_lion scale_by_radam
    scale_by_rms scale_by_rss scale_by_sign scale_by_sm3 scale_by_stddev scale_by_yogi
    scale_by_rprop scale_by_factored_rms novograd scale_by_novograd contrib.acprop
    contrib.ademamix contrib.adopt contrib.muon contrib.scale_by_muon contrib.simplified_ademamix
    contrib.sophia contrib.schedule_free_adamw contrib.scale_by_acprop contrib.scale_by_ademamix
    contrib.scale_by_adopt contrib.scale_by_simplified_ademamix
"""
_SGD = """
    sgd noisy_sgd optimistic_gradient_descent scale_by_optimistic_gradient
    contrib.schedule_free_sgd contrib.schedule_free contrib.sam
"""
# In the gradient of all layers, between layers, and in the weight.
FORMULAS: dict[str, tuple[Any, Any, Any]] = {
    **dict.fromkeys(_ADAM.split(), (0, 0, 0)),
    **dict.fromkeys(_SGD.split(), (1, 1, 0)),
    **dict.fromkeys(["adafactor", "lamb", "lars", "fromage", "scale_by_trust_ratio"], (0, 0, 1)),
    **dict.fromkeys(["scale_by_param_block_rms", "scale_by_param_block_norm"], (1, 1, 1)),
    **dict.fromkeys(
        ["contrib.madgrad", "contrib.scale_by_madgrad"], (Fraction(1, 3), Fraction(1, 3), 0)
    ),
    **dict.fromkeys(["polyak_sgd", "scale_by_polyak", "contrib.momo", "contrib.dowg"], (0, 1, 0)),
    **dict.fromkeys(["contrib.normalize", "normalize_by_update_norm"], (0, 1, 0)),
}


def named(text: str) -> str:
    return text.split("(")[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_all_of_optax_is_there():
    public = {name for name in dir(optax) if name.startswith("scale_by_")}
    public |= {name for name, x in vars(optax).items() if _is_rule(x) and not name.startswith("_")}
    found = {named(text) for text in ROWS} | set(optax_rules.NOT_MEASURED)
    found.add("scale_by_backtracking_linesearch")
    assert public <= found and len(ROWS) >= 45
    own = {name for name in vars(contrib) if _is_rule(getattr(contrib, name))}
    inside = {"reduce_on_plateau"}
    assert {f"contrib.{name}" for name in own - inside} <= found
    assert list(ROWS) == list(optax_rules.rules())


def _is_rule(x: Any) -> bool:
    """Whether it makes an optimizer: Optax keeps them in files of their own."""
    if not inspect.isfunction(x):
        return False
    inside = x.__module__.startswith("optax.contrib.") or x.__module__ == "optax._src.alias"
    return inside and not re.search("eval_params|estimator", x.__name__)


def test_the_page_is_what_was_measured():
    assert "\n".join(optax_rules.page_lines(list(ROWS.values()))) in PAGE


@pytest.mark.parametrize("name", FORMULAS)
def test_degrees_are_those_of_the_formulas(name):
    rows = [row for text, row in ROWS.items() if named(text) == name]
    assert rows
    for row in rows:
        found = [float(Fraction(str(row[key]))) for key in ("p", "p between layers", "q")]
        np.testing.assert_allclose(found, [float(x) for x in FORMULAS[name]], atol=TOLERANCE)


def test_floors_are_those_of_the_constants():
    """Half is lost where eps outside of the root is the gradient, or that within it."""
    low = {text: row["low"] for text, row in ROWS.items()}
    # The second moment is 1.3 times the square of the scale, where it has settled.
    for text, eps in {"adam(1e-3)": 1e-8, "scale_by_adan()": 1e-8, "adan(1e-3)": 1e-4}.items():
        assert 0.4 * eps < low[text] < 1.1 * eps, text
    assert low["adan(1e-3)"] > 1e3 * low["scale_by_adan()"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("text", ["adan(1e-3)", "contrib.dog()"])
def test_a_row_is_measured_again(text):
    again = optax_rules.row(text, family(optax_rules.rules()[text], layout="in, out"))
    kept = dict(ROWS[text])
    words = ("family", "p", "p between layers", "q", "scope", "zero first", "fan-in", "fan-out")
    assert {key: again[key] for key in words} == {key: kept[key] for key in words}
    np.testing.assert_allclose(again["low"], kept["low"], rtol=0.01)


def test_what_is_known_of_single_rows():
    rows = {named(text): row for text, row in ROWS.items()}
    assert rows["contrib.dog"]["family"] is None and rows["contrib.momo"]["family"] is None
    after = {name for name, row in rows.items() if row["zero first"] == "NaN for good"}
    assert {"contrib.prodigy", "contrib.dadapt_adamw"} <= after
    times = {n: float(rows[n]["zero weight"].split()[0]) for n in ("lamb", "lars", "fromage")}
    assert 5 < times["lamb"] < 20 and times["lars"] > 1000 and times["fromage"] < 1e-5
    for name in ("contrib.schedule_free_sgd", "contrib.schedule_free_adamw"):
        assert rows[name]["wander in bfloat16"] > 1e-3 > 1e3 * rows[name]["wander"]
    # Of Muon's vectors the first update is NAdam's.
    first = {n: rows[n]["first of a vector"] for n in ("contrib.muon", "nadam", "adam")}
    assert (
        abs(first["contrib.muon"] / first["nadam"] - 1) < 0.02 < first["nadam"] / first["adam"] - 1
    )
