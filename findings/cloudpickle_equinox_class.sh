#!/bin/sh
# cloudpickle 3.1.2, equinox 0.13.8, jax 0.10.2: a module class that is defined in a script, and so
# is pickled by value, comes back in another process without a complaint. If it has an __init__ of
# its own, no instance of it can be made there: "cannot assign to field". A class whose __init__ is
# the dataclass's works. Whoever sends a function that builds a model to workers (Ray, Dask, joblib's
# loky all pickle by cloudpickle) meets it. The remedy is a class in a module that the workers can
# import, which is pickled by its name.
#
# Seen:
#   Plain: made
#   Own: FrozenInstanceError: cannot assign to field 'factor'
#
# Exits with another status than 0 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    cloudpickle==3.1.2 equinox==0.13.8 jax==0.10.2 jaxlib==0.10.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from pathlib import Path

import cloudpickle
import equinox as eqx
import jax
import jax.numpy as jnp


class Scale(eqx.Module):
    factor: jax.Array


Path("class.pickle").write_bytes(cloudpickle.dumps(Scale))
Path("instance.pickle").write_bytes(cloudpickle.dumps(Scale(jnp.ones(2))))
PYTHON
"$folder/venv/bin/python" - <<'PYTHON'
import pickle
import sys
from pathlib import Path

import jax.numpy as jnp

factor = pickle.loads(Path("instance.pickle").read_bytes()).factor.tolist()
print(f"an instance: {factor}")
kind = pickle.loads(Path("class.pickle").read_bytes())
try:
    found = str(kind(jnp.ones(2)).factor.tolist())
except Exception as error:
    found = f"{type(error).__name__}: {error}"
print(f"a new one: {found}")
expected = [1.0, 1.0], "FrozenInstanceError: cannot assign to field 'factor'"
sys.exit((factor, found) != expected)
PYTHON
