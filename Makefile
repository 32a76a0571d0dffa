# make demo   environment, then a static and a CondConv network trained side by side
# make test   environment, lint, types and the test suite
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2

# Real data sets beside the checkout, where there are any; tests that need them skip otherwise.
CONDCONV_DATA ?= $(wildcard $(CURDIR)/../shared/data)
export CONDCONV_DATA

.PHONY: help env demo test test-slow lint format types constraints clean

help:
	@sed -n 's/^# //p' Makefile

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11)' 2>/dev/null || \
	  { echo "condconv_jax needs Python 3.11 or newer; pass PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: env
	$(BIN)/condconv train --config=configs/fashion_mnist/mobilenet_v1.py:static --workdir=runs/demo/static
	$(BIN)/condconv train --config=configs/fashion_mnist/mobilenet_v1.py:condconv --workdir=runs/demo/condconv
	$(BIN)/condconv analyze --workdir=runs/demo/static --workdir=runs/demo/condconv --out=runs/demo

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: env
	$(BIN)/mypy

# One worker runs all of a file, whose fixtures and compiled programs are then made once.
test: lint types
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-slow: env
	$(BIN)/python -m pytest -n $(WORKERS) -m slow

# Pins what pyproject.toml asks for at the newest versions; names and versions only.
constraints:
	rm -rf $(VENV)-constraints && $(PYTHON) -m venv $(VENV)-constraints
	$(VENV)-constraints/bin/python -m pip install --quiet '.[dev]'
	$(VENV)-constraints/bin/python -m pip freeze --exclude condconv_jax \
	  | sed -n 's/^\([A-Za-z0-9._-]*==[^ ;]*\).*$$/\1/p' > constraints.txt
	rm -rf $(VENV)-constraints

clean:
	rm -rf $(VENV) runs build dist .pytest_cache .mypy_cache .ruff_cache
