import json
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scalex_eqx import diagnostics
from scalex_eqx.cli._commands import run
from scalex_eqx.diagnostics import Device, Results, Table

# A sweep of 40 scales, and rules that compile fast.
QUICK = ("--dtype", "float16", "--gradient", "constant")


@pytest.fixture
def scalex(monkeypatch, capsys):
    """What the command prints in a terminal of 80 columns, and on which line."""

    def call(*arguments: str, code: int = 0) -> str:
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(sys, "argv", ["scalex", "stress", *map(str, arguments)])
        assert run() == code
        output = capsys.readouterr()
        return output.err if code == 2 else output.out

    return call


def test_verdicts_headroom_and_picture(scalex, tmp_path):
    picture = tmp_path / "new" / "stress.png"
    text = scalex(
        *(
            "--optimizer",
            "sign_sgd",
            "--dtype",
            "float16",
            "--gradient",
            "noisy",
            "--width",
            "4096",
        ),
        *("--picture", picture),
    )
    assert max(map(len, text.splitlines())) <= 80
    assert "noisy gradients 2^k, all in float16" in " ".join(text.split())
    assert "All as the formulas and the number formats lead to expect." in text
    assert "A Transformer of width 4096, standard parameterization" in text
    # A hidden weight is the nearest: (64 / 4096)^(1/2) is three octaves.
    rows = [line.split() for line in text.splitlines() if line.startswith("sign_sgd")]
    assert len(rows) == 2 and rows[1][1].startswith(("blocks/", "position", "token"))
    assert float(rows[1][4]) > 0
    assert picture.read_bytes().startswith(b"\x89PNG")


PROBLEM = """
import equinox as eqx, jax, jax.numpy as jnp, numpy as np
from scalex_eqx.problems import Problem

def make(width, key):
    first, last = jax.random.split(key)
    return [
        eqx.nn.Linear(3, width, use_bias=False, key=first),
        eqx.nn.Linear(width, 1, use_bias=False, key=last),
    ]

def loss(model, batch):
    return 2.0**-20 * jnp.sum(jax.vmap(lambda x: model[1](model[0](x)))(batch))

x = np.ones((4, 3), np.float32)
problem = Problem(make, loss, data=x, held_out=x, batch_size=4)
same = Problem(lambda width, key: make(4, key), loss, data=x, held_out=x, batch_size=4)
flat = Problem(make, lambda model, x: 0 * loss(model, x), data=x, held_out=x, batch_size=4)
late = Problem(make, lambda model, x: loss(model, x) / 0, data=x, held_out=x, batch_size=4)
vector = Problem(make, lambda model, x: x, data=x, held_out=x, batch_size=4)
"""


def test_the_width_of_a_problem_of_ones_own(scalex, tmp_path):
    """The readout's gradient at the base width is 2^-20 times the sum over examples of the hidden
    features, which are sums of the rows of the first matrix."""
    (tmp_path / "mine.py").write_text(PROBLEM, encoding="utf-8")
    own = ("--optimizer", "sign_sgd", *QUICK, "--base-width", "4", "--problem")
    asked = (*own, f"{tmp_path}/mine.py:problem", "--width", "16")
    # The path may be longer than a line.
    text = "".join(scalex(*asked).split())
    assert f"Themodelof{tmp_path}/mine.py:problemofwidth16,standard" in text
    rows = Results.from_json(scalex(*asked, "--json")).table("headroom").by_key()
    (found,) = rows.values()
    keys = jax.random.split(jax.random.key(0))
    first = np.asarray(eqx.nn.Linear(3, 4, use_bias=False, key=keys[0]).weight)
    last = np.asarray(eqx.nn.Linear(4, 1, use_bias=False, key=keys[1]).weight)
    features, before = 4 * 2.0**-20 * first.sum(1), 4 * 2.0**-20 * last
    sizes = {
        # In the standard parameterization gradients before the readout go as r^(-1/2).
        "0/weight": np.log2(np.sqrt(np.mean(before**2))) - 1,
        "1/weight": np.log2(np.sqrt(np.mean(features**2))),
    }
    assert found["gradient"] == pytest.approx(sizes[str(found["weight"])], abs=1e-3)
    refused = {
        "same": "same shapes at the widths 16 and 4",
        "flat": "every first gradient at width 4 is 0",
        "late": "the first gradient of 0/weight at width 4 is not finite",
        "vector": "the problem's loss returns float32[4, 3]; expected one real number",
        "none": "has no none; its problems are problem, same, flat, late, vector",
    }
    for name, said in refused.items():
        lines = scalex(*own, f"{tmp_path}/mine.py:{name}", "--width", "16", code=2).splitlines()
        assert len(lines) == 1 and said in lines[0]


