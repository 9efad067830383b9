# Atalaya. `make help` lists the targets.
# The system's Python if `python3` was compiled without optimisations, as pyenv does by default (docs/adr/0076-python.md).
PYTHON ?= $(shell $(choose_python))
choose_python = if python3 -c 'import sys, sysconfig; sys.exit("--enable-optimizations" in str(sysconfig.get_config_var("CONFIG_ARGS")))' 2>/dev/null && \
	/usr/bin/python3 -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; \
	then echo /usr/bin/python3; else echo python3; fi
VENV := .venv
KERAS := .venv-keras
PEERS := .venv-peers
MLFLOW := .venv-mlflow
ENGINES := .venv-engines
BIN := $(VENV)/bin
PACKAGES := api auth model monitoring storage
LOCK := --quiet --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host
# What users notice of dependencies: the file of Keras 3.7.0, golden predictions, the API, data of the last release.
UNCHANGED_KERAS := tests/model/offline/export/test_export.py
UNCHANGED := tests/model/importing/test_check.py tests/model/test_shipped_model.py tests/contract/test_api_schema.py \
	tests/contract/test_oauth_clients.py tests/contract/upgrade tests/api/http/test_openapi.py
FAULTS := ledger memory hot_swap overload limits logins fuzz_images hostile_images blocked_logs
COVER := $(if $(COVERAGE),--cov --cov-report=)
# Tests that load the machine themselves or measure what a gateway uses.
UNDISTURBED := $(addprefix tests/e2e/,test_gateway.py test_http_clients.py test_queue.py test_workers.py ledger/test_ledger_storage.py \
	predictions/test_candidates.py predictions/test_engines.py predictions/test_hot_swap.py proxies rotation usage/test_costs.py) \
	tests/bench/test_speed.py tests/experiments tests/security/availability tests/security/limits
.DEFAULT_GOAL := help
.PHONY: .bytecode help run demo port test bench peers compare faults lint format lock check-update audit sbom environments keras mlflow engines dashboards metrics settings swagger-ui clean .test-keras .test-gateway

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: port $(VENV)/.run ## set up, serve on $PORT (default 8000) and make one prediction; stop with Ctrl-C
	@$(call interruptible,$(BIN)/atalaya demo --stay)

demo: port $(VENV)/.run ## like run, but stop after the prediction
	@$(call interruptible,$(BIN)/atalaya demo)

test: lint environments ## run lint, type checks, import rules and all tests; COVERAGE=1 measures their coverage, and takes longer
	@rm -f .coverage .coverage.*
	@$(MAKE) --no-print-directory --jobs 2 .test-keras .test-gateway
	@echo "== tests that load the machine themselves, one at a time"
	@COVERAGE_FILE=.coverage.undisturbed $(BIN)/python -m pytest -q $(UNDISTURBED) $(COVER)
	@$(if $(COVERAGE),$(BIN)/coverage combine --quiet && $(BIN)/coverage report)

# Runs beside the other tests: it is one process, and training uses one processor most of the time.
.test-keras:
	@echo "== tests in the Keras environment"
	@COVERAGE_FILE=.coverage.keras $(KERAS)/bin/python -m pytest -q -m keras tests/model $(COVER)

.test-gateway:
	@echo "== tests"
	@COVERAGE_FILE=.coverage.gateway $(BIN)/python -m pytest -q -m "not keras" $(addprefix --ignore=,$(UNDISTURBED)) --numprocesses 3 --dist loadfile --no-loadscope-reorder $(COVER)

environments: $(VENV)/.dev $(KERAS)/.dev $(MLFLOW)/.server engines ## set up all environments that the tests use

bench: $(VENV)/.run ## measure throughput, latency, memory and the ledger in one run; HISTORY=1 keeps the result
	@$(BIN)/python -m bench.parts.authentication
	@$(BIN)/python -m bench.speed $(if $(HISTORY),--history)
	@$(BIN)/python -m bench.breakdown
	@$(BIN)/python -m bench.parts.tracing
	@$(BIN)/python -m bench.ledger

peers: $(VENV)/.run $(PEERS)/litserve/.peer $(PEERS)/bentoml/.peer ## measure LitServe and BentoML beside the gateway, and write docs/generated/peers.md
	@$(BIN)/python -m bench.peers.run

compare: $(VENV)/.run ## fail if the gateway is clearly slower than the previous release, or than the commit REF
	@$(BIN)/python -m bench.compare $(REF)

faults: $(VENV)/.dev ## kill, fill, flood and fuzz a running gateway, and print the results
	@status=0; for experiment in $(FAULTS); do echo "== $$experiment"; $(BIN)/python -m tests.experiments.$$experiment || status=1; done; exit $$status

lint: $(VENV)/.dev ## run ruff, mypy --strict and the import rules
	@echo "== lint, types, import rules"
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check . && $(BIN)/mypy && $(BIN)/lint-imports --no-cache

format: $(VENV)/.dev ## format the sources and fix what ruff can fix
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format .

lock: $(VENV)/.dev ## pin and hash the dependencies that requirements/*.in name
	@for name in build run parquet secrets/aws secrets/vault dev keras mlflow engines/triton engines/mlserver engines/kserve engines/ray peers/litserve peers/bentoml; do echo "== requirements/$$name.txt"; \
	  $(BIN)/pip-compile $(LOCK) --output-file requirements/$$name.txt requirements/$$name.in || exit 1; done

check-update: $(KERAS)/.dev $(VENV)/.dev ## prove that updated dependencies change no result, no response and no stored data
	@$(KERAS)/bin/python -m pytest -q -m keras $(UNCHANGED_KERAS)
	@$(BIN)/python -m pytest -q $(UNCHANGED)

