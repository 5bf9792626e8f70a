# `make demo`, `make test`, `make check`: each sets up .venv by itself, once.
PYTHON ?= python3
PIP_FLAGS ?=
PYTEST_FLAGS ?=
# Test files at a time.
JOBS ?= 2

BIN := .venv/bin
# Byte code is compiled on first import instead, as most of the installed files are never imported, and it is kept:
# where the environment forbids that, every one of Ray's processes would compile all that it imports, 3 s each.
export PYTHONDONTWRITEBYTECODE :=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile $(PIP_FLAGS)

.PHONY: demo test check format

demo: .venv/base.stamp
	$(BIN)/hkdbench demo

test: .venv/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_FLAGS)

check: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m scripts.layout --check
	$(BIN)/python -m scripts.reference --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: .venv/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/base.stamp: requirements.lock pyproject.toml
	@echo "Installing into .venv (about a minute)"
	$(PYTHON) -m venv .venv
	$(PIP) -r requirements.lock
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

.venv/dev.stamp: requirements-dev.lock .venv/base.stamp
	$(PIP) -r requirements-dev.lock
	@touch $@
