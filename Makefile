# Two commands on a fresh machine with python3 (>= 3.11) and make: `make demo` and `make test`.
# Everything is installed into .venv; nothing else is needed beforehand.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tests wait more than they compute. One after the other: make test AT_ONCE=
AT_ONCE ?= -n auto --dist worksteal
PYTEST_ARGS ?=
FAULTS_ARGS ?=
BENCH_ARGS ?= all
GROWTH_ARGS ?=

.PHONY: help demo test check bench growth plots bench-check format soak faults matrix mixed-soak docs clean

help:
	@echo "make demo    run the main job on an SQLite file: no server needed"
	@echo "make test    install what the tests need, a Redis server included, and run them"
	@echo "make check   ruff, mypy --strict, layers test"
	@echo "make bench   benchmarks against other task queues, as ratios; BENCH_ARGS='drain io --repeat 1'"
	@echo "make growth  how aioretryq's figures change with the size of things; GROWTH_ARGS='--only queued --repeat 1'"
	@echo "make plots   pictures of that, docs/images/performance-*.png"
	@echo "make bench-check  whether a task costs more calls, commands or bytes than benchmarks/baseline.json says"
	@echo "make soak    the long runs that 'make test' leaves out; SOAK_SECONDS=600 SOAK_SEED=..."
	@echo "make faults  every fault at full size, ten times, as a table; FAULTS_ARGS='--rounds 1 --only sigkill'"
	@echo "make matrix  clients and workers of both kinds, Celery's and ours, as a table"
	@echo "make mixed-soak  workers of both kinds killed at random for ten minutes; MIXED_SECONDS=600 SOAK_SEED=..."
	@echo "make format  let ruff format the code"

demo: $(VENV)/.demo
	$(BIN)/python -m examples.demo

test: $(VENV)/.test
	sh tests/install_redis.sh $(BIN)/python
	sh tests/install_browser.sh
	$(BIN)/python -m pytest -m "not soak" $(AT_ONCE) $(PYTEST_ARGS)

soak: $(VENV)/.test
	sh tests/install_redis.sh $(BIN)/python
	$(BIN)/python -m pytest -m soak $(PYTEST_ARGS)

faults: $(VENV)/.test
	sh tests/install_redis.sh $(BIN)/python
	PYTHONPATH=tests $(BIN)/python -m faults $(FAULTS_ARGS)

matrix: $(VENV)/.test
	sh tests/install_redis.sh $(BIN)/python
	$(BIN)/python -m pytest -q tests/interop/test_matrix.py

mixed-soak: $(VENV)/.test
	sh tests/install_redis.sh $(BIN)/python
	PYTHONPATH=tests $(BIN)/python -m interop.mixed_soak

check: $(VENV)/.test $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/architecture

# Every other task queue gets an environment of its own under .venv-bench.
bench: $(VENV)/.bench
	sh tests/install_redis.sh $(BIN)/python
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

growth: $(VENV)/.bench
	sh tests/install_redis.sh $(BIN)/python
	$(BIN)/python -m benchmarks.growth $(GROWTH_ARGS)

plots: $(VENV)/.bench
	$(BIN)/python -m benchmarks.plots

bench-check: $(VENV)/.test
	@sh tests/install_redis.sh $(BIN)/python
	$(BIN)/python -m benchmarks.check

format: $(VENV)/.check
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.demo
	$(BIN)/aioretryq settings --markdown > docs/settings.md
	sed -i.bak '/made by: aioretryq settings --celery/,$$d' docs/migrating-from-celery.md && rm docs/*.bak
	$(BIN)/aioretryq settings --celery --markdown >> docs/migrating-from-celery.md

clean:
	rm -rf $(VENV) .venv-bench .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "aioretryq needs Python 3.11 or newer: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One stamp for each set of requirements: installed once, and again when pyproject.toml changes.
$(VENV)/.%: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@touch $@
