# Each target sets up what it needs: `make reproduce` and `make test` work on a fresh clone.
PYTHON ?= python3
BIN := .venv/bin
PY_VERSION = -c 'import sys; print("%d.%d" % sys.version_info[:2])'
PRESET ?= photos
# Bytecode is kept, whatever the shell says: each process of the tests, and each that they start, reads all of mechvit.
export PYTHONDONTWRITEBYTECODE =
# One process a core and one thread a process: whole files go to whichever process is free, in the order of tests/longest.py
# (by number of tests, files of few long tests came last, to one process while the others waited).
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

.PHONY: help setup reproduce benchmarks benchmarks-cuda test daily test-fast test-all coverage lint format clean

help:            ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 16

setup: .venv/.installed  ## create .venv with $PYTHON and install mechvit into it, editable, at the pinned versions
ifneq ($(origin PYTHON),file)
	@test "$$($(PYTHON) $(PY_VERSION))" = "$$($(BIN)/python $(PY_VERSION))" || { echo ".venv is of Python $$($(BIN)/python $(PY_VERSION)), and PYTHON=$(PYTHON) is $$($(PYTHON) $(PY_VERSION)): remove .venv, or leave PYTHON out" >&2; exit 1; }
endif

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v >= (3, 11) else f"mechvit needs Python 3.11 or newer, and {sys.executable} is {v[0]}.{v[1]}: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

reproduce: setup  ## the whole paper on real photographs: runs/photos/report.html
	$(BIN)/python scripts/reproduce.py --preset $(PRESET)

benchmarks: setup  ## time everything against its peers: runs/benchmarks (an hour on two cores; leave the machine alone)
	$(BIN)/python benchmarks/model_cost.py --overwrite --out runs/benchmarks/model_cost
	$(BIN)/python benchmarks/cache_activations.py --overwrite --out runs/benchmarks/cache_activations
	$(BIN)/python benchmarks/attention_statistics.py --overwrite --out runs/benchmarks/attention_statistics
	$(BIN)/python benchmarks/attention_statistics.py --tokens 4097 --no-peers --rounds 2 --overwrite --out runs/benchmarks/attention_statistics_4097
	$(BIN)/python benchmarks/model_patching.py --overwrite --out runs/benchmarks/model_patching
	$(BIN)/python benchmarks/sae_training.py --overwrite --out runs/benchmarks/sae_training
	$(BIN)/python benchmarks/sae_step.py --overwrite --out runs/benchmarks/sae_step
	$(BIN)/python benchmarks/store.py --overwrite --out runs/benchmarks/store
	$(BIN)/python benchmarks/kinship.py --overwrite --out runs/benchmarks/kinship
	$(BIN)/python benchmarks/interval_coverage.py --overwrite --out runs/benchmarks/interval_coverage
	$(BIN)/python benchmarks/startup.py --overwrite --out runs/benchmarks/startup
	$(BIN)/python benchmarks/report_load.py --overwrite --out runs/benchmarks/report_load

benchmarks-cuda: setup  ## the same on a GPU, in bfloat16 and large batches
	$(BIN)/python benchmarks/model_cost.py --device cuda --overwrite --out runs/benchmarks/cuda/model_cost
	$(BIN)/python benchmarks/cache_activations.py --device cuda --dtype bfloat16 --batch-size 256 --overwrite --out runs/benchmarks/cuda/cache_activations
	$(BIN)/python benchmarks/attention_statistics.py --device cuda --dtype bfloat16 --tokens 37 197 577 1370 4097 --overwrite --out runs/benchmarks/cuda/attention_statistics
	$(BIN)/python benchmarks/sae_training.py --device cuda --overwrite --out runs/benchmarks/cuda/sae_training
	$(BIN)/python benchmarks/sae_step.py --device cuda --overwrite --out runs/benchmarks/cuda/sae_step
	$(BIN)/python benchmarks/store.py --device cuda --parts streaming mixing writer --images 2048 --overwrite --out runs/benchmarks/cuda/store
	$(BIN)/python benchmarks/model_patching.py --device cuda --dtype bfloat16 --overwrite --out runs/benchmarks/cuda/model_patching

test: setup      ## lint, type check, and every test but the slow and GPU ones
	@$(MAKE) --no-print-directory --jobs 2 lint daily

daily: setup
	$(PYTEST) -m 'not slow and not gpu'

test-fast: setup  ## what is quick and starts neither a browser nor another process (no lint)
	$(PYTEST) -m 'not slow and not gpu and not browser and not processes and not long'

test-all: setup lint  ## everything, every annotation checked (GPU tests skip themselves without a GPU)
	EVERY_TYPE=1 $(PYTEST)

coverage: setup  ## the tests of `make test`, and the lines and branches of mechvit that they leave out
	EVERY_TYPE=1 $(PYTEST) -m 'not slow and not gpu' --cov --cov-report=term

lint: setup      ## ruff (lint and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup    ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:           ## remove caches and runs, keep .venv
	rm -rf runs .pytest_cache .ruff_cache .mypy_cache .hypothesis .coverage
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
