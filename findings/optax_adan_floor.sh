#!/bin/sh
# optax 0.2.8, jax 0.10.2: `optax.adan` has a default `eps_root` of 1e-8, `optax.scale_by_adan` one of
# 0, and Optax's other rules of Adam's kind have 0 in both. Beside a square of the gradient that is a
# gradient of 1e-4, where one would look for an epsilon of 1e-8. Large models have gradients below
# that: `optax.adan` then moves their weights as SGD does, hundreds of times less far than
# `optax.scale_by_adan` with the same learning rate, without an error or a warning.
#
# Seen, the size of the first update at learning rate 1 for a gradient of 1e-6:
#   optax.adan 0.01, optax.scale_by_adan 0.99, optax.adam 0.99
#
# Exits with another status than 0 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    optax==0.2.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import sys

import jax.numpy as jnp
import optax

gradient = jnp.asarray([1e-6])
rules = {
    "optax.adan": optax.adan(1.0),
    "optax.scale_by_adan": optax.scale_by_adan(),
    "optax.adam": optax.adam(1.0),
}
found = {}
for name, tx in rules.items():
    updates, _ = tx.update(gradient, tx.init(gradient), gradient)
    found[name] = abs(float(updates[0]))
print(", ".join(f"{name} {size:.2g}" for name, size in found.items()))
holds = found["optax.adan"] < 0.02 and min(found["optax.scale_by_adan"], found["optax.adam"]) > 0.9
sys.exit(not holds)
PYTHON
