# Tercet. Every target works on a fresh clone with nothing but Python 3.11+ and pip.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SERVE ?= 1
PORT ?= 8000
COLLECTION ?= .demo/python-docs

.PHONY: install demo test check slow bench-install bench serve docs
.DEFAULT_GOAL := install

install: .venv/installed ## the package and what it needs, into .venv

.venv/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and was not found" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing (a few minutes the first time) ..."
	@$(PIP) install -q -c constraints.txt -e .
	@touch $@

.venv/installed-dev: .venv/installed
	@$(PIP) install -q -c constraints.txt -e '.[dev]'
	@touch $@

demo: .venv/installed ## index the Python documentation, search it, serve it (SERVE=0 stops before serving)
	@$(BIN)/tercet demo --port $(PORT) $(if $(filter 0,$(SERVE)),--no-serve)

check: .venv/installed-dev ## lint, format, types, import direction
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: check ## check, then the fast tests
	$(BIN)/pytest -q -m "not slow" -n 2 --dist worksteal

slow: .venv/installed-dev ## tests on real collections ($$TERCET_DATA, or ../shared/data)
	$(BIN)/pytest -q -m slow

bench-install: .venv/installed-dev ## the peers that benchmarks compare with
	@$(PIP) install -q -c constraints.txt -e '.[bench]'

bench: bench-install ## every benchmark in full; rewrites docs/benchmarks.md
	$(BIN)/python benchmarks/run_all.py

serve: .venv/installed ## serve COLLECTION (the demo's unless given)
	$(BIN)/tercet serve $(COLLECTION) --port $(PORT)

docs: .venv/installed ## the references of commands and recipes, from their own code
	$(BIN)/python docs/make_commands.py
	$(BIN)/python docs/make_recipe_reference.py
