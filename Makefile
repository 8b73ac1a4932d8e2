# The same commands at the desk and in CI. `make demo` and `make test` set everything up by themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A process for each core; more threads than cores would only wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

.PHONY: demo test check setup bench lock clean

demo: $(VENV)/.installed
	$(BIN)/pixelwise demo

test: $(VENV)/.installed-test
	$(PYTEST)

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) -m "not slow"

setup: $(VENV)/.installed-dev

bench: $(VENV)/.installed-test
	$(BIN)/python benchmarks/confusion.py
	$(BIN)/python benchmarks/warp.py
	$(BIN)/python benchmarks/em_metrics.py
	$(BIN)/python benchmarks/dense_inference.py
	$(BIN)/python benchmarks/fully_connected.py
	$(BIN)/python benchmarks/grid_crf.py
	$(BIN)/python benchmarks/resnet_inference.py
	$(BIN)/python benchmarks/startup.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/bin/python pyproject.toml requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
	touch $@ $(VENV)/.installed $(VENV)/.installed-test

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

# CUDA packages follow torch's own pins.
lock: $(VENV)/.installed-dev
	{ echo '# Versions that the test suite passed with; the Makefile installs these. Regenerate with `make lock`.'; \
	  $(BIN)/python -m pip freeze --exclude-editable | grep -ivE '^(nvidia|cuda|triton|setuptools)'; } > requirements.lock.new
	mv requirements.lock.new requirements.lock
