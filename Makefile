# `make help` says what there is. Everything here works as the first command in a fresh clone: what a target
# needs, it makes. Needed beforehand: Python 3.11 or newer, cargo and make.
PYTHON ?= python3
VENV_PYTHON := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help venv build servers demo demo-check test test-full lint bench vectors clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## start a Django site and a Rust service that share one login
	$(VENV_PYTHON) examples/shared_login/demo.py run

demo-check: build ## play the demo's story in a headless browser, without a person
	$(VENV_PYTHON) examples/shared_login/demo.py check

test: ## everything that must hold before a change lands (ONLY=word: the steps with that word in their name)
	$(PYTHON) scripts/test.py $(ONLY)

test-full: export HYPOTHESIS_PROFILE = full
test-full: export PROPTEST_CASES = 20000
test-full: ## the same with ten times as many generated cases
	$(PYTHON) scripts/test.py $(ONLY)

lint: ## formatting, clippy, ruff and types: the quick part of `make test`
	$(PYTHON) scripts/test.py --lint

venv: ## .venv with the development tools
	$(PYTHON) scripts/envs.py venv

build: ## the package, optimised, in .venv
	$(PYTHON) scripts/envs.py build

servers: ## install the servers that the tests start: Redis, PostgreSQL, MariaDB, memcached, PgBouncer, Chromium
	$(PYTHON) scripts/install_servers.py

bench: build ## the codec and the engines, each with its ratio to Django in the same run
	PYTHON=$(abspath $(VENV_PYTHON)) cargo bench --bench codec
	$(VENV_PYTHON) -m pytest benches

vectors: ## make tests/vectors anew (needs the Pythons and Django releases named there)
	$(PYTHON) tests/vectors/generate.py

clean: ## remove everything that was built, the environments included
	rm -rf target dist .venv .venvs .demo .mypy_cache .pytest_cache .ruff_cache .hypothesis
