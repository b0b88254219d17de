# The README's two commands are `make demo` and `make test`; both install what they need into .venv first.
SHELL := /bin/bash
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := true
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help install demo test test-all coverage bench results readme lint ui params lock

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/installed ## the locked dependencies, into .venv

demo: .venv/installed ## the whole pipeline on the sample data, in a throw-away copy of the work tree
	dvc exp run --temp --force --name demo -S data=sample -S train=demo -S evaluate.rounds=3
	@rm -rf demo
	@dvc get --quiet . results/compare --out demo \
		--rev $$(git for-each-ref --format='%(objectname)' --sort=-committerdate 'refs/exps/*/*/demo' | head -n 1)
	@cat demo/table.txt
	@echo
	@echo "Report: $(CURDIR)/demo/report.html"
	@echo "Runs:   make ui, then open http://127.0.0.1:5000/#/experiments/1/runs?compareRunsMode=CHART"

test: lint ## linters, type check and the whole suite but for what is marked slow
	pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: lint ## the slow tests too
	pytest -m ''

bench: .venv/installed ## training's speed and memory beside its own step alone and the usual ways; ten minutes
	python -m benchmarks.benchmark

results: .venv/installed ## keep the last comparison: its figures in docs/results, the README's tables made of them
	python -m tools.readme results/compare/comparison.json
	rm -rf docs/results && mkdir -p docs/results
	cp -rL results/compare/{report.md,comparison.json,figures} docs/results
	(cd results/evaluate && tar -chf - */metrics.json */per_class.csv) | tar -xf - -C docs/results

readme: .venv/installed ## the README's tables, from the figures in docs/results
	python -m tools.readme docs/results/comparison.json

lint: .venv/installed ## linters, type check, the direction of imports
	ruff check .
	ruff format --check .
	mypy
	lint-imports --no-logo

coverage: .venv/installed ## the share of src/'s lines that the default tests run
	pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report term --cov-fail-under 90

ui: .venv/installed ## the MLflow UI over this project's runs, on http://127.0.0.1:5000
	@mkdir -p mlruns
	@case "$$MLFLOW_TRACKING_URI" in \
		http*) echo "The runs are on the server that MLFLOW_TRACKING_URI names: open $$MLFLOW_TRACKING_URI";; \
		*) exec mlflow ui --host $${HOST:-127.0.0.1} --port $${PORT:-5000} \
			--backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlruns/mlflow.db}";; \
	esac

params: .venv/installed ## compose conf/ into params.yaml, as `dvc exp run` does
	python -c "from dvc.utils.hydra import compose_and_dump as compose; \
		compose('params.yaml', '$(CURDIR)/conf', None, 'config', '', [])"

lock: ## resolve pyproject.toml anew: names, versions and hashes for every platform, no host
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header \
		--group dev pyproject.toml -o requirements.lock

.venv/installed: .venv/locked pyproject.toml
	.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

.venv/locked: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "frugalnet needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --require-hashes -r requirements.lock
	touch $@
