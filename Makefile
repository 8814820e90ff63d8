# Everything a person types. `make` alone prints this list.
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo up test test-slow check format bench proto lock clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(STAMP) ## virtual environment with the locked dependencies

$(STAMP): requirements.lock pyproject.toml deploy/setup-venv.sh
	sh deploy/setup-venv.sh $(VENV)
	touch $@

demo: $(STAMP) ## three real sites: plan, apply, serve, lose one, bring it back, audit
	$(BIN)/hinterland demo

up: $(STAMP) ## the demo fleet, kept running for hands-on use
	$(BIN)/hinterland up

test: $(STAMP) ## the tests (set HINTERLAND_DATA for those on public reference data)
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(STAMP) ## drills and scale runs
	$(BIN)/python -m pytest -m slow

check: $(STAMP) ## format, lint, types, layers, tidiness
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/tidy

format: $(STAMP) ## rewrite the sources in house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## every benchmark, each figure beside its peer or limit
	$(BIN)/python -m pip install -q --no-deps --require-hashes -r benchmarks/requirements.lock
	$(BIN)/python -m benchmarks

proto: $(STAMP) ## regenerate agents/v1 from proto/agents/v1
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=. --pyi_out=. --grpc_python_out=. \
	  proto/agents/v1/*.proto

lock: ## resolve the dependencies anew (needs uv)
	uv pip compile --universal --python-version 3.11 --extra demo --extra dev --generate-hashes \
	  --no-emit-index-url --no-header -q pyproject.toml -o requirements.lock

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
