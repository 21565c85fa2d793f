# Every target makes .venv and installs what it needs by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-slow lint format bench clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(STAMP): requirements.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "likeness: $(PYTHON) not found; install Python 3.11 or 3.12 or set PYTHON=" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' || { echo "likeness: needs Python 3.11 or 3.12; set PYTHON=" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

venv: $(STAMP) ## Make .venv and install into it

demo: $(STAMP) ## Rebuild the embedded sample, train a tiny network on it, animate a photograph
	$(BIN)/python -m pipelines.sample demo

test: $(STAMP) ## Run the tests, two at a time (prints what was skipped and why)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-slow: $(STAMP) ## Run the long fault tests: kills, full disks, clusters (an hour)
	$(BIN)/python -m pytest -m slow

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## Let ruff rewrite the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## Run the benchmarks, each paired with its reference
	$(BIN)/python -m benchmarks.catalog --sizes 10000,100000
	$(BIN)/python -m benchmarks.scale --sizes 10000,100000
	$(BIN)/python -m benchmarks.crop
	$(BIN)/python -m benchmarks.landmarks

clean: ## Remove what the demo made, and nothing else (not .venv)
	@grep -q '^  metadata: sample/metadata' params.yaml || { echo "likeness: params.yaml is not the sample's: data, work and models here are your own, and stay" >&2; exit 2; }
	rm -rf data work sample metrics models results dataset_cards/sample .dvc/cache .dvc/tmp dvc.lock
