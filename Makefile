# What a person types. Needs Python 3.11+ with venv, make, git and a package index; the rest is installed into .venv.

.DEFAULT_GOAL := help
.PHONY: help run dev test lint format bench soak docs image lock clean environment environment-dev environment-bench

BIN := .venv/bin
UV_VERSION := 0.13.9
JOBS ?= 2
export PYTHON

help: ## Show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -e 's/:.*## /\t/' | expand -t 10

run: environment ## Start the gateway with the registry of this folder and a fresh demo key
	@exec $(BIN)/llm-gateway demo

dev: environment ## The same, started anew whenever the code changes
	@exec $(BIN)/llm-gateway demo --reload

test: environment-dev ## Run every test, in JOBS processes (2; with 0 one after the other)
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile $(ARGS)

lint: environment-dev ## Check style, types and import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: environment-dev ## Format the code and fix what can be fixed safely
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

bench: environment-bench ## Measure cost against a plain proxy; results go to bench/RESULTS.md
	@exec $(BIN)/python -m bench $(ARGS)

soak: environment-dev ## Run streams, limits, keys, reloads, canaries and a restart for longer than a test can wait
	@exec $(BIN)/python -m bench.soak $(ARGS)

docs: environment-dev ## Write what is made from the code: tables of settings and of the registry, JSON Schemas, the chart's
	@$(BIN)/python -m gateway.settings.docs docs/settings.md
	@$(BIN)/python -m gateway.registry.docs docs/registry.md
	@$(BIN)/llm-gateway registry schema --out registry/schemas
	@$(BIN)/python -m gateway.registry.crd charts/llm-gateway-crds/files
	@$(BIN)/python -m tools.chart charts/llm-gateway
	@$(BIN)/python -m tools.dashboards charts/llm-gateway/dashboards
	@$(BIN)/python -m tests.support.matrix.docs docs/dialects.md

image: ## Build the image with docker, podman or buildah; IMAGE names it, ARGS go to the builder
	@tools/image.sh $(or $(IMAGE),llm-gateway) $(ARGS)

# Every lock is a part of the last one's resolution, so that a package has one version everywhere. UPGRADE=--upgrade
# takes newer versions; without it only what pyproject.toml asks for changes.
COMPILE := .tools/bin/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --group build
lock: ## Resolve the dependencies of pyproject.toml into the lock files
	@test -x .tools/bin/uv || { "$${PYTHON:-python3}" -m venv .tools && .tools/bin/pip install --quiet uv==$(UV_VERSION); }
	$(COMPILE) $(UPGRADE) --extra embedded --group dev --group bench --output-file requirements-bench.lock
	$(COMPILE) --upgrade -c requirements-bench.lock --extra embedded --group dev --output-file requirements-dev.lock
	$(COMPILE) --upgrade -c requirements-bench.lock --extra embedded --output-file requirements-embedded.lock
	$(COMPILE) --upgrade -c requirements-bench.lock --output-file requirements.lock
	.tools/bin/uv pip compile --group frameworks --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(UPGRADE) \
		--output-file requirements-frameworks.lock

clean: ## Remove what the other targets made
	rm -rf .venv .venv-frameworks .tools tests/npm/node_modules build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache bench/out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

environment:
	@tools/environment.sh requirements-embedded.lock

environment-dev:
	@tools/environment.sh requirements-dev.lock

environment-bench:
	@tools/environment.sh requirements-bench.lock
