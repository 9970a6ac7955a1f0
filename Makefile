# `make help` says what there is. Everything here works as the first command in a fresh clone: what a target
# needs, it makes. Needed beforehand: Python 3.11 or newer, cargo and make.
PYTHON ?= python3
VENV_PYTHON := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help venv build servers demo demo-check example test test-full lint bench bench-stores bench-web bench-cleanup bench-migrate instructions vectors clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## start a Django site and a Rust service that share one login (STORE=postgres, redis, ...)
	$(VENV_PYTHON) examples/shared_login/demo.py run --store $(or $(STORE),sqlite)

demo-check: build ## play the demo's story on every store, without a person (STORE=sqlite: in a headless browser)
	$(VENV_PYTHON) examples/shared_login/demo.py check --store $(or $(STORE),all)

example: build ## start one of the Rust examples beside a Django site: NAME=axum_api, actix_api or axum_templates
	$(VENV_PYTHON) examples/run.py $(NAME)

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

bench: build ## the Python engines beside Django's, other packages and floors (ONLY=words: redis, sqlite, ...)
	$(VENV_PYTHON) -m pip install --quiet --group bench
	$(VENV_PYTHON) benches/python/bench.py $(ONLY) --plots target/plots

instructions: build ## count the instructions of encode, decode and a load, and keep the counts for `make test`
	$(VENV_PYTHON) benches/python/instructions.py --write

bench-stores: ## the Rust crate: its codec beside Django's, its stores beside their drivers
	PYTHON=$(abspath $(VENV_PYTHON)) cargo bench --bench codec
	cargo bench --bench stores --features sqlite,postgres,mysql,redis,memcached,filebased,file

bench-web: build ## one endpoint in Django (gunicorn, uvicorn) and in Rust (axum), side by side under wrk
	$(VENV_PYTHON) benches/web/bench.py

bench-cleanup: build ## Django's clearsessions beside ours, under clients (ROWS=100000 for a small one, ONLY=sqlite)
	$(VENV_PYTHON) benches/cleanup.py --rows $(or $(ROWS),5000000) $(ONLY)

bench-migrate: build ## a million sessions from PostgreSQL to Redis and back, under clients (SESSIONS=20000 for a few)
	$(VENV_PYTHON) benches/migrate.py --sessions $(or $(SESSIONS),1000000)

vectors: ## make tests/vectors anew (needs the Pythons and Django releases named there)
	$(PYTHON) tests/vectors/generate.py

clean: ## remove everything that was built, the environments included
	rm -rf target dist .venv .venvs .demo .mypy_cache .pytest_cache .ruff_cache .hypothesis
