# Two commands matter: `make demo` and `make test`. Each sets up everything that it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Debian's python3 has no ensurepip: the virtual environment is made without pip, and the system's pip fills it.
PIP := $(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check --quiet

.PHONY: demo test lint docs bench wheel clean

demo: $(VENV)/run.stamp
	@$(BIN)/adsbridge demo

test: $(VENV)/dev.stamp
	@$(BIN)/python -m pytest

lint: $(VENV)/dev.stamp
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: $(VENV)/dev.stamp
	@$(BIN)/python -m adsbridge.reference docs
	@$(BIN)/adsbridge packs build

bench: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.bench

wheel: $(VENV)/dev.stamp
	@$(BIN)/python -m build --no-isolation --wheel --outdir dist .

clean:
	@rm -rf $(VENV) dist build

$(BIN)/python:
	@$(PYTHON) -m venv --without-pip $(VENV)

# What `pip install .` would fetch, each file checked against its hash; then the checkout itself.
$(VENV)/run.stamp: constraints/run.txt constraints/build.txt pyproject.toml | $(BIN)/python
	@$(PIP) install --require-hashes -r constraints/run.txt -r constraints/build.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: constraints/dev.txt $(VENV)/run.stamp
	@$(PIP) install --require-hashes -r constraints/dev.txt
	@touch $@
