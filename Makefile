# The first command after a clone: everything else follows from it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test slow mutants lint types check doc clean

demo: $(INSTALLED)  ## main job on real data: train, price, schedule, search; report in runs/digits
	$(BIN)/bitfront campaign studies/configs/digits.toml

test: $(INSTALLED)  ## whole test suite, with the doctests
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

slow: $(INSTALLED)  ## longer validation
	$(BIN)/python -m pytest -q -m slow

mutants: $(INSTALLED)  ## breaks every kernel in 40 ways and looks whether a fast test notices; hours
	PYTHONPATH=tests $(BIN)/python -m mutants

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(INSTALLED)
	$(BIN)/mypy

check: lint types test

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@
