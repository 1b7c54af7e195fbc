# Everything is made with these; CI runs the same. They install what they need: Python packages from locked requirements,
# and, where Debian's Python has no venv, the system's package for it.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
EXAMPLE ?= examples/quickstart
# COVERAGE=1: `test` and `long` note what they run of the code, which makes what only computes take twice as long.
COVERED := $(if $(COVERAGE),--cov --cov-append --cov-report=)

.DEFAULT_GOAL := help

help:  ## what there is
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

demo: $(VENV)/.memoryctl  ## a claim becomes a memory on an embedded PostgreSQL, and a client searches it
	@$(BIN)/python -m memoryctl demo -f $(EXAMPLE)/provider.yaml -f $(EXAMPLE)/claim.yaml

down: $(VENV)/.memoryctl  ## stop what demo started; PURGE=1 removes its data
	@$(BIN)/python -m memoryctl down $(if $(PURGE),--purge)

test: $(VENV)/.dev  ## every promise on a real server, in minutes; a server that this machine lacks is skipped by name (MEMORY_REQUIRE=all: a failure)
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadgroup $(COVERED) $(ARGS)

long: $(VENV)/.dev  ## what takes longer: kills at any moment, eight at once, many writes, every kind of server
	@$(BIN)/python -m pytest -q -m long -n $(JOBS) --dist loadgroup $(COVERED) $(ARGS)

coverage: $(VENV)/.dev  ## what test and long with COVERAGE=1 have run of the code; 95 % of lines and branches is asked for
	@$(BIN)/coverage report --fail-under=95

render: $(VENV)/.dev  ## the examples through the real `crossplane composition render` and `crossplane resource validate`
	@$(BIN)/python -m pytest -q -m render -n $(JOBS) tests/render $(ARGS)

e2e: $(VENV)/.dev  ## the acceptance on a cluster (MEMORY_KUBECONFIG)
	@$(BIN)/python -m pytest -q -m e2e -p no:randomly -n 0 tests/e2e tests/apis tests/render $(ARGS)

lint: $(VENV)/.dev  ## style, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.dev  ## what lint can mend by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

goldens: $(VENV)/.dev  ## render the examples anew, and the schema of a custom backend's requests; review the diff
	$(BIN)/python -m scripts.contract
	MEMORY_UPDATE_GOLDENS=1 $(BIN)/python -m pytest -q tests/function/test_examples.py

bench: $(VENV)/.dev  ## speed of the function and of provisioning: a table, and bench/results/*.json
	@$(BIN)/python -m bench

bench-recall: $(VENV)/.dev  ## an ivfflat index and DELETE against ours (ROWS, DIMENSION, QUERIES, EVENTS; half an hour)
	@$(BIN)/python -m bench.recall

build: $(VENV)/.dev  ## the wheels, in dist/: the project's, and the client's
	$(BIN)/python -m hatchling build -t wheel
	cd client && $(abspath $(BIN))/python -m hatchling build -t wheel -d ../dist

images: $(VENV)/.dev  ## build/images/*.tar, with docker, podman, buildah or IMAGE_BUILDER
	@$(BIN)/python -m scripts.images

packages: images  ## build/packages/*.xpkg for REGISTRY, with the crossplane CLI (CROSSPLANE_CLI)
	@$(BIN)/python -m scripts.packages

publish: images  ## pushes the migrations image and the packages to REGISTRY
	@$(BIN)/python -m scripts.publish

sign:  ## signs REFERENCE (by digest) and attests what is in it, with cosign and syft
	@./scripts/sign "$(REFERENCE)"

lock: $(VENV)/.dev  ## requirements/*.txt from pyproject.toml, with hashes
	./scripts/lock

# An environment is made once, and again when its lock changes. `dev` holds all of `memoryctl`.
$(VENV)/.memoryctl: requirements/memoryctl.txt
	@test -e $(VENV)/.dev || ./scripts/venv $(PYTHON) $(VENV) $<
	@touch $@

$(VENV)/.dev: requirements/dev.txt
	@./scripts/venv $(PYTHON) $(VENV) $<
	@touch $@

.PHONY: help demo down test long coverage render e2e lint format goldens bench bench-recall build images packages publish sign lock
