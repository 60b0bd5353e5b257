# Everything runs in .venv, built from the lock; needs Python 3.11+, git and make only.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH_VENV := .venv-bench
BENCH_PYTHON := $(BENCH_VENV)/bin/python

.PHONY: help setup demo test coverage lint format lock wheel-smoke install-smoke soak fuzz bench bench-quick bench-curves bench-cost profile clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ -/'

$(VENV)/.installed: requirements-dev.lock
$(BENCH_VENV)/.installed: requirements-bench.lock
%/.installed: pyproject.toml
	$(PYTHON) -m venv $*
	$*/bin/python -m pip install --quiet --require-hashes --only-binary :all: -r $(filter %.lock,$^)
	$*/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

setup: $(VENV)/.installed  ## make .venv with the locked dependencies

demo: setup  ## deliver sample files of all supported types, without any account
	$(BIN)/currents-bridge demo

test: setup  ## the whole test suite
	$(BIN)/pytest -n 3 --dist worksteal

coverage: setup  ## the whole test suite, and which lines it reaches
	$(BIN)/pytest -n 3 --dist worksteal --cov --cov-report=term

lint: setup  ## ruff, mypy strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## let ruff format and mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

UV_COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras \
  --upgrade --no-emit-index-url --no-emit-find-links --no-annotate --no-header pyproject.toml

lock:  ## resolve pyproject.toml anew into the lock files
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/$(UV_COMPILE) --extra demo --group dev -o requirements-dev.lock
	$(BIN)/$(UV_COMPILE) --constraint requirements-dev.lock -o requirements.lock
	$(BIN)/$(UV_COMPILE) --constraint requirements-dev.lock --extra demo -o requirements-demo.lock
	$(BIN)/$(UV_COMPILE) --constraint requirements-dev.lock --extra demo --group bench -o requirements-bench.lock

SMOKE_INSTALL := build/smoke/bin/pip install --quiet

wheel-smoke: setup  ## build the wheel and try it on its locks, without and with the extra `demo`
	rm -rf dist build/smoke
	$(BIN)/python -m build --no-isolation --wheel
	$(PYTHON) -m venv build/smoke
	$(SMOKE_INSTALL) --require-hashes --only-binary :all: -r requirements.lock
	$(SMOKE_INSTALL) --no-deps dist/*.whl
	cd build && smoke/bin/currents-bridge --help >/dev/null
	cd build && smoke/bin/currents-bridge demo; test $$? = 2
	$(SMOKE_INSTALL) --require-hashes --only-binary :all: -r requirements-demo.lock
	cd build && smoke/bin/currents-bridge demo

install-smoke:  ## install the locks with the oldest and the newest pip, and the program in each way of the README
	PYTHON=$(PYTHON) .ci/install-smoke

soak: setup  ## a million events, a third of all requests faulty, 50 kills: nothing lost
	$(BIN)/python benchmarks/soak.py

fuzz: setup  ## 6,000 damaged files, 6,000 random ones, and those that were made to cost much
	FUZZ_FILES=6000 $(BIN)/pytest -n 2 tests/fuzz

bench: $(BENCH_VENV)/.installed  ## measure beside the peers, into docs/performance.md; CASE="steady small" for some
	$(BENCH_PYTHON) -m benchmarks.bench --write-docs $(CASE:%=--case %)

bench-quick: setup  ## the same with tiny sizes, to see that it works
	$(BIN)/python -m benchmarks.bench --quick --results build/bench-quick $(CASE:%=--case %)

bench-curves: $(BENCH_VENV)/.installed  ## how throughput changes with size, history and latency; CURVE=latency for one
	$(BENCH_PYTHON) -m benchmarks.curves $(CURVE:%=--curve %)

bench-cost: setup  ## what grows with history or backlog, and what does not
	$(BIN)/python -m benchmarks.cost

profile: $(BENCH_VENV)/.installed  ## a flame graph of the steady state: build/profile.svg
	$(BENCH_PYTHON) -m benchmarks.flamegraph $(OPTIONS)

clean:  ## remove what was built
	rm -rf $(VENV) $(BENCH_VENV) build dist
