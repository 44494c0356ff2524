# Two commands matter: `make demo` and `make test`. Each sets up everything that it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Debian's python3 comes without ensurepip: the virtual environment is made without pip, and the system's fills it.
PIP := $(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check --quiet
SOURCES := pyproject.toml README.md $(shell find bridge strategies falco_rules packs -type f -not -name '*.pyc')

.PHONY: demo test lint docs verify-docs bench wheel constraints clean

demo: $(VENV)/installed
	@$(BIN)/adsbridge demo

test: $(VENV)/installed $(VENV)/tools
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

lint: $(VENV)/tools
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: $(VENV)/installed
	@$(BIN)/python -m adsbridge.reference docs
	@$(BIN)/adsbridge packs build --root packs

verify-docs: $(VENV)/installed
	@$(BIN)/python -m adsbridge.reference --verify docs
	@$(BIN)/adsbridge packs build --verify --root packs
	@$(BIN)/adsbridge packs check --root packs

bench: $(VENV)/installed $(VENV)/tools
	@$(BIN)/python tests/bench/run.py

wheel: $(VENV)/installed

# Pins every dependency with its hashes anew; needs pip-tools.
COMPILE := pip-compile --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe --no-header --no-annotate \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links
constraints:
	@$(COMPILE) -o constraints/build.txt constraints/build.in
	@$(COMPILE) -c constraints/build.txt -o constraints/run.txt pyproject.toml
	@$(COMPILE) -c constraints/build.txt -c constraints/run.txt --extra dev -o constraints/dev.txt pyproject.toml

clean:
	@rm -rf $(VENV) dist .coverage*

$(BIN)/python:
	@$(PYTHON) -m venv --without-pip $(VENV)

# What adsbridge needs to run and to be built, each file checked against its hash.
$(VENV)/dependencies: constraints/run.txt constraints/build.txt | $(BIN)/python
	@echo "Setting up $(VENV) …"
	@$(PIP) install --require-hashes -r constraints/run.txt -r constraints/build.txt
	@touch $@

# The wheel, built and installed: what is demonstrated and tested is what an admin installs.
$(VENV)/installed: $(VENV)/dependencies $(SOURCES)
	@rm -rf dist
	@said=$$($(BIN)/python -m hatchling build -t wheel 2>&1) || { echo "$$said"; exit 1; }
	@$(PIP) install --no-deps --force-reinstall dist/*.whl
	@touch $@

$(VENV)/tools: $(VENV)/dependencies constraints/dev.txt
	@$(PIP) install --require-hashes -r constraints/dev.txt
	@touch $@
