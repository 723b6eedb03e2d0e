# `make help` lists what there is. Everything is installed into .venv and .venv-peers, -peers-latest, -exports, -bench, nothing outside this folder.
PYTHON ?= python3
ARGS ?=

VENV := .venv
PEERS := .venv-peers
PEERS_LATEST := .venv-peers-latest
EXPORTS := .venv-exports
BENCH := .venv-bench
NEWEST := .venv-newest
BIN := $(VENV)/bin
DAGSTER_HOME_DIR := $(CURDIR)/.dagster_home

# What the suite last passed with. A Python without a file of its own gets the newest that pyproject.toml admits.
VERSION := $(shell $(PYTHON) -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
CONSTRAINTS := $(wildcard constraints/$(VERSION).txt)
PEERS_CONSTRAINTS := $(wildcard constraints/peers-$(VERSION).txt)
PEERS_LATEST_CONSTRAINTS := $(wildcard constraints/peers-latest-$(VERSION).txt)
EXPORTS_CONSTRAINTS := $(wildcard constraints/exports-$(VERSION).txt)

.DEFAULT_GOAL := help
.PHONY: help venv newest test-newest constraints run dev test exports test-faults test-live image-check coverage pictures bench lint format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo 'PYTHON=python3.12 chooses the interpreter, ARGS="..." reaches the command (make run ARGS=--help).'

run: $(VENV)/.installed-box ## a trading day in a box: Redis, simulated gateway, web page, Dagster, faults by key; Ctrl-C ends it
	@$(BIN)/ibkr_market_box $(ARGS)

venv: $(VENV)/.installed ## install the package and its console scripts into .venv, with the versions that were tested

newest: ## the same with the newest versions that pyproject.toml admits, into .venv-newest
	@$(MAKE) --no-print-directory VENV=$(NEWEST) CONSTRAINTS= PEERS_CONSTRAINTS= PEERS_LATEST_CONSTRAINTS= EXPORTS_CONSTRAINTS= $(NEWEST)/.installed-lint

test-newest: newest ## the whole suite with the newest versions: what a nightly job runs
	@$(MAKE) --no-print-directory VENV=$(NEWEST) CONSTRAINTS= PEERS_CONSTRAINTS= PEERS_LATEST_CONSTRAINTS= EXPORTS_CONSTRAINTS= test

constraints: newest $(PEERS)/.installed $(PEERS_LATEST)/.installed $(EXPORTS)/.installed ## take the versions of .venv-newest as the tested ones, once test-newest passes
	@$(call freeze,$(NEWEST),constraints/$(VERSION).txt,rm -rf .venv-newest && make constraints)
	@$(call freeze,$(PEERS),constraints/peers-$(VERSION).txt,rm -rf .venv-peers constraints/peers-$(VERSION).txt && make constraints)
	@$(call freeze,$(PEERS_LATEST),constraints/peers-latest-$(VERSION).txt,rm -rf .venv-peers-latest constraints/peers-latest-$(VERSION).txt && make constraints)
	@$(call freeze,$(EXPORTS),constraints/exports-$(VERSION).txt,rm -rf .venv-exports constraints/exports-$(VERSION).txt && make constraints)

dev: $(VENV)/.installed ## Dagster alone, on your own gateway and Redis (.env): launch the ingest in its UI
	@mkdir -p $(DAGSTER_HOME_DIR) && cp config/dagster.yaml $(DAGSTER_HOME_DIR)/
	DAGSTER_HOME=$(DAGSTER_HOME_DIR) $(BIN)/dagster dev --host 127.0.0.1 $(ARGS)

test: $(VENV)/.installed-test $(PEERS)/.installed $(PEERS_LATEST)/.installed ## the whole suite; it starts the Redis servers and gateways it needs
	$(BIN)/pytest -n 6 --dist loadfile --no-loadscope-reorder $(ARGS)

exports: $(EXPORTS)/.installed ## install hftbacktest and nautilus_trader (1.4 GB), whose tests skip without them, into .venv-exports

test-faults: $(VENV)/.installed-test $(EXPORTS)/.installed ## the long tests of faults; TLS ones need a redis-server with TLS on PATH
	$(BIN)/pytest -m faults $(ARGS)

image-check: $(VENV)/.installed-test ## build the image's root without Docker and record in it; needs root, and mmdebstrap or debootstrap
	$(BIN)/pytest -m faults -rs ibkr_depth_pipeline_tests/deploy/test_image.py $(ARGS)

test-live: $(VENV)/.installed-test ## only the tests against the real gateway and Redis that the settings name
	$(BIN)/pytest --live -m live $(ARGS)

coverage: $(VENV)/.installed-test $(PEERS)/.installed $(PEERS_LATEST)/.installed $(EXPORTS)/.installed ## the suite with a report of the lines it did not reach
	$(BIN)/pytest --cov=ibkr_depth_pipeline --cov-report=term-missing:skip-covered $(ARGS)

pictures: $(VENV)/.installed-test ## the pictures of README.md and docs/, from a day of make run in Chromium; five minutes
	$(BIN)/python -m ibkr_depth_pipeline_tests.box.day_in_a_box docs/images

bench: $(VENV)/.installed-test $(BENCH)/.installed $(EXPORTS)/.installed ## measure beside limits and peers, some 20 minutes; ARGS=--quick takes four
	$(BIN)/python -m bench $(ARGS)

lint: $(VENV)/.installed-lint ## ruff, mypy --strict and the rules for imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-lint ## let ruff put imports and layout right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the virtual environments, Dagster's home, run folders and caches
	rm -rf $(VENV) $(PEERS) $(PEERS_LATEST) $(EXPORTS) $(BENCH) $(NEWEST) $(DAGSTER_HOME_DIR) .run .pytest_cache .hypothesis .mypy_cache .ruff_cache \
	    .import_linter_cache .coverage build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Without constraints everything is brought to its newest version, also what is installed already.
PIP_OPTIONS = --disable-pip-version-check \
    $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS),--upgrade --upgrade-strategy eager)

