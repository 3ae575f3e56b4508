# Thin targets; `make help` explains them. Everything but help and clean needs root: eBPF and namespaces do.
.DEFAULT_GOAL := help
.PHONY: help setup demo test chaos lint bench clean
PY := .venv/bin/python

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

setup: # what the others call first: packages, venv, stubs; silent about what is there
	@.ci/setup

demo: setup ## two clusters on this machine, real packets: the story of ClusterMesh in a table (needs root)
	@$(PY) -m meshd testbed demo

test: setup ## all tests: unit, property, integration with a real etcd, namespaces and packets (needs root)
	@$(PY) -m meshd testbed check
	@$(PY) -m pytest -q -n 3 --dist loadfile

chaos: setup ## faults on a testbed of three clusters under a stream of requests; about six minutes (needs root)
	@$(PY) -m meshd testbed check
	@$(PY) -m pytest -q tests/chaos/chaos_suite.py

lint: setup ## ruff, mypy --strict and the import contract
	@.venv/bin/ruff check . && .venv/bin/ruff format --check .
	@.venv/bin/mypy
	@mkdir -p build
	@.venv/bin/lint-imports --no-cache --config pyproject.toml > build/lint-imports.log 2>&1 || { cat build/lint-imports.log; exit 1; }

bench: setup ## a benchmark: make bench NAME=propagation; prints a table and writes build/bench/NAME.json (needs root)
	@test -n "$(NAME)" && test -f "bench/$(NAME).py" || { \
	  echo "make bench NAME=...: one of $$(grep -l '^    report(' bench/*.py | sed 's|.*/||; s|\.py$$||' | tr '\n' ' ')" >&2; exit 3; }
	@$(PY) -m bench.$(NAME)

clean: ## removes build/, caches and the venv; testbeds that run this copy, and what killed tests left, go first
	@if [ -x .venv/bin/meshd ]; then .venv/bin/meshd testbed down --here && $(PY) -m tests.support.leftovers; fi
	rm -rf build .venv .hypothesis .mypy_cache .ruff_cache .pytest_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f wire/proto/*_pb2*.py wire/proto/*_pb2*.pyi
