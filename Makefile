# Everything a fresh machine needs is Python >= 3.11 and make: the rest is installed into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# What SyncFlow is compared with has an environment of its own: it is no dependency.
COMPARED := .venv-compare
COMPARED_LOCK := syncflow_dagster/bench/others/requirements.lock

# The certificates that this machine trusts, as pip uses them.
export UV_SYSTEM_CERTS ?= true

# Each process of a test, a demo or a launched run would compile what it imports, for seconds.
export UV_COMPILE_BYTECODE ?= true
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo up test coverage mutants fuzz torture nights check format lint types imports docs reference compare lock sbom licences clean

demo: $(INSTALLED)  ## sync a seeded ERP three times and prove that hub and ERP are equal
	$(BIN)/syncflow demo

up: $(INSTALLED)  ## database, sandbox, Dagster UI and daemon on this machine; Ctrl-C ends all
	$(BIN)/syncflow up

test: $(INSTALLED)  ## the whole suite, in parallel
	.ci/in_memory $(BIN)/pytest -n 3 --dist loadscope --no-loadscope-reorder

coverage: $(INSTALLED)  ## the same, measured: fails under 80 % of all, or 95 % of a pure module; slow
	$(BIN)/coverage erase
	.ci/in_memory $(BIN)/coverage run -m pytest -n 3 --dist loadscope --no-loadscope-reorder --timeout 900
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered --fail-under 80
	$(BIN)/python .ci/covered.py

mutants: $(INSTALLED)  ## changes the code of the decisions bit by bit; what no test notices is listed; a quarter of an hour
	$(BIN)/mutmut run
	$(BIN)/mutmut results

nights: $(INSTALLED)  ## fourteen nights under the real daemon and a moved clock (needs faketime); takes minutes
	SYNCFLOW_SWEEPS=2x7 $(BIN)/pytest -q tests/e2e/test_sweeps.py

fuzz: $(INSTALLED)  ## many requests of every kind to every call of the API, against its own description
	SYNCFLOW_FUZZ=$${SYNCFLOW_FUZZ:-300} $(BIN)/pytest -q -n 2 --timeout 3600 tests/shell/test_openapi.py

torture: $(INSTALLED)  ## 200 random kills under random faults; SYNCFLOW_TORTURE_SEED=N repeats one
	SYNCFLOW_TORTURE_KILLS=$${SYNCFLOW_TORTURE_KILLS:-200} $(BIN)/pytest -q tests/e2e/test_torture.py

check: format lint types imports docs  ## all that is no test: format, lint, types, import contracts, documentation

format: $(INSTALLED)
	$(BIN)/ruff format --check .

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/bandit --quiet --configfile pyproject.toml --severity-level medium --recursive syncflow_core syncflow_dagster

types: $(INSTALLED)
	$(BIN)/mypy

imports: $(INSTALLED)
	$(BIN)/lint-imports

compare: $(INSTALLED) $(COMPARED)/.installed  ## SyncFlow, dlt, drt-core and a plain program on the same rows; ARGS="--rows 100000"
	$(BIN)/syncflow bench compare --python $(COMPARED)/bin/python $(ARGS)

docs: $(INSTALLED)  ## the documentation as a site: open site/index.html; a link that leads nowhere ends it
	rm -rf site
	$(BIN)/zensical build --clean --strict

reference: $(INSTALLED)  ## the pages of docs/reference, made of the code
	$(BIN)/python -m syncflow_dagster.reference docs/reference

lock: $(INSTALLED)  ## resolve the dependencies anew
	$(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --generate-hashes --group dev \
		--custom-compile-command "make lock" pyproject.toml --output-file requirements.lock
	$(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --generate-hashes --group compare \
		--custom-compile-command "make lock" --output-file $(COMPARED_LOCK)

sbom: $(INSTALLED)  ## what an installation brings, as CycloneDX: dist/sbom.json
	$(BIN)/uv venv --quiet --clear dist/sbom
	VIRTUAL_ENV=dist/sbom $(BIN)/uv pip install --quiet --require-hashes --constraint requirements.lock -r pyproject.toml
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file dist/sbom.json dist/sbom/bin/python
	rm -rf dist/sbom

licences: $(INSTALLED)  ## under which licences that is: docs/operations/licences.md
	$(BIN)/python .ci/licences.py

$(INSTALLED): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip sync --quiet --require-hashes requirements.lock
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(COMPARED)/.installed: $(COMPARED_LOCK) $(INSTALLED)
	test -x $(COMPARED)/bin/python || $(BIN)/python -m venv --without-pip $(COMPARED)
	VIRTUAL_ENV=$(abspath $(COMPARED)) $(BIN)/uv pip sync --quiet --require-hashes $(COMPARED_LOCK)
	@touch $@

clean:  ## remove what was installed and what the demo left
	rm -rf $(VENV) $(COMPARED) site mutants .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	if [ -e .syncflow/demo ]; then rm -rf .syncflow; fi
