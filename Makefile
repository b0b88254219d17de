# The two commands of the README are `make demo` and `make test`; both install what they need into .venv first.
SHELL := /bin/bash
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := true
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: demo test test-all lint ui params lock clean

demo: .venv/installed ## the whole pipeline on the sample data, in a throw-away copy of the work tree
	dvc exp run --temp --force --name demo -S data=sample -S train=demo
	rm -rf demo && dvc get --quiet . results/compare --rev $$(git rev-parse --verify --quiet $$(git for-each-ref --format='%(refname)' 'refs/exps/*/*/demo' | tail -n 1)) --out demo
	@cat demo/table.txt
	@echo "Report: $(CURDIR)/demo/report.html - runs: make ui, then http://127.0.0.1:5000"

test: .venv/installed lint ## linters, type check and the whole suite but for what is marked slow
	pytest

test-all: .venv/installed lint ## the slow tests too
	pytest -m ''

lint: .venv/installed
	ruff check .
	ruff format --check .
	mypy

ui: .venv/installed ## the MLflow UI over this project's runs
	@mkdir -p mlruns
	mlflow ui --host 127.0.0.1 --port $${PORT:-5000} --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlruns/mlflow.db}"

params: .venv/installed ## compose conf/ into params.yaml, as `dvc exp run` does
	python -c "from dvc.utils.hydra import compose_and_dump as compose; compose('params.yaml', '$(CURDIR)/conf', None, 'config', '', [])"

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --require-hashes -r requirements.lock
	.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

lock: ## resolve pyproject.toml anew: names, versions and hashes for every platform, no host
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --group dev pyproject.toml -o requirements.lock
