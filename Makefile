# `make demo` and `make test` set up what they need in .venv, once, and again when a requirement changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# A worker for each core, and a thread for each worker: threads that share cores slow torch down many times.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8
REQUIREMENTS := .ci/requirements.txt constraints.txt $(wildcard pyproject.toml */pyproject.toml plugins/*/pyproject.toml) $(wildcard helix-cpu/CMakeLists.txt helix-cpu/native/* helix-topo/CMakeLists.txt helix-topo/native/*)

.PHONY: demo test test-all torture matrix lint docs bench clean

demo: $(VENV)/stamp
	@$(BIN)/python docs/examples/demo.py

test: $(VENV)/stamp lint
	$(PYTEST) -m "not slow"

test-all: $(VENV)/stamp lint
	$(PYTEST)

# Checkpoints under kill -9, power loss, flipped bits, refusing disks and hostile files: 1,000 rounds of each.
torture: $(VENV)/stamp
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m torture --rounds 1000

# Built wheels in clean environments: the kernel alone, with each plugin, with all, at lowest versions. Minutes.
matrix: $(VENV)/stamp
	PYTHONPATH=tests $(BIN)/python -m matrix

lint: $(VENV)/stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site of docs/, with a reference made from what is installed; a warning is an error. Nothing is fetched.
docs: $(VENV)/stamp
	$(BIN)/python -m sphinx -W --keep-going -n -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(VENV)/stamp
	$(BIN)/python tests/benchmarks/kernel/run.py --write
	$(BIN)/python tests/benchmarks/sequence/costs.py --write
	$(BIN)/python tests/benchmarks/sequence/long_context.py --write
	$(BIN)/python tests/benchmarks/cpu/run.py --write
	$(BIN)/python tests/benchmarks/checkpoint/run.py --write
	$(BIN)/python tests/benchmarks/trainer/run.py --write
	$(BIN)/python tests/benchmarks/loader/run.py --write
	$(BIN)/python tests/benchmarks/ranks/run.py --write
	$(BIN)/python tests/benchmarks/resume/run.py --write
	$(BIN)/python tests/benchmarks/memory/mqar.py --write
	$(BIN)/python tests/benchmarks/memory/hit_rates.py --write
	$(BIN)/python tests/benchmarks/memory/costs.py --write
	$(BIN)/python tests/benchmarks/memory/language_model.py
	$(BIN)/python tests/benchmarks/memory/compression.py
	$(BIN)/python tests/benchmarks/memory/prequential.py
	$(BIN)/python tests/benchmarks/memory/passkey.py
	$(BIN)/python tests/benchmarks/memory/report.py --write
	$(BIN)/python tests/benchmarks/multimodal/retrieval.py --write
	$(BIN)/python tests/benchmarks/multimodal/digits.py --write
	$(BIN)/python tests/benchmarks/multimodal/shapes.py --write
	$(BIN)/python tests/benchmarks/multimodal/codecs.py --write
	$(BIN)/python tests/benchmarks/multimodal/decoding.py --write

clean:
	rm -rf $(VENV) dist docs/_build docs/reference/generated .pytest_cache .mypy_cache .ruff_cache

# Build isolation is off so that no build environment resolves torch, and one hatchling serves all. The PATH is
# where helix-cpu's build finds cmake and ninja.
$(VENV)/stamp: $(REQUIREMENTS)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt hatchling editables scikit-build-core cmake ninja
	PATH="$(abspath $(BIN)):$$PATH" $(PIP) install --quiet --no-build-isolation --constraint constraints.txt --requirement .ci/requirements.txt
	@$(BIN)/python -m compileall -q helix_kernel plugins/*/src helix-*/src  # else each command compiles anew
	@$(BIN)/helix plugins  # shows what was set up, and keeps the listing for the commands that follow
	@touch $@
