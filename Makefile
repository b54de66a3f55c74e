# make demo   try it: no account, no key, no network; open the page that it prints
# make run    run the bot with your settings (environment or queqiao.toml)
# make test   every test     make lint   style and types     make bench   ratios (QUICK=1)
# make fuzz   SEED=… RUNS=…   what is promised, under misfortunes by seed; REAL=… kills processes

PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo run test lint bench fuzz lock browser clean

help:
	@sed -n 's/^# //p' Makefile

demo: .venv/run.done
	$(BIN)/queqiao demo

run: .venv/run.done
	$(BIN)/queqiao run

test: .venv/dev.done browser
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal
WORKERS ?= 2

lint: .venv/dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/dev.done
	$(BIN)/python tests/bench/run.py $(if $(QUICK),--quick) $(if $(AGAINST),--against $(AGAINST))

fuzz: .venv/dev.done
	@echo "SEED=$(SEED) RUNS=$(RUNS) REAL=$(REAL)"
	$(BIN)/python tests/fuzz/run.py --shrink --jobs $(JOBS) --seed $(SEED) --runs $(RUNS)
	$(BIN)/python tests/fuzz/run.py --real --jobs $(JOBS) --seed $(SEED) --runs $(REAL)
SEED ?= $(shell date +%Y%m%d)
RUNS ?= 1000
REAL ?= 20
JOBS ?= 2

browser:
	@.ci/browser

lock: .venv/dev.done
	$(BIN)/pip-compile $(LOCKING) --output-file=requirements.lock pyproject.toml
	$(BIN)/pip-compile $(LOCKING) --extra=dev --constraint=requirements.lock --output-file=requirements-dev.lock pyproject.toml
LOCKING := --quiet --strip-extras --generate-hashes --allow-unsafe --upgrade \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "需要 Python 3.11 或更新 / Python 3.11 or newer is needed (PYTHON=… make …)"; exit 1; }
	@$(PYTHON) -m venv .venv || \
	  { rm -rf .venv; echo "缺少 venv：sudo apt-get install python3-venv / venv is missing"; exit 1; }

.venv/run.done: .venv/bin/python requirements.lock pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

.venv/dev.done: .venv/run.done requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
