# Everything runs in .venv, which is made from nothing at the pinned versions of constraints.txt.
PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin

.PHONY: demo test check format clean

demo: .venv/.installed
	$(BIN)/daso demo

test: .venv/.installed
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

check: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "daso needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	# Without torchvision, which timm asks for: PyPI's does not go with every build of torch.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps timm
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