LINT_EXTRAS := '.[test,lint]'# by a name, as a comma would end the argument of a call

# $(1): a virtual environment, $(2): pip's arguments. Says what is being installed; pip's own words only if it fails.
define pip-install
{ $(1)/bin/python -m pip install --progress-bar off $(2) 2>&1; echo "pip ended with $$?"; } | tee $(1)/install.log \
    | awk -v terminal="$$(test -t 1 && echo yes)" ' \
        /^ *Collecting / { count++; name = $$2; sub(/[^A-Za-z0-9_.-].*/, "", name); \
            if (terminal) { printf "\r\033[K  %3d  %s", count, name; fflush() } \
            else if (count % 25 == 0) { printf "  %3d packages, now %s\n", count, name; fflush() } } \
        /^Installing collected packages/ { printf "%s  unpacking %d packages%s", terminal ? "\r\033[K" : "", count, \
            terminal ? "" : "\n"; fflush() } \
        END { if (terminal && count) printf "\r\033[K" }'; \
tail -n 1 $(1)/install.log | grep -q ' 0$$' || { cat $(1)/install.log >&2; exit 1; }
endef

# $(1): a virtual environment, $(2): the file to write, $(3): the command that its head names. Versions only, no addresses.
define freeze
{ echo '# Made by: $(3)'; echo '# Tested with $(VERSION), on Linux.'; \
    $(1)/bin/python -m pip freeze --disable-pip-version-check | grep '=='; } > $(2)
endef

# The stamps: what is installed is installed again only after pyproject.toml or the constraints have changed.
$(VENV)/bin/python:
	@$(call make-venv,$(VENV))

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	@echo 'Installing into $(VENV); the first time this takes a minute or two.'
	@$(call pip-install,$(VENV),$(PIP_OPTIONS) --editable .)
	@touch $@

# The day's archive and its report, beside what everything needs.
$(VENV)/.installed-box: $(VENV)/.installed
	@$(call pip-install,$(VENV),$(PIP_OPTIONS) --editable '.[archive]')
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@$(call pip-install,$(VENV),$(PIP_OPTIONS) --editable '.[test]')
	@touch $@

$(VENV)/.installed-lint: $(VENV)/.installed
	@$(call pip-install,$(VENV),$(PIP_OPTIONS) --editable $(LINT_EXTRAS))
	@touch $@

# Two clients that the simulated gateway was not written for. They can't share .venv: ib_async's aeventkit installs
# over the eventkit that ib_insync needs.
$(PEERS)/.installed: Makefile $(PEERS_CONSTRAINTS)
	@test -x $(PEERS)/bin/python || { $(call make-venv,$(PEERS)); }
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check \
	    $(addprefix --constraint ,$(PEERS_CONSTRAINTS)) 'ib_async>=2,<3' 'ibapi>=9.81'
	@touch $@

# IBKR's own client of today, under the name that the old one above has, too.
$(PEERS_LATEST)/.installed: Makefile $(PEERS_LATEST_CONSTRAINTS)
	@test -x $(PEERS_LATEST)/bin/python || { $(call make-venv,$(PEERS_LATEST)); }
	$(PEERS_LATEST)/bin/python -m pip install --quiet --disable-pip-version-check \
	    $(addprefix --constraint ,$(PEERS_LATEST_CONSTRAINTS)) 'ibapi-latest>=10.51'
	@touch $@

# The packages that exports are for, with ours beside them. hftbacktest wants an older numpy than .venv has, and
# nautilus_trader an older pandas; nautilus_trader needs Python 3.11.
$(EXPORTS)/.installed: pyproject.toml $(EXPORTS_CONSTRAINTS)
	@test -x $(EXPORTS)/bin/python || { $(call make-venv,$(EXPORTS)); }
	@echo 'Installing what reads exports into $(EXPORTS); the first time this takes some minutes.'
	$(EXPORTS)/bin/python -m pip install --quiet --disable-pip-version-check \
	    $(addprefix --constraint ,$(EXPORTS_CONSTRAINTS)) --editable '.[archive,dbn,nautilus]' 'hftbacktest>=2.4,<3'
	@touch $@

# What the benchmark compares with and draws with; for the same reason not in .venv.
$(BENCH)/.installed: bench/requirements.txt
	@test -x $(BENCH)/bin/python || { $(call make-venv,$(BENCH)); }
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --requirement bench/requirements.txt
	@touch $@

define make-venv
$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' \
    || { echo "$(PYTHON) is missing or not Python 3.10 to 3.13: make PYTHON=python3.11 ..." >&2; exit 1; }; \
$(PYTHON) -c 'import ensurepip' \
    || { echo "$(PYTHON) can't make virtual environments: apt-get install python3-venv" >&2; exit 1; }; \
$(PYTHON) -m venv $(1)
endef
