# `make test` and `make demo` need CPython >= 3.11 with pip, and nothing else: each makes
# its own environment under .venv/ and makes it again when pyproject.toml changes.

PYTHON ?= python3
PYTEST_ARGS ?=

INSTALL := -m pip install --quiet --disable-pip-version-check
# pip would search for versions that never fit an older Python
CHECK_PYTHON := $(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("CPython 3.11 or later is needed: make PYTHON=python3.12 ...")'
DEMO := .venv/demo
TEST := .venv/test
OLDEST := .venv/oldest

# Pyright comes with its own Node.js; it need not ask the network for a newer version.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-oldest torch lint format benchmarks clean

help:
	@echo "make demo         train the ethanol model of notebooks/ethanol"
	@echo "make test         lint, then run all tests"
	@echo "make test-oldest  run all tests on the oldest supported versions"
	@echo "make torch        add PyTorch to the test environment (large)"
	@echo "make lint         check style, types and the direction of imports"
	@echo "make format       rewrite the files in the project's style"
	@echo "make benchmarks   run all benchmarks"
	@echo "make clean        remove environments, caches and builds"

demo: $(DEMO)/.stamp
	$(DEMO)/bin/python notebooks/ethanol/train.py

test: lint
	$(TEST)/bin/python -m pytest -n 2 $(PYTEST_ARGS)

test-oldest: $(OLDEST)/.stamp
	$(OLDEST)/bin/python -m pytest -n 2 $(PYTEST_ARGS)

# Pinned: another version may come in a build of several gigabytes.
torch: $(TEST)/.stamp
	$(TEST)/bin/python $(INSTALL) torch==2.13.0

lint: $(TEST)/.stamp
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/pyright --pythonpath $(TEST)/bin/python
	$(TEST)/bin/lint-imports --no-logo

format: $(TEST)/.stamp
	$(TEST)/bin/ruff check --fix .
	$(TEST)/bin/ruff format .

benchmarks: $(TEST)/.stamp
	@set -e; for file in benchmarks/*.py; do \
		echo "== $$file"; $(TEST)/bin/python "$$file"; \
	done

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment is finished when its stamp is there; until then it is made again.
$(DEMO)/.stamp: pyproject.toml
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python $(INSTALL) --editable '.[demo]'
	@touch $@

$(TEST)/.stamp: pyproject.toml
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv $(TEST)
	$(TEST)/bin/python $(INSTALL) --editable '.[dev]'
	@touch $@

$(OLDEST)/.stamp: pyproject.toml tests/oldest.txt
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python $(INSTALL) --constraint tests/oldest.txt --editable '.[dev]'
	@touch $@
