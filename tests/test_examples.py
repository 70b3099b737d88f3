"""The scripts in examples/ run, at a small size, and show what they say they show."""

import importlib.util
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import scalex_eqx as sx

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PAGE = ROOT / "docs/examples.md"
NEEDS = {
    "digits": "sklearn",
    "own_problem": "scalex_eqx.experiments",
    "text": "scalex_eqx.experiments",
    "equinox_model": "sklearn",
    "flax_parameters": "flax",
    "bfloat16": "sklearn",
    "convert_model": "sklearn",
}


@pytest.fixture(autouse=True)
def as_users_run_them() -> Iterator[None]:
    """Optax and Flax promote dtypes and ranks, which the other tests forbid."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def load(name: str) -> Any:
    """The script as a module, or a skipped test."""
    pytest.importorskip(NEEDS[name], reason="needs pip install 'scalex_eqx[examples]'")
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_script_is_on_the_page():
    text = PAGE.read_text(encoding="utf-8")
    scripts = {path.stem for path in EXAMPLES.glob("*.py")}
    assert scripts == set(NEEDS)
    assert set(re.findall(r"^python examples/(\w+)\.py$", text, re.MULTILINE)) == scripts
    # Each says how it is run, and nothing else.
    for name in scripts:
        source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
        assert re.findall(r"^    python (\S+)$", source, re.MULTILINE) == [f"examples/{name}.py"]


def test_excerpts_exist():
    text = PAGE.read_text(encoding="utf-8")
    excerpts = re.findall(r'--8<-- "examples/(\w+)\.py:(\w+)"', text)
    assert {name for name, _ in excerpts} == set(NEEDS)
    for name, section in excerpts:
        source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
        assert f"# --8<-- [start:{section}]" in source and f"# --8<-- [end:{section}]" in source


def test_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rates = (2**-6, 2**-3)
    picture = tmp_path / "new" / "digits.png"
    found = load("digits").main(
        widths=(8, 128), learning_rates=rates, seeds=2, steps=30, picture=str(picture)
    )
    (one, one_accuracy), (layers, accuracy) = found.values()
    assert one.shape == layers.shape == accuracy.shape == (2, 2, 2)
    # At the base width both are the same model. Far from it, one learning rate is too large.
    assert np.array_equal(one[0], layers[0]) and np.array_equal(one_accuracy[0], accuracy[0])
    assert layers[0].mean(-1).argmin() == layers[1].mean(-1).argmin() == 1
    assert one[1].mean(-1).argmin() == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    cost = one[1, 1] - one[1, 0]
    assert f"{cost.mean():.4f} ± {cost.std(ddof=1) / math.sqrt(2):.4f}" in capsys.readouterr().out


def test_own_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "runs"
    one, layers = load("own_problem").main(
        widths=(8, 16), learning_rates=(2**-8, 2**-5, 2**-2), seeds=(0,), steps=5, folder=folder
    )
    # At the base width both are the same training.
    assert one.sizes[0].loss == layers.sizes[0].loss
    assert {path.name for path in folder.iterdir()} >= {"runs.sqlite", "transfer.png"}
    printed = capsys.readouterr().out
    assert printed.index("standard:adam:global") < printed.index("standard:adam:full")


def test_text(capsys: pytest.CaptureFixture[str]):
    found = load("text").main(
        widths=(16, 64), depth=1, learning_rate=2**-4, steps=20, batch_size=4, windows=8
    )
    layers, one = found["per-layer rates"], found["one learning rate"]
    assert layers[16] == one[16]
    assert layers[64] < one[64] < math.log(256)
    assert 3 < found["frequencies"] < 3.5
    printed = capsys.readouterr().out
    assert 0 < printed.index("fingerprint") < printed.index("training loss")


def test_equinox_model():
    found = load("equinox_model").main(base_width=4, width=16, learning_rates=(2**-5,), steps=5)
    ((narrow, plain, scaled),) = found["losses"].values()
    assert found["same"] == pytest.approx(narrow, abs=1e-4)
    assert abs(scaled - plain) > 1e-2


def test_flax_parameters():
    example = load("flax_parameters")
    found = example.main(base_width=16, width=32, learning_rates=(2**-5,), steps=5)
    plain, scaled = found["wide"].values()
    assert min(plain, scaled) > 0 and abs(plain - scaled) > 1e-3

    roles = {
        path.removeprefix("params/"): str(weight.spec.role)
        for path, weight in sx.weights_with_paths(example.build(32, 16, sx.mup)).items()
    }
    matrices = {path: role for path, role in roles.items() if role not in ("vector", "constant")}
    assert matrices == {
        "pixels/kernel": "embedding",
        "positions": "embedding",
        **{f"attention/{name}/kernel": "hidden" for name in ("query", "key", "value", "out")},
        "readout/kernel": "readout",
    }
    example.LAYOUTS.clear()
    with pytest.raises(ValueError, match="params/positions: shape"):
        example.build(32, 16, sx.mup)


def test_bfloat16():
    found = load("bfloat16").main(width=32, base_width=16, learning_rates=(2**-11,), steps=100)
    exact = found["Adam-atan2, float32"][0, 0]
    lost = found["Adam-atan2, bfloat16"][0, 0] - exact
    assert lost > 0.05
    for kept in ("Kahan", "master copy"):
        assert abs(found[f"Adam-atan2, bfloat16, {kept}"][0, 0] - exact) < 0.1 * lost
    for name, (plain, scaled) in found.items():
        assert np.array_equal(plain, scaled) == name.startswith("Adam-atan2")


def test_convert_model():
    found = load("convert_model").main(width=32, base_width=8, steps=20)
    follows, constant = found["eps follows the law"], found["eps is constant"]
    assert len(follows["standard"]) == 10
    assert follows["difference"] < 1e-12
    assert constant["difference"] > 1e4 * follows["difference"]
    assert "eps of scale_by_adam" in found["refusal"]
