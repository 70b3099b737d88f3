#!/bin/sh
# jaxonmodels 0.5.5, jaxonlayers 0.2.7, jax 0.12.0.1: the rows of a Swin transformer's
# relative_position_bias_table are numbered dy * 2 * w - 1 + dx in a window of size w, where it would
# have to be dy * (2 * w - 1) + dx. A table of (2 w - 1)^2 rows is read from row -1 to row
# 2 w (2 w - 2) - 1 + 2 w - 2: what lies outside is wrapped or clamped by JAX, offsets share rows, and
# rows are never read and never trained, without an error or a warning. The table starts at zero, so
# that it shows first in training. A model with PyTorch's weights takes its numbers from PyTorch's
# file; a fresh one has these. The remedy is to put right numbers into the model's state.
#
# Seen, for the window of 7 that the package's variants have:
#   rows -1 to 179 of a table of 169; 2302 of 2401 pairs of places read another row than theirs;
#   169 offsets share 157 rows
#
# Needs Python 3.13 as python3.13, or named in PYTHON. Exits with another status than 0 if that
# changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.13}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    jaxonmodels==0.5.5 jaxonlayers==0.2.7 jax==0.12.0.1 equinox==0.13.8
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxonmodels.models.swin_transformer import ShiftedWindowAttention

W = 7
layer, state = eqx.nn.make_with_state(ShiftedWindowAttention)(
    dim=32,
    window_size=[W, W],
    shift_size=[0, 0],
    num_heads=4,
    qkv_bias=True,
    proj_bias=True,
    attention_dropout=0.0,
    dropout=0.0,
    key=jax.random.key(0),
    inference=True,
    dtype=jnp.float32,
)
numbers = np.asarray(state.get(layer.relative_position_index))
rows = len(layer.relative_position_bias_table)
# What is read when each row holds its own number.
read = np.asarray(jnp.arange(rows)[numbers])
places = np.stack(np.meshgrid(np.arange(W), np.arange(W), indexing="ij")).reshape(2, -1)
dy, dx = places[:, :, None] - places[:, None, :] + W - 1
right = (dy * (2 * W - 1) + dx).ravel()
wrong = int((read != right).sum())
print(
    f"rows {numbers.min()} to {numbers.max()} of a table of {rows}; {wrong} of {len(right)} pairs "
    f"of places read another row than theirs; {len(set(right))} offsets share {len(set(read))} rows"
)
sys.exit(not (numbers.min(), numbers.max(), rows, wrong) == (-1, 179, 169, 2302))
PYTHON
