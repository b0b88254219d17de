# Start with `make demo` and `make test`. Targets that need the environment install it into .venv first.
SHELL := /bin/bash
PYTHON ?= python3
comma := ,
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DVC_NO_ANALYTICS := true
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help install repository demo test default-tests test-all coverage torture team-test cluster-test image-test train-all bench bench-devices bench-gpu bench-pictures bench-serve push-hf verify results readme lint ui serve try params lock

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/installed ## install the locked dependencies into .venv; optional extras with EXTRAS=cluster,device,team
	@for extra in $(subst $(comma), ,$(EXTRAS)); do \
		[ -f requirements-$$extra.lock ] || { echo "no extra '$$extra'; there are: cluster, device, team" >&2; exit 1; }; \
		.venv/bin/python -m pip install --quiet --no-deps --require-hashes -r requirements-$$extra.lock || exit 1; \
	done # --no-deps: a lock holds all that is needed, not all that litert-torch asks for

repository: # checked before gigabytes are installed
	@git rev-parse --quiet --verify HEAD >/dev/null || { echo "$(CURDIR): DVC needs a git repository with a commit: git clone the project, or git init && git add -A && git commit" >&2; exit 1; }

demo: .venv/installed ## run the whole pipeline on the sample data, in a temporary copy of the project
	dvc exp run --temp --force --name demo -S data=sample -S train=demo -S robustness=demo -S adapt=demo \
		-S measure.rounds=3 -S measure.batch_size=64
	@rm -rf demo
	@dvc get --quiet . results/compare --out demo \
		--rev $$(git for-each-ref --format='%(objectname)' --sort=-committerdate 'refs/exps/*/*/demo' | head -n 1)
	@cat demo/table.txt
	@echo
	@echo "Report: $(CURDIR)/demo/report.html"
	@echo "Runs:   make ui OPEN=1"

test: .venv/installed ## run linters, type check and all tests except the slow ones
	@$(MAKE) --no-print-directory --jobs 2 lint default-tests # mypy has one process

default-tests: .venv/installed
	pytest -n 3 --dist loadfile --no-loadscope-reorder

test-all: lint ## run linters, type check and all tests
	pytest -m ''

bench: .venv/installed ## compare training speed and memory with the step alone and with common loaders (five minutes)
	python -m benchmarks.training

train-all: .venv/installed ## train and evaluate the matrix in parallel on Ray (EXTRAS=cluster; docs/cluster.md); then: dvc repro
	@exec python -m frugalnet.train_all

bench-devices: .venv/installed ## export the committed networks; accuracy, bytes, latency by format (needs data/arrays)
	python -m benchmarks.devices

bench-pictures: .venv/installed ## measure how fast photographs are decoded, against OpenCV (five minutes)
	python -m benchmarks.pictures

bench-serve: .venv/installed ## compare the server with MLflow’s: requests per second and latency (three minutes)
	python -m benchmarks.serving

push-hf: .venv/installed ## publish a network of weights/ on Hugging Face: make push-hf MODEL=depthwise REPO=user/name
	hf upload $(REPO) docs/models/$(MODEL).md README.md
	hf upload $(REPO) weights . --include '$(MODEL)-*' --include '*.json'

bench-gpu: .venv/installed ## measure training on a CUDA GPU: eager, compiled, CUDA graphs, deterministic
	python -m benchmarks.gpu

results: .venv/installed ## copy results and weights to docs/results/RECIPE, weights/ and docs/models/, to be committed
	python -m tools.publish results
	python -m tools.publish weights
	python -m tools.publish exports
	python -m tools.publish cards

readme: .venv/installed ## fill the README's tables and draw its chart from docs/results
	python -m tools.publish readme

lint: .venv/installed ## run linters, type check and the check of import directions
	ruff check .
	ruff format --check .
	mypy
	lint-imports --no-logo

torture: .venv/installed ## crash test of the whole pipeline: make torture ROUNDS=50; resumes in .torture
	python -m tests.torture .torture --rounds $(or $(ROUNDS),50) --seed $(or $(SEED),0)

verify: .venv/installed ## evaluate the committed weights; RETRAIN=residual-0 retrains one (needs data/arrays, data/views)
	@case "$(RETRAIN)" in \
		"") python -m tools.publish verify;; \
		*) python -m frugalnet.reproduce "docs/results/$${RECIPE:-modern}/$(RETRAIN)/run.json";; \
	esac

team-test: .venv/installed ## test a team's set-up with real PostgreSQL, MLflow, SSH and S3 servers (as root; EXTRAS=team)
	TEST_REQUIRED=1 pytest -m '' tests/test_team.py tests/test_tracking_server.py

cluster-test: .venv/installed ## test `make train-all` on simulated clusters: killed workers, lost nodes (EXTRAS=cluster)
	TEST_REQUIRED=1 pytest -m '' tests/test_cluster.py

image-test: .venv/installed ## build the Docker image and test it, by Docker or (as root) buildah, podman, debootstrap: 15 minutes
	@engine=$$(docker info >/dev/null 2>&1 && echo docker || echo podman); \
	for program in $$([ $$engine = docker ] || echo buildah debootstrap podman runc conmon); do \
		command -v $$program >/dev/null || { echo "$$program is missing: apt-get install buildah debootstrap podman runc conmon" >&2; exit 1; }; \
	done; \
	IMAGE_ENGINE=$$engine pytest -s -m '' tests/test_image.py

coverage: .venv/installed ## report the line coverage of src by the default tests; below 90 % fails
	pytest -n 3 --dist loadfile --no-loadscope-reorder --cov --cov-report term --cov-fail-under 90

ui: .venv/installed ## serve the MLflow UI and print the page to open; OPEN=1 opens it
	@python -m tools.ui

serve: .venv/installed ## serve the networks of weights/ to the browser and to programs, on http://127.0.0.1:5001 (docs/serving.md)
	@exec frugalnet serve --host $${LISTEN:-127.0.0.1} --port $${PORT:-5001}

try: serve ## the same: classify pictures in a browser

params: .venv/installed ## restore params.yaml to the defaults in conf/
	python -c "from dvc.utils.hydra import compose_and_dump as compose; \
		compose('params.yaml', '$(CURDIR)/conf', None, 'config', '', [])"

lock: ## update the lock files from pyproject.toml (needs uv): versions and hashes, all platforms
	$(COMPILE) $(STUDY) -o requirements.lock
	cp requirements.lock extras.partial # the versions to prefer
	$(COMPILE) --group dev --all-extras -o extras.partial
	for extra in cluster device team; do \
		cp extras.partial requirements-$$extra.lock && $(COMPILE) $(STUDY) --extra $$extra -o requirements-$$extra.lock || exit 1; \
	done # the extras agree on every version, so they can be installed together and in any order
	cp extras.partial requirements-image.lock && $(COMPILE) --extra study --extra team -o requirements-image.lock
	cp requirements.lock requirements-base.lock && $(COMPILE) -o requirements-base.lock
	rm extras.partial

COMPILE = uv pip compile --quiet --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-header pyproject.toml
STUDY = --extra study --group dev # what only developers need is not in the image

.venv/installed: .venv/locked pyproject.toml
	.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

.venv/locked: requirements.lock | repository
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "frugalnet needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --require-hashes -r requirements.lock
	touch $@
