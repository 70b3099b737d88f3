#!/bin/sh
# jax 0.10.2: the persistent compilation cache writes each entry in place, and never over one that is
# there. An entry that was cut short, by a killed job or a full disk, stays: each later process that
# needs the program warns, compiles it again, and leaves the entry as it is. A preemptible job that
# was stopped at the wrong moment so pays for its largest program at every start from then on. The
# remedy is to delete the entry that the warning is about, which is named after the function.
#
# Seen, by two processes after the entry was cut to 1000 bytes:
#   Error reading persistent compilation cache entry for 'jit_step': error: Error -5 while
#   decompressing data: incomplete or truncated stream
#   the entry has 1000 bytes
#
# Exits with another status than 0 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    jax==0.10.2 jaxlib==0.10.2
cat > "$folder/train.py" <<'PYTHON'
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp

cache = Path(sys.argv[1])
jax.config.update("jax_compilation_cache_dir", str(cache))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@jax.jit
def step(x):
    return jnp.tanh(x) @ x


with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    jax.block_until_ready(step(jnp.ones((8, 8))))
(entry,) = cache.glob("jit_step-*-cache")
for warning in said:
    print(warning.message)
if len(sys.argv) > 2:
    with entry.open("r+b") as file:
        file.truncate(1000)
print(f"the entry has {entry.stat().st_size} bytes")
PYTHON
run() { JAX_PLATFORMS=cpu "$folder/venv/bin/python" "$folder/train.py" "$folder/cache" "$@"; }
run cut
expected="Error reading persistent compilation cache entry for 'jit_step': error: Error -5 while \
decompressing data: incomplete or truncated stream
the entry has 1000 bytes"
for process in second third; do
    found=$(run)
    echo "the $process process: $found"
    [ "$found" = "$expected" ] || exit 1
done
