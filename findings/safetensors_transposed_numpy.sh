#!/bin/sh
# safetensors 0.8.0, numpy 2.4.6: safetensors.numpy.save writes the memory of an array that isn't in
# C order as if it were. A transposed array comes back with its entries in another order, without
# an error or a warning. safetensors 0.7.0 gave it back as it was. The docstring of 0.8.0 says that
# arrays "need to be contiguous and dense"; a transposed one is dense, and nothing checks it. The
# remedy is numpy.ascontiguousarray. Reported there as issue 825.
#
# Seen:
#   safetensors 0.7.0: [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
#   safetensors 0.8.0: [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
#
# Exits with another status than 0 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
for version in 0.7.0 0.8.0; do
    "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        "safetensors==$version" numpy==2.4.6
    "$folder/venv/bin/python" - "$version" <<'PYTHON'
import sys

import numpy as np
from safetensors.numpy import load, save

array = np.arange(6, dtype=np.float32).reshape(2, 3).T
found = load(save({"x": array}))["x"]
print(f"safetensors {sys.argv[1]}: {found.tolist()}")
expected = array if sys.argv[1] == "0.7.0" else np.arange(6, dtype=np.float32).reshape(3, 2)
sys.exit(not np.array_equal(found, expected))
PYTHON
done
