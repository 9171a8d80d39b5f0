# Everything runs in .venv, which make creates with the versions pinned in constraints.txt.
PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
# Modules are compiled when they are first imported: that is sooner than all of torch's at once.
PIP := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt
# Files of tests stay together, in the order of tests/conftest.py.
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

# Compiled modules are kept: every process of the tests would compile torch's again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo quick test wheel check format docs clean

demo: .venv/.core
	$(BIN)/daso demo

quick: .venv/.dev
	$(PYTEST) -m "not slow and not process and not browser"

test: .venv/.dev
	$(PYTEST)

wheel: .venv/.core
	.ci/wheel

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

.venv/.core: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "daso needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

.venv/.dev: .venv/.core
	$(PIP) --editable '.[dev]'
	# Without torchvision, which timm requires: PyPI's build does not match every build of torch.
	$(PIP) --no-deps timm
	touch $@

.venv/.docs: .venv/.core
	$(PIP) --editable '.[docs]'
	touch $@

clean:
	rm -rf .venv site .mypy_cache .ruff_cache .pytest_cache