audit: $(VENV)/.dev ## fail if an advisory concerns a pinned version, or the advisories cannot be read
	@$(BIN)/python -m deploy.release.audit $(AUDIT) requirements/*.txt requirements/engines/ray.txt requirements/peers/*.txt requirements/secrets/*.txt

sbom: $(VENV)/.dev ## write atalaya.cdx.json, the CycloneDX list of what the image installs
	@$(BIN)/python -W ignore::UserWarning -m cyclonedx_py requirements requirements/run.txt --pyproject pyproject.toml --mc-type application --output-reproducible --output-format JSON --output-file atalaya.cdx.json

keras: $(KERAS)/.run ## set up the environment with TensorFlow, for train and export

mlflow: $(MLFLOW)/.server ## set up the environment with the MLflow server that tests start

engines: $(foreach name,triton mlserver kserve ray,$(ENGINES)/$(name)/.server) ## set up the environments with the inference engines that tests start

dashboards: $(VENV)/.dev ## regenerate grafana/dashboards/*.json
	@$(BIN)/python grafana/dashboards.py

metrics: $(VENV)/.run ## regenerate docs/generated/metrics.md
	@$(BIN)/python -m monitoring.metrics.catalogue > docs/generated/metrics.md

settings: $(VENV)/.run ## regenerate .env.example and the tables of docs/configure.md
	@$(BIN)/python -m api.settings.catalogue

swagger-ui: ## copy the version of Swagger UI that its package-lock.json pins
	@cd api/routes/pages/swagger_ui && npm ci --ignore-scripts --no-audit --no-fund --silent && \
	  for name in swagger-ui-bundle.js swagger-ui-bundle.js.LICENSE.txt swagger-ui.css LICENSE NOTICE; do \
	  cp node_modules/swagger-ui-dist/$$name . || exit 1; done && rm -r node_modules

clean: ## remove the environments, but keep .env and var/
	rm -rf $(VENV) $(KERAS) $(PEERS) $(MLFLOW) $(ENGINES) .venv-compare

# `atalaya` checks its port itself. Before it is installed, this check reports a used port before the long set-up.
port:
	@test -x $(BIN)/atalaya || $(PYTHON) -c '$(port_check)' "$${PORT:-$$(sed -n s/^PORT=//p .env 2>/dev/null)}"

# An environment is set up once, and updated when its lock file changes.
$(VENV)/.run: requirements/run.txt requirements/build.txt pyproject.toml
	@echo "== setting up $(VENV) with $(PYTHON)"
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "error: Python 3.11 to 3.13 is needed; set PYTHON=")'
	@$(call install,$(VENV),run)
	@$(MAKE) --no-print-directory .bytecode

# `install` compiles the libraries, but not this checkout. A process that may not write here would compile it at each start.
.bytecode:
	@$(BIN)/python -m compileall -q $(PACKAGES)

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	@echo "== adding the development tools"
	@$(call pip,$(VENV)) -r requirements/dev.txt && touch $@

# Never at the same time as $(VENV): installing the checkout writes into the checkout.
$(KERAS)/.run: requirements/keras.txt requirements/build.txt pyproject.toml | $(VENV)/.run
	@echo "== setting up $(KERAS), with TensorFlow"
	@$(call install,$(KERAS),keras)

$(KERAS)/.dev: requirements/dev.txt $(KERAS)/.run
	@echo "== adding the development tools to $(KERAS)"
	@$(call pip,$(KERAS)) -r requirements/dev.txt && touch $@

$(PEERS)/%/.peer: requirements/peers/%.txt requirements/build.txt
	@echo "== setting up $(@D)"
	@$(call install_server,$(@D),$<)

$(MLFLOW)/.server: requirements/mlflow.txt requirements/build.txt
	@echo "== setting up $(MLFLOW)"
	@$(call install_server,$(MLFLOW),$<)

$(ENGINES)/%/.server: requirements/engines/%.txt requirements/build.txt
	@echo "== setting up $(@D)"
	@$(call install_server,$(@D),$<)

port_check = import socket, sys; port = sys.argv[1] or "8000"; \
	sys.exit(port.isdigit() and socket.socket().connect_ex(("127.0.0.1", int(port))) == 0 \
	and f"error: Port {port} is already in use. Choose another with PORT.")

# Ctrl-C is not a failure for make to report. Make itself ends with SIGINT, too, which shells show as status 130.
# GNU's env blocks SIGINT until the program handles it, so that Python shows no traceback while it starts.
hold_sigint = $(shell env --block-signal=INT true 2>/dev/null && echo env --block-signal=INT)
interruptible = trap "exit 0" INT; $(hold_sigint) $(1)
# An environment without pip is created again: Debian's python3-venv was missing, or the set-up was interrupted.
make_venv = { $(1)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(1); }
pip = $(1)/bin/python -m pip -qq --disable-pip-version-check install --require-hashes
# The environment of a server that is not part of the gateway. pip does not compile: Python compiles what the server
# imports when it starts, which is a small part of what is installed.
install_server = $(call make_venv,$(1)) && $(call pip,$(1)) -r requirements/build.txt && $(call pip,$(1)) --no-compile -r $(2) && touch $@
# pip would compile on one processor. A library may have files for other versions of Python, which do not compile.
install = $(call make_venv,$(1)) && $(call pip,$(1)) -r requirements/build.txt && \
	$(call pip,$(1)) --no-compile -r requirements/$(2).txt && \
	{ $(1)/bin/python -m compileall -q -j 0 $(1)/lib >/dev/null 2>&1 || true; } && \
	$(1)/bin/python -m pip -qq --disable-pip-version-check install --no-build-isolation --no-deps --editable . && \
	touch $(1)/.run
