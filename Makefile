# Two commands: `make demo` grows a model, `make test` checks the project.
PYTHON ?= python3
VENV ?= .venv
# Another build of torch, e.g. the small CPU one: make demo TORCH_INDEX=URL
TORCH_INDEX ?=
PART ?= all
SHELL := /bin/bash
BIN := $(VENV)/bin

.PHONY: help demo test check format size nightly sanitize clean

help:
	@echo "make demo     set up and grow the demo model, then chat with it"
	@echo "make test     set up and run every check and test"
	@echo "make check    ruff and mypy alone"
	@echo "make nightly  the full counts, PART=demo|kills|stops|corpus|corruptions|fuzz|stream|downloads|all"
	@echo "make sanitize fuzz the compiled core under the address and undefined sanitizers"
	@echo "make size     lines of code of the package and of its tests"

$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), \
	  "Penjing needs Python 3.11 or newer, found " + sys.version + "; use make PYTHON=python3.12"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check \
	  $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep '^torch==' requirements.lock)"
	@touch $@

$(VENV)/.run: $(VENV)/.torch requirements.lock pyproject.toml CMakeLists.txt $(wildcard native/*)
	@# Both at once: one waits for the index while the other compiles.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -r requirements.lock & \
	  packages=$$!; \
	  $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .; \
	  built=$$?; wait $$packages && exit $$built
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

# Without site-packages' own start files, which would put the checkout before the sanitized build.
sanitize: $(VENV)/.dev
	rm -rf build/sanitize
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target build/sanitize \
	  -C build-dir=build/sanitize-objects -C cmake.define.PENJING_SANITIZE=ON .
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" \
	  ASAN_OPTIONS=detect_leaks=0 \
	  PYTHONPATH=build/sanitize:$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])') \
	  $(BIN)/python -S -m pytest -o pythonpath= tests/model/test_causal.py tests/model/test_kernels.py \
	  tests/text/test_native.py tests/text/test_splitting.py tests/text/test_words.py tests/text/test_trainer.py

size:
	@for tree in src tests; do \
	  printf '%-6s %6d lines\n' $$tree $$(find $$tree -name '*.py' -print0 | xargs -0 cat | wc -l); \
	done

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis
