# One command each: demo, test, check, bench. The virtual environment and every tool are made on first use;
# a target installs what it needs and no more. uv is used where it is present, else venv and pip.

PY      ?= python3
VENV    := .venv
BIN     := $(VENV)/bin
UV      := $(shell command -v uv 2>/dev/null)
DEMO_ARGS ?=

ifeq ($(UV),)
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
else
PIP_INSTALL = uv pip install --quiet --python $(BIN)/python
endif

.PHONY: help demo test test-all test-docker test-browser check layers quick images bench mutants sim-long gas artifacts clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

$(BIN)/python:
ifeq ($(UV),)
	$(PY) -m venv $(VENV)
else
	uv venv --quiet --allow-existing --seed --python $(PY) $(VENV)
endif

$(VENV)/.lab: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -c constraints.txt -e '.[lab]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@# torch first, and by pip: a resolver that may choose takes the newest build with gigabytes of CUDA.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(PIP_INSTALL) -c constraints.txt -e '.[dev,learn]'
	@# The allocators' kernels are compiled once here; every later process takes them from numba's cache.
	$(BIN)/python -c 'from edgora.allocator import registry; [registry.policy("mta", n) for n in ("priced", "exact", "qlearning")]'
	@touch $@ $(VENV)/.lab

node_modules/.ready: package.json package-lock.json
	@# Not `npm ci`: it wants the binaries of all platforms in the lock, which holds this one's. Integrity is checked all the same.
	npm install --no-save --silent --no-fund --no-audit --ignore-scripts
	@touch $@

demo: $(VENV)/.lab ## four nodes, a fleet, >= 24 real tasks, in one process; under a minute
	$(BIN)/edgora demo $(DEMO_ARGS)

test: $(VENV)/.dev node_modules/.ready ## every test that needs no container engine
	@command -v redis-server >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	  && { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq redis-server >/dev/null; }; } \
	  || echo "redis-server is not installed: the Redis tests will be skipped" >&2
	$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m 'not slow and not docker and not browser'

test-all: $(VENV)/.dev node_modules/.ready ## the slow ones too
	$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m 'not docker and not browser'

test-docker: $(VENV)/.dev node_modules/.ready ## the container tests: needs a running engine
	EDGORA_REQUIRE_DOCKER=1 $(BIN)/pytest -q -m docker tests/e2e

test-browser: $(VENV)/.dev node_modules/.ready ## the board in a real Chromium, against the embedded platform
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	  && { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; }; } \
	  || { echo "chromium is not installed: the board cannot be tested" >&2; exit 1; }
	$(BIN)/pytest -q -m browser tests/browser

images: ## the platform's container images; needs a running engine
	@# One after the other: an engine without BuildKit would make the shared layers twice at a time.
	for service in genesis allocator fleet; do docker compose build $$service || exit 1; done

check: $(VENV)/.dev node_modules/.ready layers ## lint, types, layers, committed artifacts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m edgora.contracts.build --check
	$(BIN)/python -m edgora.compute.kernels check
	$(BIN)/python -m edgora.lab.reproduce.page --check

layers: $(VENV)/.dev
	@rm -rf $(VENV)/layers && mkdir -p $(VENV)/layers/edgora
	@ln -s $(CURDIR)/services/edgora/* $(CURDIR)/allocator/edgora/* $(CURDIR)/contracts/edgora/* $(CURDIR)/clients/edgora/* $(VENV)/layers/edgora/
	PYTHONPATH=$(VENV)/layers $(BIN)/lint-imports --no-cache

artifacts: $(VENV)/.dev node_modules/.ready ## rebuild contract artifacts and kernels
	$(BIN)/python -m edgora.contracts.build
	$(BIN)/python -m edgora.compute.kernels build

quick: $(VENV)/.dev node_modules/.ready ## every table and figure of the papers, with few seeds
	$(BIN)/edgora reproduce all --quick --out run/quick

bench: $(VENV)/.dev node_modules/.ready ## what trust costs: end to end beside the direct call
	$(BIN)/edgora bench spine

mutants: $(VENV)/.dev node_modules/.ready ## planted bugs: each must be caught
	$(BIN)/python tests/sim/mutants.py
	$(BIN)/python tests/unit/market/mutants.py
	$(BIN)/python tests/chain/mutants.py

sim-long: $(VENV)/.dev ## 1,000 seeded fault schedules of the ledger
	$(BIN)/edgora sim --seeds 0..999 --json

gas: $(VENV)/.dev node_modules/.ready ## gas per function, measured on anvil
	$(BIN)/edgora gas

clean: ## everything that make made
	rm -rf $(VENV) node_modules dist run
