# make setup | demo | test | lint | bench | conformance SUITE=DIR | clean.  Everything a bare Debian 12 lacks is installed by tools/setup.sh.
PYTHON := .venv/bin/python
STAMP := .venv/.setup
SOURCES := pyproject.toml constraints.txt tools/setup.sh

.PHONY: setup demo test lint bench conformance clean

setup: $(STAMP)

$(STAMP): $(SOURCES)
	bash tools/setup.sh
	touch $@

demo: $(STAMP)
	$(PYTHON) tools/demo.py

test: $(STAMP)
	$(PYTHON) -m pytest

lint: $(STAMP)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo

bench: $(STAMP)
	$(PYTHON) bench/run.py

# docker-py's own integration tests; the folder with docker_py.sh is given: make conformance SUITE=../shared/conformance
conformance: $(STAMP)
	$(PYTHON) tools/conformance.py $(SUITE)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist
