#!/bin/sh
# optax 0.2.8, jax 0.10.2: a first gradient of zero is valid input, as of a first batch that is masked
# as a whole. `optax.contrib.prodigy` and `optax.contrib.dadapt_adamw` then divide zero by zero and
# keep it: every weight is NaN for good, though all later gradients are usual ones.
# `optax.contrib.acprop` divides the second gradient by an epsilon of 1e-8, and moves a weight
# millions of times its learning rate in one step.
#
# Seen after gradients of 0, 1, 1, ... in ten steps at learning rate 1e-3, from a weight of 1:
#   prodigy nan, dadapt_adamw nan, acprop beyond 1000, adam 0.992
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
from optax import contrib

rules = {
    "prodigy": contrib.prodigy(1e-3),
    "dadapt_adamw": contrib.dadapt_adamw(1e-3),
    "acprop": contrib.acprop(1e-3),
    "adam": optax.adam(1e-3),
}
found = {}
for name, tx in rules.items():
    weight = jnp.ones(1)
    state = tx.init(weight)
    for step in range(10):
        gradient = jnp.full(1, float(step > 0))
        updates, state = tx.update(gradient, state, weight)
        weight = optax.apply_updates(weight, updates)
    found[name] = float(weight[0])
print(", ".join(f"{name} {weight:.4g}" for name, weight in found.items()))
holds = all(found[name] != found[name] for name in ("prodigy", "dadapt_adamw"))
holds &= abs(found["acprop"]) > 1000 and 0.99 < found["adam"] < 1
sys.exit(not holds)
PYTHON
