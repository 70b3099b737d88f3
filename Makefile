# The two commands of the README are `make transfer` and `make test`.

PYTHON ?= python3
# The default Python's environment is .venv; any other has its version in its environment's name.
VENV := .venv
ifneq ($(PYTHON),python3)
ASKED := $(PYTHON)
VERSION = $(shell $(firstword $(PYTHON) false) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
ifeq ($(VERSION),)
# What pyenv has installed starts by its path, also where its shim doesn't.
PYENV := $(or $(PYENV_ROOT),$(HOME)/.pyenv)
override PYTHON := $(lastword $(sort $(wildcard $(PYENV)/versions/*/bin/$(notdir $(ASKED)))))
endif
VENV := .venv-$(VERSION)
ifeq ($(VENV),.venv-)
$(error PYTHON=$(ASKED) does not start; name one that does)
endif
endif
BIN := $(VENV)/bin
AOT := $(VENV)-aot
TYPES = $(BIN)/pyright --pythonpath $(BIN)/python
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: transfer test smoke wheel lint ruff format docs figures evidence numerics numerics-aot clean

# Passes its arguments on: make transfer ARGS="--widths 64 128 256 --steps 100"
transfer: $(VENV)/.experiments
	$(BIN)/scalex transfer $(ARGS)

# The types and the smoke test keep one core busy, so they run beside the tests; what they say stands
# last.
test: ruff
	@beside=$$(mktemp); (set -e; $(TYPES); $(BIN)/python tests/smoke/newest.py) > $$beside 2>&1 & \
	other=$$!; trap "kill $$other; rm -f $$beside; exit 130" INT TERM; \
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS); tests=$$?; \
	wait $$other; others=$$?; cat $$beside; rm -f $$beside; exit $$((tests ? tests : others))

# The page "Ten minutes" on the newest Python found, in an environment of its own.
smoke: $(VENV)/.dev
	$(BIN)/python tests/smoke/newest.py

# Builds what would be published, and tries it alone in clean environments: a few minutes.
wheel: $(VENV)/.dev
	$(BIN)/python tests/smoke/wheel.py

lint: ruff
	$(TYPES)

ruff: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

figures: transfer
	cp runs/transfer/transfer.png docs/images/transfer.png
	cp runs/transfer/results.json docs/results/transfer.json

# Trains what the page "What transfers here" says, and writes its numbers: an hour or two on two
# cores. The same command goes on where it was; make evidence ARGS=--list prints the rows.
evidence: $(VENV)/.dev
	$(BIN)/python tests/evidence/run.py $(ARGS)
	$(if $(ARGS),,$(BIN)/python tests/evidence/alignment.py)
	$(if $(ARGS),,$(BIN)/python tests/evidence/underflow.py)

# Measures this machine's device: make numerics ARGS=--stress for everything.
numerics: $(VENV)/.dev
	$(BIN)/python -m pytest -c numerics/pytest.ini numerics --write-results $(ARGS)

# Compiles for TPUs and CUDA GPUs that need not be there. The compilers are large, and JAX would
# load them as devices, so they have an environment of their own.
numerics-aot: $(AOT)/.installed
	JAX_PLATFORMS=cpu $(AOT)/bin/python -m pytest -c numerics/pytest.ini numerics/aot --write-results $(ARGS)

docs: $(VENV)/.dev
	$(BIN)/mkdocs serve

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("scalex_eqx needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.experiments: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[experiments]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.experiments

$(AOT)/.installed: pyproject.toml constraints.txt numerics/aot/requirements.txt
	$(PYTHON) -m venv $(AOT)
	$(AOT)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[experiments]' pytest
	$(AOT)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r numerics/aot/requirements.txt
	@touch $@

clean:
	rm -rf .venv .venv-* site .pytest_cache .ruff_cache
