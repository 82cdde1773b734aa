# Every target makes what it needs. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-diffusion up test test-faults check bench bench-faults bench-quality bench-diffusion bench-sequences migrate format

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(STAMP) ## make the virtual environment and install everything (about 6 GB, mostly torch)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python: got %d.%d, expected 3.11 or newer; set PYTHON=..." % sys.version_info[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV); this takes a few minutes the first time"
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@
	@echo "installed; next: make demo, or make up"

demo: $(STAMP) ## see the whole product work: forget, verify, publish, pull
	@$(BIN)/salun demo

demo-diffusion: $(STAMP) ## the same for models that draw: a class and a style are forgotten
	@$(BIN)/python -m demo.generators

up: $(STAMP) ## run the service in the foreground (PORT, SALUN_DATA_DIR); Ctrl-C stops all
	@$(BIN)/salun up

test: $(STAMP) ## run the whole suite on real servers
	@$(BIN)/python -m pytest

test-faults: $(STAMP) ## inject every fault into real processes (two stacks, 7 to 12 minutes)
	@$(BIN)/python -m pytest -q -m '' tests/faults/test_random.py tests/faults/test_workers.py \
	  tests/faults/test_computations.py tests/service/test_cancel_races.py \
	  tests/worker/test_splitting.py & first=$$!; \
	$(BIN)/python -m pytest -q -m '' tests/faults/test_artifacts.py tests/faults/test_broker.py \
	  tests/faults/test_database.py tests/service/test_lease_machine.py; \
	second=$$?; wait $$first && exit $$second

check: $(STAMP) ## format, lint, types, import contracts, container files
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	@$(BIN)/hadolint docker/api.Dockerfile docker/worker.Dockerfile

bench: $(STAMP) ## measure against physical limits; prints ratios with n and spread
	@$(BIN)/python -m benchmarks.saliency
	@$(BIN)/python -m benchmarks.job_memory
	@$(BIN)/python -m benchmarks.service
	@$(BIN)/python -m benchmarks.ingestion --rows 200000

bench-faults: $(STAMP) ## 500 faults by a plan, and what was lost, doubled, how long it took (30 minutes)
	@$(BIN)/python -m benchmarks.faults

bench-quality: $(STAMP) ## compare methods with retraining (DATA=cifar10.parquet, REFERENCE=checkout; takes long)
	@$(BIN)/python -m benchmarks.quality $(if $(DATA),--data $(DATA)) $(if $(REFERENCE),--reference $(REFERENCE)) --out bench-quality

bench-diffusion: $(STAMP) ## compare methods on models that draw; prints mean and sd over seeds (takes long)
	@$(BIN)/python -m benchmarks.diffusion_step
	@$(BIN)/python -m benchmarks.diffusion_memory
	@$(BIN)/python -m benchmarks.diffusion --out bench-diffusion

bench-sequences: $(STAMP) ## twelve requests in a row on one model, from the anchor and chained (8 minutes)
	@$(BIN)/python -m benchmarks.sequences

migrate: $(STAMP) ## bring the database at DATABASE_URL to the newest schema
	@$(BIN)/python -m migrations

format: $(STAMP) ## format and mend what can be mended
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
