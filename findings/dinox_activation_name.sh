#!/bin/sh
# dinox 0.5.6, equinox 0.13.8, jax 0.12.0.1: build_equinox_MLP_from_config takes a configuration with a
# required activation_name, which is checked to be text, written to config.json and read back, and
# never used: every network has gelu. One that is to have another activation is trained with gelu,
# and a name that is none is taken as well, without an error or a warning. The remedy is to replace
# the activation: equinox.tree_at(lambda mlp: mlp.activation, mlp, jax.nn.softplus).
#
# Seen: the outputs of networks of one key by activation_name
#   gelu -0.050371, tanh -0.050371, no_such_function -0.050371
#
# Needs Python 3.13 as python3.13, or named in PYTHON. Exits with another status than 0 if that
# changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.13}" -m venv "$folder/venv"
# Without what it asks for beside these: it needs a finite element library for its data only.
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    equinox==0.13.8 pydantic==2.14.4 jax==0.12.0.1
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps dinox==0.5.6
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import sys

import jax.numpy as jnp
from dinox.equinox_nn_factories import EquinoxMLPConfig, build_equinox_MLP_from_config


def output(name):
    config = EquinoxMLPConfig(
        input_dimension=3,
        output_dimension=1,
        random_initializer_key=0,
        activation_name=name,
        layer_width=8,
        depth=2,
    )
    return float(build_equinox_MLP_from_config(config)(jnp.ones(3))[0])


found = {name: output(name) for name in ("gelu", "tanh", "no_such_function")}
print(", ".join(f"{name} {value:+.6f}" for name, value in found.items()))
sys.exit(len(set(found.values())) > 1)
PYTHON
