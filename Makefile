# make run     a fresh machine: environment, install, the whole road on a laptop (runs/laptop)
# make test    a fresh machine: environment, install, lint, types and the default tests
# make slow    the tests that `make test` leaves out

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# one worker a core; each worker computes on one thread, so that they do not fight; tests/conftest.py
# puts the longest files first
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: run test slow lint clean

run: $(VENV)/.run
	$(BIN)/flywright run laptop

test: $(VENV)/.dev lint
	$(PYTEST) -m "not slow"

slow: $(VENV)/.dev
	$(PYTEST) -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/pyright

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# the lock pins what is installed; pyproject's own ranges stay wide
$(VENV)/.run: pyproject.toml requirements.lock | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e .
	touch $@

$(VENV)/.dev: pyproject.toml requirements.lock | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
	touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) runs
