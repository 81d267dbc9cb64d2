# Two commands on a fresh machine with Python 3.11 and make: `make demo`, then `make test`. Each installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
# One thread a process: two OpenMP threads on two busy cores are slower than one (see docs/measurements.md).
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_DISABLE_TELEMETRY = 1
export DO_NOT_TRACK = 1
# Without byte code each process compiles torch and diffusers anew, which takes a minute of make demo and many of make test.
unexport PYTHONDONTWRITEBYTECODE
STORE ?= .cache/store

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.uv: requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 12))' || { echo "diffusion-operator needs Python 3.11 (Triton's Python stub is built for it); set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

$(VENV)/.installed: $(VENV)/.uv requirements/dev.txt pyproject.toml
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

.PHONY: install
install: $(VENV)/.installed ## Install the builder, the command line and the development tools into .venv

.PHONY: serve-env
serve-env: $(VENV)/.installed ## Install Triton Inference Server and what its models import into .venv-tritonserver and .venv-serve
	UV=$(UV) tools/serve_env.sh

.PHONY: demo
demo: install serve-env ## Build, check and serve the digits model, and draw ten digits
	$(BIN)/python examples/demo.py --store $(STORE)

.PHONY: test
test: install serve-env ## Run every test, in two processes
	$(BIN)/python -m pytest --numprocesses 2

.PHONY: coverage
coverage: install serve-env ## Run every test and say which lines ran; takes longer, for torch's exporter is Python through and through
	$(BIN)/python -m pytest --numprocesses 2 --cov --cov-report=term

.PHONY: test-unit
test-unit: install ## Run the tests that need neither torch nor a cluster
	$(BIN)/python -m pytest tests/unit

.PHONY: cluster-up
cluster-up: install ## Start a Kubernetes cluster on this machine (root; the first time builds it, in a quarter of an hour)
	$(BIN)/python -m tests.e2e.cluster up

.PHONY: cluster-down
cluster-down: ## Remove that cluster
	$(BIN)/python -m tests.e2e.cluster down

.PHONY: cluster-demo
cluster-demo: install serve-env ## Start that cluster, install the chart, apply the digits, and draw ten of them through their Service
	$(BIN)/python -m tests.e2e.digits

.PHONY: cluster-status
cluster-status: ## Say whether that cluster runs, and where its kubeconfig is
	$(BIN)/python -m tests.e2e.cluster status

.PHONY: check
check: install ## Lint, type-check, and check layers, generated files and docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m diffusion_api check
	$(BIN)/python -m tools.chart check
	$(BIN)/python -m tools.chart lint
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # --quiet would also silence what --strict counts

.PHONY: generate
generate: install ## Write the generated files anew: CRDs and their reference, the chart's schema and README
	$(BIN)/python -m diffusion_api generate
	$(BIN)/python -m tools.chart generate

.PHONY: lock
lock: $(VENV)/.uv ## Pin all requirements anew
	$(UV) pip compile $(LOCK_FLAGS) requirements/uv.in -o requirements/uv.txt
	$(UV) pip compile $(LOCK_FLAGS) requirements/serve.in -o requirements/serve.txt
	$(UV) pip compile $(LOCK_FLAGS) --no-deps requirements/tritonserver.in -o requirements/tritonserver.txt
	$(UV) pip compile $(LOCK_FLAGS) pyproject.toml --extra operator --extra builder --extra runtime --extra cpu --extra tensorrt-rtx --extra cli --group dev -o requirements/dev.txt
	# Images get the versions that the tests ran with.
	$(UV) pip compile $(LOCK_FLAGS) pyproject.toml --extra operator -c requirements/dev.txt -o requirements/operator.txt
	$(UV) pip compile $(LOCK_FLAGS) pyproject.toml --extra builder --extra runtime --extra cpu --extra tensorrt-rtx -c requirements/dev.txt -o requirements/builder.txt
	$(UV) pip compile $(LOCK_FLAGS) requirements/triton-gpu.in -c requirements/serve.txt -o requirements/triton-gpu.txt
LOCK_FLAGS := --quiet --upgrade --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11

.PHONY: bench
bench: install serve-env ## Measure against the peers; prints tables
	$(BIN)/python -m benchmarks

.PHONY: bench-true-size
bench-true-size: install ## Build FLUX.2 klein-4B's real size with random weights (22 GiB of memory, 25 GiB of disk)
	$(BIN)/python -m benchmarks.true_size

.PHONY: clean
clean: ## Remove the environments, caches and built files
	rm -rf .venv .venv-serve .venv-tritonserver .cache build site .mypy_cache .ruff_cache .pytest_cache
