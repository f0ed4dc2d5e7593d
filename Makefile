# Everything here works on a fresh clone with git, make and python3 (with venv) alone.
# A stamp inside .venv says which extras are installed; pyproject.toml being newer renews it.

# Thousands of short processes are started here: to compile what they import takes them as long again.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test check docs bench stress guest clean

help: ## say what there is
	@sed -n 's/^\([a-z]*\):.*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '  make %-8s %s\n' "$$name" "$$text"; done

demo: $(VENV)/.demo ## a verified load on a disk whose back end is killed 20 times (ARGS="--seed 7")
	@$(BIN)/python -m examples.block demo $(ARGS)

test: $(VENV)/.dev ## all tests but the long ones
	@$(BIN)/python -m pytest -q -n 2 $(ARGS)

check: $(VENV)/.dev ## style and types
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy

docs: $(VENV)/.docs ## the documentation, as a site in build/docs
	@$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -d build/doctrees docs build/docs
	@echo 'see build/docs/index.html'

bench: $(VENV)/.demo ## this beside others, in ratios (see benchmarks/README.md)
	@$(BIN)/python -m benchmarks $(ARGS)

stress: $(VENV)/.dev ## the long tests
	@$(PIP) --editable '.[fuzz]' || echo 'no atheris here: the fuzzers that need it are skipped'
	@$(BIN)/python -m pytest -q -m stress $(ARGS)

guest: $(VENV)/.dev ## Linux itself, under QEMU, uses the USB devices
	@$(BIN)/python -m pytest -q -m guest $(ARGS)

clean: ## remove what was built (not what you wrote)
	@rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist docs/made *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo 'installing into $(VENV) (once)'
	@$(PIP) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo 'installing into $(VENV) (once)'
	@$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	@echo 'installing into $(VENV) (once)'
	@$(PIP) --editable '.[docs]'
	@touch $@
