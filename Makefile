# Everything runs in .venv, which the first command creates. `make VENV=elsewhere ...` uses another folder.
PYTHON ?= python3
VENV ?= .venv
DATA ?= .data
THREADS ?= 1
BIN := $(VENV)/bin

.PHONY: quickstart test test-all check format bench evidence docs wheel

## Pre-train MobileNetV2 on the built-in drawn images (a few minutes on two cores).
quickstart: $(VENV)/.installed
	$(BIN)/sslight pretrain quickstart output=runs/quickstart-$$(date +%Y%m%d-%H%M%S)

## The default tests, in two processes.
test: $(VENV)/.developing
	$(BIN)/python -m pytest

## All tests that this machine can run.
test-all: $(VENV)/.developing
	$(BIN)/python -m pytest -m "slow or not slow"

## Formatting, lint, types and the import rules of the house.
check: $(VENV)/.developing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.developing
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

## Speed against other implementations on this machine.
bench: $(VENV)/.developing
	$(BIN)/python benchmarks/loader.py
	$(BIN)/python benchmarks/step.py

## The next runs of the plans in benchmarks/replication/plans, at the lowest priority, until Ctrl-C; a second start
## continues. PLANS="first selection" takes these only; DATA is the folder of the sets.
evidence: $(VENV)/.developing
	$(BIN)/python benchmarks/replication/evidence.py $(PLANS) --data $(DATA) --threads $(THREADS)

## The documentation as a site in build/site; a broken link is an error.
docs: $(VENV)/.documenting
	$(BIN)/python docs/site.py
	$(BIN)/zensical build --strict --clean
	@echo "open build/site/index.html"

## A wheel in dist/, to install elsewhere.
wheel: $(VENV)/.created
	rm -rf build/lib  # or files that were removed would be in it
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	@ls dist/sslight-*.whl

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.developing: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group dev
	touch $@

$(VENV)/.documenting: $(VENV)/.developing
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@
