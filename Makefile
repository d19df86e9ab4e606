# Two commands: `make demo` grows a model, `make test` checks the project.
PYTHON ?= python3
VENV ?= .venv
# Another build of torch, e.g. the small CPU one: make demo TORCH_INDEX=URL
TORCH_INDEX ?=
PART ?= all
SHELL := /bin/bash
BIN := $(VENV)/bin

.PHONY: help demo test check format size nightly clean

help:
	@echo "make demo     set up and grow the demo model, then chat with it"
	@echo "make test     set up and run every check and test"
	@echo "make check    ruff and mypy alone"
	@echo "make nightly  the full counts, PART=demo|kills|corpus|corruptions|all"
	@echo "make size     lines of code of the package and of its tests"

$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), \
	  "Penjing needs Python 3.11 or newer, found " + sys.version + "; use make PYTHON=python3.12"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check \
	  $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep '^torch==' requirements.lock)"
	@touch $@

$(VENV)/.run: $(VENV)/.torch requirements.lock pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	@touch $@

demo: $(VENV)/.run
	$(BIN)/penjing demo

test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

check: $(VENV)/.dev
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks

nightly: $(VENV)/.dev
	$(BIN)/python -m benchmarks.nightly $(PART)

size:
	@for tree in src tests; do \
	  printf '%-6s %6d lines\n' $$tree $$(find $$tree -name '*.py' -print0 | xargs -0 cat | wc -l); \
	done

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
