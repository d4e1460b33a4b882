# `make analyze` and `make test` are the whole set-up: both create .venv here, install KineTrack into it, and reuse it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VIDEO ?= hub_scripts/examples/pets2009.mp4
OUTPUT ?= kinetrack-results

# What the targets need beyond the package itself; the stamps make `make` install again when pyproject.toml changes.
RUNTIME := $(VENV)/.installed
DEMO := $(VENV)/.installed-demo
DEVELOPMENT := $(VENV)/.installed-dev

# The environment with the oldest supported Transformers: the minimum that pyproject.toml declares.
OLDEST := .venv-oldest
OLDEST_TRANSFORMERS = $$($(PYTHON) -c 'import re; \
	print(re.search(r"\"transformers>=([0-9.]+)\"", open("pyproject.toml").read())[1])')
OLDEST_TESTS := tests/configuration tests/modeling tests/processing tests/test_package.py

# What people have who only have Transformers: the packages that model cards name, in the versions of $(VENV).
REMOTE := .venv-remote
REMOTE_PACKAGES = $$($(BIN)/python -c 'from importlib.metadata import version; \
	from kinetrack.hub_scripts.model_card import REMOTE_PACKAGES; \
	print(*(f"{name}=={version(name).partition(chr(43))[0]}" for name in REMOTE_PACKAGES))')

# PyTorch and CUDA are most of an environment, 5 GB: the other environments link to the files of $(VENV). Where links
# cannot be made, pip installs them anew.
PYTORCH := torch torch-*.dist-info torchgen functorch triton triton-*.dist-info nvidia nvidia_*.dist-info
link_pytorch = cd $(VENV)/lib/python3*/site-packages && \
	cp -al $$(ls -d $(PYTORCH) 2>/dev/null) "$$(echo $(CURDIR)/$(1)/lib/python3*/site-packages)" 2>/dev/null || true

.DEFAULT_GOAL := help
.PHONY: help install analyze demo test test-common test-browser test-oldest test-remote lint format train-smoke bundle bench soak clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "KineTrack needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)."; \
		echo "Name another one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "Could not create a virtual environment. On Debian or Ubuntu: apt install python3-venv"; exit 1; }

$(RUNTIME): pyproject.toml | $(BIN)/python
	@echo "Installing KineTrack into $(VENV) (once; a few minutes, mostly PyTorch)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(DEMO): pyproject.toml | $(BIN)/python
	@echo "Installing KineTrack and its demo into $(VENV) (once; a few minutes, mostly PyTorch)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $(RUNTIME) $@

$(DEVELOPMENT): pyproject.toml | $(BIN)/python
	@echo "Installing KineTrack and its development tools into $(VENV) (once; a few minutes, mostly PyTorch)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(RUNTIME) $(DEMO) $@

install: $(DEVELOPMENT) ## Create .venv with everything a developer needs

analyze: $(RUNTIME) ## Analyse the example video, or your own: make analyze VIDEO=my.mp4 [OUTPUT=folder]
	@$(BIN)/kinetrack analyze "$(VIDEO)" --output "$(OUTPUT)"

demo: $(DEMO) ## Start the demo and open it in a browser
	@$(BIN)/kinetrack demo --open

test: $(DEVELOPMENT) ## Run all tests (two processes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-common: $(DEVELOPMENT) ## Run Transformers' own common tests, fetched from the package index
	@$(BIN)/python tests/common/mixin_source.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/common

test-browser: $(DEVELOPMENT) ## Drive the demo in Chromium, which has to be installed (apt install chromium)
	$(BIN)/python -m pytest tests/browser

$(OLDEST)/.installed: pyproject.toml | $(DEVELOPMENT)
	@echo "Installing KineTrack with transformers $(OLDEST_TRANSFORMERS) into $(OLDEST) (once; a few minutes)"
	@$(PYTHON) -m venv --clear $(OLDEST)
	@$(call link_pytorch,$(OLDEST))
	@$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check \
		--editable '.[test]' "transformers==$(OLDEST_TRANSFORMERS)"
	@touch $@

test-oldest: $(OLDEST)/.installed ## Run what touches Transformers with the oldest supported version of it
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n 2 $(OLDEST_TESTS)

$(REMOTE)/.installed: pyproject.toml | $(DEVELOPMENT)
	@echo "Installing only what remote users need into $(REMOTE) (once; a few minutes)"
	@$(PYTHON) -m venv --clear $(REMOTE)
	@$(call link_pytorch,$(REMOTE))
	@$(REMOTE)/bin/python -m pip install --quiet --disable-pip-version-check $(REMOTE_PACKAGES)
	@touch $@

test-remote: $(DEVELOPMENT) $(REMOTE)/.installed ## Run the README's Transformers-only script where KineTrack is not installed
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest tests/remote

lint: $(DEVELOPMENT) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(DEVELOPMENT) ## Fix style and formatting where a tool can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

train-smoke: $(DEVELOPMENT) ## Train a few steps on made-up data, resume, evaluate, bundle
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m train_smoke tests

bundle: $(DEVELOPMENT) ## Make a Hub repository of the shipped model in ./kinetrack-bundle
	$(BIN)/kinetrack bundle kinetrack-nano --output kinetrack-bundle

bench: $(DEVELOPMENT) ## Measure speed, memory, the recurrence and the association
	$(BIN)/kinetrack benchmark --output kinetrack-benchmark

soak: $(DEVELOPMENT) ## Play the example 100,000 frames long, and a million made-up ones: does anything grow? (half an hour)
	$(BIN)/python -m kinetrack.hub_scripts.soak --output kinetrack-soak

clean: ## Remove environments, builds and caches; results stay
	rm -rf $(VENV) $(OLDEST) $(REMOTE) .transformers-tests build dist *.egg-info .pytest_cache .ruff_cache
