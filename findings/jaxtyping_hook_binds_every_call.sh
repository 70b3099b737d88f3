#!/bin/sh
# jaxtyping 0.3.11, beartype 0.23.1: under the import hook every function and method of a package is
# wrapped, also one without an annotation, and each call of it binds its arguments to the signature
# anew. Modules that have no shapes gain nothing from that and pay for it: of this library's tests
# that trace, a tenth of the time. The remedy is to hand the hook the modules that have shapes, by
# their full names.
#
# Seen: 1000 calls of a function without annotations: 1000 binds
#
# Exits with another status than 0 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    jaxtyping==0.3.11 beartype==0.23.1 numpy==2.4.6
cd "$folder"
cat > plain.py <<'PYTHON'
def halved(x):
    return x / 2
PYTHON
"$folder/venv/bin/python" - <<'PYTHON'
import inspect
import sys

from jaxtyping import install_import_hook

with install_import_hook("plain", "beartype.beartype"):
    import plain

binds, bind = 0, inspect.Signature.bind


def counted(*arguments, **named):
    global binds
    binds += 1
    return bind(*arguments, **named)


inspect.Signature.bind = counted
for _ in range(1000):
    plain.halved(1.0)
print(f"1000 calls of a function without annotations: {binds} binds")
sys.exit(binds != 1000)
PYTHON
