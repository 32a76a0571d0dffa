# make demo   environment, then a static and a CondConv network trained side by side
# make test   environment, lint, types and the test suite
# make export-env   another environment, .venv-export, whose `condconv export` writes ONNX and LiteRT
# make test-export  the tests that need it
PYTHON ?= python3
VENV ?= .venv
EXPORT_VENV ?= .venv-export
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2

# Real data sets beside the checkout, where there are any; tests that need them skip otherwise.
CONDCONV_DATA ?= $(wildcard $(CURDIR)/../shared/data)
export CONDCONV_DATA

.PHONY: help env export-env demo test test-slow test-export lint format types constraints clean

help:
	@sed -n 's/^# //p' Makefile

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11)' 2>/dev/null || \
	  { echo "condconv_jax needs Python 3.11 or newer; pass PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

export-env: $(EXPORT_VENV)/.installed

$(EXPORT_VENV)/.installed: pyproject.toml constraints-export.txt
	$(PYTHON) -m venv $(EXPORT_VENV)
	$(EXPORT_VENV)/bin/python -m pip install --quiet --constraint constraints-export.txt --editable '.[dev,export]'
	$(EXPORT_VENV)/bin/python -m pip install --quiet --no-deps $$(grep '^jax2onnx==' constraints-export.txt)
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

test-export: export-env
	$(EXPORT_VENV)/bin/python -m pytest -n $(WORKERS) -m export

# Pins what pyproject.toml asks for at the newest versions; names and versions only.
PINS = pip freeze --exclude condconv_jax | sed -n 's/^\([A-Za-z0-9._-]*==[^ ;]*\).*$$/\1/p'
constraints:
	rm -rf $(VENV)-constraints && $(PYTHON) -m venv $(VENV)-constraints
	$(VENV)-constraints/bin/python -m pip install --quiet '.[dev]'
	$(VENV)-constraints/bin/python -m $(PINS) > constraints.txt
	$(VENV)-constraints/bin/python -m pip install --quiet --constraint constraints.txt '.[dev,export]'
	$(VENV)-constraints/bin/python -m pip install --quiet --no-deps jax2onnx
	$(VENV)-constraints/bin/python -m $(PINS) > constraints-export.txt
	rm -rf $(VENV)-constraints

clean:
	rm -rf $(VENV) $(EXPORT_VENV) runs build dist .pytest_cache .mypy_cache .ruff_cache
