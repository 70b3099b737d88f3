# The two commands of the README are `make transfer` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: transfer test lint format docs figures clean

# Passes its arguments on: make transfer ARGS="--widths 64 128 256 --steps 100"
transfer: $(VENV)/.experiments
	$(BIN)/scalex transfer $(ARGS)

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

figures: transfer
	cp runs/transfer/transfer.png docs/images/transfer.png
	cp runs/transfer/results.json docs/results/transfer.json

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

clean:
	rm -rf $(VENV) site .pytest_cache .ruff_cache
