# Start with `make demo` and `make test`. Targets that need the environment install it into .venv first.
SHELL := /bin/bash
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := true
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help install demo test test-all coverage torture bench bench-gpu verify results readme lint ui params lock

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/installed ## install the locked dependencies into .venv

demo: .venv/installed ## run the whole pipeline on the sample data, in a temporary copy of the project
	dvc exp run --temp --force --name demo -S data=sample -S train=demo -S robustness=demo -S evaluate.rounds=3
	@rm -rf demo
	@dvc get --quiet . results/compare --out demo \
		--rev $$(git for-each-ref --format='%(objectname)' --sort=-committerdate 'refs/exps/*/*/demo' | head -n 1)
	@cat demo/table.txt
	@echo
	@echo "Report: $(CURDIR)/demo/report.html"
	@echo "Runs:   make ui, then open http://127.0.0.1:5000/#/experiments/1/runs?compareRunsMode=CHART"

test: lint ## run linters, type check and all tests except the slow ones
	pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: lint ## run linters, type check and all tests
	pytest -m ''

bench: .venv/installed ## compare training speed and memory with the step alone and with common loaders (ten minutes)
	python -m benchmarks.benchmark

bench-gpu: .venv/installed ## measure training on a CUDA GPU: eager, compiled, CUDA graphs, deterministic
	python -m benchmarks.gpu

results: .venv/installed ## copy the last comparison to docs/results and fill the README's tables from it
	python -m tools.readme results/compare/comparison.json
	rm -rf docs/results && mkdir -p docs/results
	cp -rL results/compare/{report.md,comparison.json,figures} docs/results
	rm docs/results/figures/*_best_and_worst.png # the data set's photographs are not ours to publish
	(cd results/evaluate && tar -chf - */metrics.json */per_class.csv) | tar -xf - -C docs/results

readme: .venv/installed ## fill the README's tables from docs/results
	python -m tools.readme docs/results/comparison.json

lint: .venv/installed ## run linters, type check and the check of import directions
	ruff check .
	ruff format --check .
	mypy
	lint-imports --no-logo

torture: .venv/installed ## crash test of the whole pipeline: make torture ROUNDS=50; resumes in .torture
	python -m tools.torture .torture --rounds $(or $(ROUNDS),50) --seed $(or $(SEED),0)

verify: .venv/installed ## evaluate the committed weights again; RETRAIN=residual-0 trains one again (data/arrays, data/views)
	@case "$(RETRAIN)" in \
		"") python -m tools.verify;; \
		*) python -m frugalnet.reproduce "docs/results/$${RECIPE:-modern}/$(RETRAIN)/run.json";; \
	esac

coverage: .venv/installed ## report the line coverage of src by the default tests; below 90 % fails
	pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report term --cov-fail-under 90

ui: .venv/installed ## serve the MLflow UI on http://127.0.0.1:5000
	@mkdir -p mlruns
	@case "$$MLFLOW_TRACKING_URI" in \
		http*) echo "The runs are on the server that MLFLOW_TRACKING_URI names: open $$MLFLOW_TRACKING_URI";; \
		*) exec mlflow ui --host $${HOST:-127.0.0.1} --port $${PORT:-5000} \
			--backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlruns/mlflow.db}";; \
	esac

params: .venv/installed ## restore params.yaml to the defaults in conf/
	python -c "from dvc.utils.hydra import compose_and_dump as compose; \
		compose('params.yaml', '$(CURDIR)/conf', None, 'config', '', [])"

lock: ## update requirements.lock from pyproject.toml (needs uv): versions and hashes, all platforms
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
