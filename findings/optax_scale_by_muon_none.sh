#!/bin/sh
# optax 0.2.8, jax 0.10.2: of the argument weight_dimension_numbers of `optax.contrib.scale_by_muon`
# the documentation says that "None implies that all parameters are 2D matrices", and None is the
# default. With it the update of a single array works, and that of any tree of matrices, as a
# dictionary of two, raises a ValueError about a mismatch of trees that names none of its arguments.
# The remedy is a function: weight_dimension_numbers=lambda tree: jax.tree.map(lambda x:
# MuonDimensionNumbers(), tree).
#
# Seen:
#   one array: works; dictionary: ValueError; dictionary with numbers: works
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

import jax
import jax.numpy as jnp
from optax import contrib


def tried(tree, **options):
    tx = contrib.scale_by_muon(**options)
    try:
        tx.update(tree, tx.init(tree), tree)
    except Exception as error:
        return type(error).__name__
    return "works"


def numbers(tree):
    return jax.tree.map(lambda x: contrib.MuonDimensionNumbers(), tree)


matrix = jnp.eye(4, 6)
tree = {"a": matrix, "b": matrix}
found = {
    "one array": tried(matrix),
    "dictionary": tried(tree),
    "dictionary with numbers": tried(tree, weight_dimension_numbers=numbers),
}
print("; ".join(f"{name}: {what}" for name, what in found.items()))
sys.exit(list(found.values()) != ["works", "ValueError", "works"])
PYTHON
