# What CI runs. `make run` and `make test` set themselves up; a second call installs nothing. TORCH=cpu|cuda decides
# which build of torch is taken; else scripts/install.py does.
.DEFAULT_GOAL := help
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
TEST_STAMP := $(VENV)/installed-test
export TORCH
MATRIX ?= benchmarks.yaml

.PHONY: help run reproduce test lint bench nightly bars gpu docs clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/'

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "mnist_bench needs Python 3.11 or later: install it, or say make PYTHON=/path/to/python" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python scripts/install.py
	@touch $@

$(TEST_STAMP): $(STAMP)
	$(BIN)/python scripts/install.py test
	@touch $@

run: $(STAMP) ## the benchmark: MATRIX=benchmarks.yaml ARGS="--data-dir ..."
	$(BIN)/python -m mnist_bench run $(MATRIX) $(ARGS)

reproduce: $(STAMP) ## the tutorial's experiments beside published: ARGS="--seeds 1 --data-dir ..."
	$(BIN)/python -m mnist_bench reproduce $(ARGS)

# Stealing keeps neighbours together: what they share is made once.
test: $(TEST_STAMP) ## the tests, in two processes (about 8 minutes); adds what they need
	$(BIN)/python -m pytest -m "not bars" -n 2 --dist worksteal $(ARGS)

lint: $(TEST_STAMP) ## style, types and import walls
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(TEST_STAMP) ## pytest-benchmark suites: cells of MATRIX, and the harness itself
	$(BIN)/python -m pytest bench -o python_files='bench_*.py' --matrix $(MATRIX) --benchmark-only --benchmark-storage=.benchmarks --benchmark-autosave $(ARGS)

nightly: $(TEST_STAMP) ## 3,000 spoilt folders of the day's draw (half an hour)
	HOSTILE_MUTANTS=3000 HOSTILE_SALT=$$(date +%F) $(BIN)/python -m pytest tests/golden/test_hostile.py -n 2 $(ARGS)

bars: $(TEST_STAMP) ## the long proofs, by hand, on a quiet machine (hours)
	$(BIN)/python -m pytest -m bars -s $(ARGS)
	$(BIN)/python -m bench.aa
	$(BIN)/python -m bench.overhead

gpu: $(TEST_STAMP) ## writes docs/gpu.md: everything that needs an NVIDIA GPU (hours)
	$(BIN)/python scripts/gpu.py $(ARGS)

docs: $(STAMP) ## what is generated: docs/cli.md, the JSON Schema
	$(BIN)/python scripts/matrix_schema.py > mnist_bench/schema.json.new
	mv mnist_bench/schema.json.new mnist_bench/schema.json
	$(BIN)/python scripts/cli_reference.py > docs/cli.md

clean: ## removes what was installed here, not results/
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
