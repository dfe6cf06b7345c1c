# make demo: the demo's verdict and report. make test: the tests. Both make .venv first, once.
PYTHON ?= python3
VENV := .venv
STAMPS := $(VENV)/stamps
PIP := $(VENV)/bin/python -m pip -qq --disable-pip-version-check --no-input

.PHONY: help demo test lint bench clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    set up .venv, tune and compare on the demo's texts, tell where the report lies"
	@echo "make test    set up .venv with the development tools and run the tests"
	@echo "make lint    style, types and import order"
	@echo "make bench   training, prediction and memory beside Trainer + PEFT and others, on the demo's texts"
	@echo "make clean   take away .venv, caches and build folders; runs/ stays"

demo: $(STAMPS)/run
	@$(VENV)/bin/textlift run demo --overwrite

test: $(STAMPS)/dev
	@scripts/test

lint: $(STAMPS)/dev
	@scripts/lint

bench: $(STAMPS)/dev
	@$(VENV)/bin/python benchmarks/training.py --rounds 3 --steps 14
	@$(VENV)/bin/python benchmarks/training.py --rounds 2 --steps 14 --fast
	@$(VENV)/bin/python benchmarks/inference.py --rounds 3
	@$(VENV)/bin/python benchmarks/footprint.py --rounds 1 --steps 20

clean:
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "make: $(PYTHON) must be Python 3.10 or newer; found $$($(PYTHON) --version 2>&1)." \
	    "Name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make: $(PYTHON) must have the modules venv and ensurepip; it has not." \
	    "On Debian and Ubuntu: apt install python3-venv. Or name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/run: requirements/run.txt pyproject.toml | $(STAMPS)/venv
	@echo "Installing the pinned packages into $(VENV); the first time takes minutes ..."
	@$(PIP) install -r requirements/run.txt
	@$(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@

$(STAMPS)/dev: requirements/dev.txt $(STAMPS)/run
	@echo "Installing the development tools ..."
	@$(PIP) install -r requirements/dev.txt
	@touch $@
