"""Runs the page docs/start.md as it stands, and draws docs/images/digits.png.

    python docs/figures/start.py

It also prints the page's table of losses by learning rate.
"""

import contextlib
import re
import shutil
import tempfile
from pathlib import Path

import jax.numpy as jnp
from sklearn.datasets import load_digits

DOCS = Path(__file__).parents[1]
RATE, DECAY = "0.02", "weight_decay=2e-6"


def blocks():
    text = (DOCS / "start.md").read_text(encoding="utf-8")
    return re.findall(r"^```python[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def last_loss(script, epochs=3):
    """The loss of the last batch, of either of the two scripts at the top."""
    page: dict = {"__name__": "start"}
    exec(script, page)
    digits = load_digits()
    x, y = jnp.asarray(digits.data / 16, jnp.float32), jnp.asarray(digits.target)
    model, state, value = page["model"], page["state"], None
    for _ in range(epochs):
        for i in range(0, len(x), 128):
            model, state, value = page["step"](model, state, x[i : i + 128], y[i : i + 128])
    return float(value)


def table():
    before, after = blocks()[:2]
    for rate in (0.003, 0.01, 0.02, 0.04):
        plain = before.replace(RATE, str(rate))
        scaled = after.replace(RATE, str(rate)).replace(DECAY, f"weight_decay={rate * 1e-4}")
        scripts = (plain, plain.replace("make(64)", "make(1024)"), scaled)
        print("|", rate, *(f"| {last_loss(script):.2f}" for script in scripts), "|")


def main():
    table()
    page: dict = {"__name__": "start"}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for block in blocks():
            exec(block, page)
        shutil.copy("digits/transfer.png", DOCS / "images/digits.png")


if __name__ == "__main__":
    main()
