#!/bin/sh
# optax 0.2.8, jax 0.10.2, numpy 2.4.6: optax.contrib.muon takes axis 0 of every matrix for its
# inputs, and scales the orthogonal update by sqrt(max(1, fan_out / fan_in)). Weights that are
# applied as W @ x, as those of Equinox and PyTorch are, have their outputs there. Their factor
# lands on the wrong matrix, without an error or a warning: a readout from n features to 8 outputs
# is moved by sqrt(n / 8) times what one of the other layout is, and a layer from 8 inputs to n
# outputs by sqrt(8 / n) times. The remedy is muon_weight_dimension_numbers with
# MuonDimensionNumbers(reduction_axis=1, output_axis=0).
#
# Seen, the largest singular value of the first update at learning rate 1, about 1 (0.7 to 1.2) times
# the factor:
#   readout, 512 to 8:   (in, out) 1.0, (out, in) 8.4, (out, in) with dimension numbers 1.0
#   first layer, 8 to 512:   (in, out) 8.4, (out, in) 1.0, (out, in) with dimension numbers 8.4
#
# Exits with another status than 0 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    optax==0.2.8 jax==0.10.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import jax.numpy as jnp
import numpy as np
import optax

AXES = optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=0)


def moved(fan_in, fan_out, layout, **options):
    shape = (fan_in, fan_out) if layout == "in, out" else (fan_out, fan_in)
    gradient = {"w": jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)}
    tx = optax.contrib.muon(1.0, **options)
    updates, _ = tx.update(gradient, tx.init(gradient), gradient)
    return float(np.linalg.norm(np.asarray(updates["w"]), 2))


holds = True
for name, fans in {"readout, 512 to 8": (512, 8), "first layer, 8 to 512": (8, 512)}.items():
    right = moved(*fans, "in, out")
    plain = moved(*fans, "out, in")
    told = moved(*fans, "out, in", muon_weight_dimension_numbers={"w": AXES})
    print(
        f"{name}:   (in, out) {right:.1f}, (out, in) {plain:.1f}, "
        f"(out, in) with dimension numbers {told:.1f}"
    )
    holds &= abs(told / right - 1) < 0.2 and not 0.3 < plain / right < 3
sys.exit(not holds)
PYTHON
