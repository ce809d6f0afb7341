# Two commands: `make reproduce` and `make test`. Both create .venv from requirements.lock when it is not there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

export PATH := $(CURDIR)/$(BIN):$(PATH)
# Both commands start some hundred short processes; each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE
# Snakemake does not start without a home directory that it can write to, which containers often lack.
ifneq ($(shell test -n "$$HOME" && test -w "$$HOME" && echo yes),yes)
export HOME := $(CURDIR)/$(VENV)/home
endif

.PHONY: env reproduce paper test test-slow mutants lint ui watch doctor

# An environment names its own place in many files: one that was moved or copied with its project would run the code of
# the place that it was made for, and is made anew.
MADE_FOR := $(shell sed -n 's/^command = //p' $(VENV)/pyvenv.cfg 2>/dev/null)
ifeq ($(shell printf '%s' "$(MADE_FOR)" | grep -v -F " $(CURDIR)/$(VENV)" >/dev/null && echo moved),moved)
.PHONY: $(READY)
STALE := $(VENV)
endif

env: $(READY)

$(READY): requirements.lock pyproject.toml
	$(if $(STALE),rm -rf $(STALE))
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "heterobench needs Python 3.11 or newer; name one with PYTHON=")'
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

reproduce: env
	snakemake $(ARGS)
	snakemake --report results/report.html $(ARGS)

paper: env
	snakemake paper $(ARGS)

test: env
	python -m pytest -m "not slow" -n 2 --dist loadgroup --no-loadscope-reorder $(ARGS)

test-slow: env
	python -m pytest -m slow $(ARGS)

mutants: env
	python -m pytest -m slow -n 2 tests/contract/test_mutations.py $(ARGS)

lint: env
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow

ui: env
	heterobench ui $(ARGS)

watch: env
	heterobench watch $(ARGS)

doctor: env
	heterobench doctor
