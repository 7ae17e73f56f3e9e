# `make test` and `make demo` need CPython >= 3.11 with pip, and nothing else: each makes
# its own environment under .venv/ and makes it again when pyproject.toml changes.
# `make test-newest PYTHON=python3.13` needs CPython >= 3.12.

PYTHON ?= python3
PYTEST_ARGS ?=

INSTALL := -m pip install --quiet --disable-pip-version-check
DEMO := .venv/demo
TEST := .venv/test
OLDEST := .venv/oldest
NEWEST := .venv/newest
METATRAIN := .venv/metatrain
DOCS := .venv/docs

# Pyright comes with its own Node.js; it need not ask the network for a newer version.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-oldest test-newest interop-metatrain docs lint format \
	benchmarks clean

help:
	@echo "make demo         train the ethanol model of notebooks/ethanol"
	@echo "make test         lint, then run all tests (CPython >= 3.11)"
	@echo "make test-oldest  run all tests on the oldest supported versions: JAX 0.4.38"
	@echo "make test-newest  run all tests on the newest: JAX 0.12 (CPython >= 3.12)"
	@echo "make interop-metatrain  train with metatrain on data written here, and read it back"
	@echo "make docs         build the site into build/docs; run the notebooks if they changed"
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

test-newest: $(NEWEST)/.stamp
	$(NEWEST)/bin/python -m pytest -n 2 $(PYTEST_ARGS)

interop-metatrain: $(METATRAIN)/.stamp
	$(METATRAIN)/bin/python -m pytest tests/with_metatrain $(PYTEST_ARGS)

# Warnings are errors. Nothing is read from the network.
docs: $(DOCS)/.stamp
	$(DOCS)/bin/python -m sphinx --quiet --fail-on-warning --keep-going --jobs 2 \
		docs build/docs

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
	rm -rf .venv build dist docs/notebooks .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment is finished when its stamp is there; until then it is made again.
# $(call environment,MINOR,WHAT) installs WHAT with CPython 3.MINOR or later. That is
# asked first: pip would search for versions that never fit an older Python.
define environment
@$(PYTHON) -c 'import sys; sys.version_info >= (3, $(1)) or sys.exit("CPython 3.$(1) or later is needed: make PYTHON=python3.13 ...")'
$(PYTHON) -m venv $(@D)
$(@D)/bin/python $(INSTALL) $(2)
@touch $@
endef

$(DEMO)/.stamp: pyproject.toml
	$(call environment,11,--editable '.[demo]')

$(TEST)/.stamp: pyproject.toml
	$(call environment,11,--editable '.[dev]')

$(OLDEST)/.stamp: pyproject.toml tests/oldest.txt
	$(call environment,11,--constraint tests/oldest.txt --editable '.[suite]')

# JAX 0.11 and later need CPython 3.12.
$(NEWEST)/.stamp: pyproject.toml
	$(call environment,12,--editable '.[suite]')

$(METATRAIN)/.stamp: pyproject.toml
	$(call environment,11,--editable '.[with-metatrain]')

$(DOCS)/.stamp: pyproject.toml
	$(call environment,11,--editable '.[docs]')
