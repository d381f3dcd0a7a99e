# make run    start the platform with a real example model       make test   all tests, with what they need
# make check  the developer's loop, under three minutes          make bench  the benchmarks, as ratios
# make env    the environment alone (.venv)                      make docs   rewrite the generated reference pages
# make faults kill, stop, slow and overload a real platform; ARGS="W01 --rounds 3", report in docs/faults.md
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
    $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
WORKERS ?= auto

.PHONY: help env run test check bench docs faults lint clean

help:
	@sed -n 's/^# //p' Makefile | head -4

env: .venv/.ready

.venv/.ready: locks/dev.txt pyproject.toml tools/make_env.sh
	@tools/make_env.sh "$(PYTHON)"

run: env
	@$(BIN)/python examples/digits/run.py

test: env
	@$(BIN)/python tools/system_packages.py
	@$(BIN)/pytest -n $(WORKERS) --dist worksteal -q $(ARGS)

check: env lint
	@$(BIN)/pytest -n $(WORKERS) --dist worksteal -q -m "not slow and not platform" $(ARGS)

lint: env
	@$(BIN)/ruff format --check src tests tools benchmarks examples
	@$(BIN)/ruff check src tests tools benchmarks examples
	@$(BIN)/mypy
	@PYTHONPATH=. $(BIN)/lint-imports --no-logo
	@$(BIN)/python tools/check_sizes.py
	@$(BIN)/python tools/generate_reference.py --check

docs: env
	@$(BIN)/python tools/generate_reference.py

faults: env
	@$(BIN)/python -m tests.faults --report docs/faults.md $(ARGS)

bench: env
	@$(BIN)/python -m benchmarks.short

fuzz: env
	@$(BIN)/python -m tests.fuzz $(ARGS)

clean:
	rm -rf .venv .envs .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
