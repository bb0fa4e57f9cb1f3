# Everything here starts from a fresh clone: `run`, `test`, `check` and `bench` make the virtual environment themselves.
.DEFAULT_GOAL := help
SHELL := /bin/bash

PORT ?= 8000
PAYRAIL_DATA ?= .payrail
WORKERS ?= logical
ARGS ?=

VENV := .venv
PYTHON := $(VENV)/bin/python
SETUP := deploy/local/environment.sh pyproject.toml requirements-build.txt
UV := $(VENV)/bin/uv
LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header

.PHONY: help run test conformance check format bench bench-quick lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F '\t' '{printf "  make %-11s %s\n", $$1, $$2}'
	@echo "  Variables: PORT=$(PORT) PAYRAIL_DATA=$(PAYRAIL_DATA) (run), ARGS='-k refund' WORKERS=2 (test, bench)"

run: $(VENV)/.ready-run ## start everything on one port, PORT, with its data under PAYRAIL_DATA
	@PORT="$(PORT)" PAYRAIL_DATA="$(PAYRAIL_DATA)" exec $(VENV)/bin/payrail dev

test: $(VENV)/.ready-dev ## run every test against real PostgreSQL, RabbitMQ and Chromium
	@$(PYTHON) -m tests.support.prepare
	@PYTHONHASHSEED=0 $(PYTHON) -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadgroup $(ARGS)

conformance: $(VENV)/.ready-dev ## run every case for every gateway, print the table, write docs/gateways.md
	@$(PYTHON) -m pytest tests/conformance -q -n $(WORKERS) --maxprocesses 4 --dist loadgroup --write-gateway-docs $(ARGS)

check: $(VENV)/.ready-dev ## check formatting, lint, types and import arrows, then run the tests
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(PYTHON) -m mypy
	@$(VENV)/bin/lint-imports --no-cache
	@$(MAKE) --no-print-directory test

format: $(VENV)/.ready-dev ## format the code and mend what the linter can mend
	@$(VENV)/bin/ruff check --fix-only --quiet .
	@$(VENV)/bin/ruff format .

bench: $(VENV)/.ready-dev ## measure everything beside its peers, alone on the machine, in half an hour and more
	@BENCH_PLAN=full PYTHONHASHSEED=0 $(PYTHON) -m pytest tests/bench -m bench -p no:randomly -s $(ARGS)

bench-quick: $(VENV)/.ready-dev ## the same goals but growth, at small sizes in 3 minutes: only good for a look
	@BENCH_PLAN=quick PYTHONHASHSEED=0 $(PYTHON) -m pytest tests/bench -m bench -p no:randomly -s $(ARGS)

lock: $(VENV)/.ready-dev ## resolve the dependencies anew, with hashes (UPGRADE=--upgrade for newer versions)
	@$(LOCK) $(UPGRADE) pyproject.toml -o requirements.txt
	@$(LOCK) $(UPGRADE) --extra dev pyproject.toml -o requirements-dev.txt
	@echo 'setuptools>=80' | $(LOCK) $(UPGRADE) - -o requirements-build.txt
	@echo "requirements*.txt are locked; commit them."

clean: ## remove the virtual environment, caches and reports; the data under PAYRAIL_DATA stays
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .artifacts build dist *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.ready-run: requirements.txt $(SETUP)
	@deploy/local/environment.sh $(VENV) requirements.txt
	@touch $@

$(VENV)/.ready-dev: requirements-dev.txt requirements.txt $(SETUP)
	@deploy/local/environment.sh $(VENV) requirements-dev.txt
	@touch $@ $(VENV)/.ready-run