def test_json_is_read_again_and_compared(scalex, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(scalex("--optimizer", "sign_sgd", *QUICK, "--json"))
    results = Results.from_json(path.read_text())
    (row,) = results.table("stress").rows
    assert row["rule"] == "sign_sgd" and row["gradient_dtype"] == "float16"
    assert all(one["holds"] for one in results.table("expectations").rows)
    assert results.command.startswith("scalex stress --optimizer sign_sgd")
    assert "no difference" in scalex("--compare", path, path)

    content = json.loads(path.read_text())
    content["tables"][0]["rows"][0]["safe_low"] = -7
    other = tmp_path / "b.json"
    other.write_text(json.dumps(content))
    text = scalex("--compare", path, other, code=1)
    found = row["safe_low"]
    assert f"sign_sgd, constant, float16, float16: safe_low: {found} | -7" in text


def test_rows_that_only_one_file_has(scalex, tmp_path):
    for name, keys in (("a", [1, 2]), ("b", [2, 3])):
        table = Table("t", ("k",), ("k",), [{"k": key} for key in keys])
        results = Results(Device(f"chip {name}", "cpu"), {}, "2020-01-01", "x", [table])
        (tmp_path / name).write_text(results.to_json())
    text = scalex("--compare", tmp_path / "a", tmp_path / "b", code=1)
    assert "first: chip a" in text and "second: chip b" in text
    assert "only in the first: 1" in text and "only in the second: 3" in text


def test_a_failed_expectation_is_printed_and_is_exit_code_1(scalex, monkeypatch):
    # sign_sgd, but three times larger for small gradients.
    faulty = optax.stateless(
        lambda g, _: jax.tree.map(
            lambda x: jnp.where(jnp.abs(x) < 2.0**-4, 3.0, 1.0).astype(x.dtype), g
        )
    )
    rules = dict(diagnostics.stress_rules)
    changed = type(rules["sign_sgd"])(lambda: faulty)
    monkeypatch.setattr(diagnostics, "stress_rules", rules | {"sign_sgd": changed})
    text = " ".join(scalex("--optimizer", "sign_sgd", *QUICK, code=1).split())
    assert "NOT AS EXPECTED: sign_sgd: full_low is -4" in text
    assert "NOT AS EXPECTED: sign_sgd: excess is 3" in text
    assert "saturates" in text


def test_a_rule_without_limits_is_measured_and_not_judged(scalex, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = "import optax\n\ndef make(learning_rate):\n    return optax.sign_sgd(learning_rate)\n"
    (tmp_path / "rule.py").write_text(made)
    rules = ("rule.py:make", "sgd(momentum=None)")
    text = " ".join(scalex("--optimizer", *rules, *QUICK).split())
    for rule in rules:
        assert f"{rule} was measured, and not held against an expectation." in text
    assert "All as the formulas" not in text


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--optimizer", "lamb"], "--optimizer has 'lamb'; give all alone, or some of adam"),
        (["--optimizer"], "--optimizer has no name"),
        (["--optimizer", "adam(eps='x')"], "--optimizer has adam: eps of adam is 'x'; expected a"),
        (["--optimizer", "adam(1)"], "has adam with an argument without a name"),
        (["--optimizer", "adamw"], "has adamw: adamw needs a weight_decay"),
        (["--optimizer", "optax.adann"], "optax.adann: optax has no 'adann'; did you mean adan"),
        (["--optimizer", "optax.adan(1, b9=2)"], "unexpected keyword argument 'b9'; it takes b1"),
        (["--optimizer", "optax.polyak_sgd", *QUICK], "has optax.polyak_sgd, which can't be run"),
        (["--parameterization", "sp"], "--parameterization is 'sp'; choose from standard, ntk"),
        (["--width", "100"], "--width has 100, which is not a positive multiple of --head-dim"),
        (["--width", "0"], "--width has 0"),
        (["--width", "64", "--base-width", "8"], "--base-width has 8, which is not a positive"),
        (["--problem", "digits"], "--problem is given, which is about a model; give --width too"),
        (["--base-width", "32"], "--base-width is given, which is about a model; give --width"),
        (["--compare", "/no/such", "/file"], "--compare has /no/such: No such file or directory"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(scalex, arguments, message):
    lines = scalex(*arguments, code=2).strip().splitlines()
    assert len(lines) == 1 and message in lines[0]


def test_a_foreign_file_is_refused(scalex, tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{}")
    assert "has no format" in scalex("--compare", path, path, code=2)
