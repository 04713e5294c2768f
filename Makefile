# Everything that is done with this checkout. `make` or `make help` lists it.

# The Python to make .venv with: 3.11, 3.12 or 3.13. Give it to every call: `make test PYTHON=python3.12`.
PYTHON ?= python3
# Options for what `test`, `bench` and `run` start: `make test ARGS="tests/domain -x"`.
ARGS ?=
# How long `soak` and `chaos` last; `chaos` goes on to so many DECISIONS instead where they are given. Its seed: the same
# one picks the same faults again. BROKERS=3 makes it a cluster, with MIN_INSYNC replicas of each record at least.
MINUTES ?= 10
DECISIONS ?=
SEED ?=
BROKERS ?=
MIN_INSYNC ?=

# The versions of Kafka that `matrix` runs on: the last of each line from 3.9 on, and the newest.
VERSIONS ?= 3.9.2 4.0.2 4.1.2 4.4.0

UV_VERSION := 0.13.8
BIN := .venv/bin
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraints requirements.lock
# One stamp for each interpreter, so that another PYTHON makes another .venv.
STAMP := .venv/.setup-$(subst /,_,$(PYTHON))
BENCH_STAMP := .venv/.bench

# What this checkout is, and nothing of the caller's own Python, decides what is imported.
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV

# uv brings certificates of its own; where the machine has some, they know the company's proxy as well.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem),)
export UV_SYSTEM_CERTS ?= true
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run test matrix lint types bench soak chaos lock clean

help: ## this list
	@echo "consent-streams: consent changes in, one current answer to 'may we send?' out"
	@echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "%-14s %s\n", $$1, $$2 }'
	@echo
	@echo 'PYTHON selects the interpreter (now: $(PYTHON)), ARGS goes to what is started:'
	@echo '  make test ARGS="tests/domain -x"      make bench ARGS="--quick"      make run ARGS="--http-port 6070"'

setup: $(STAMP) ## make .venv with everything installed, in the versions of requirements.lock
	@echo "setup: .venv is ready"

$(STAMP): pyproject.toml requirements.lock Makefile
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || { \
	  echo "Python 3.11, 3.12 or 3.13 is needed, but $(PYTHON) is: $$($(PYTHON) --version 2>&1). Try: make setup PYTHON=python3.12" >&2; exit 1; }
	@echo "setup: installing into .venv with $$($(PYTHON) --version)"
	@version='import sys; print(sys.version_info[:2])'; \
	if [ "$$($(BIN)/python -c "$$version" 2>/dev/null)" != "$$($(PYTHON) -c "$$version")" ]; then \
	  $(PYTHON) -m venv --clear .venv; fi
	@$(BIN)/uv --version 2>/dev/null | grep -q '^uv $(UV_VERSION)\b' \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(INSTALL) --editable '.[embedded,docker]' --group dev
	@rm -f $(BENCH_STAMP) .venv/.setup-*
	@touch $@

run: $(STAMP) ## a first look: broker, topics, a worker and a sample org, until Ctrl-C (= consent-streams up)
	@echo "run: consent-streams up $(ARGS)"
	@exec $(BIN)/consent-streams up $(ARGS)

test: $(STAMP) ## all tests, those on a real Kafka included
	@echo "test: pytest $(ARGS)"
	@exec $(BIN)/python -m pytest $(ARGS)

# What depends on the broker: the rules, who owns a partition, take-overs, the read barrier. What takes its time is left
# out as in `test`: `make matrix ARGS='-m "not docker"'` has everything.
MATRIX := $(addprefix tests/integration/test_,rules.py ownership.py lifecycle.py cluster_leaders.py)

matrix: $(STAMP) ## the tests of rules, ownership, take-overs and the barrier on each Kafka of VERSIONS (jars from Maven)
	@failed=; for version in $(VERSIONS); do \
	  echo "matrix: pytest --kafka-version $$version $(MATRIX) $(ARGS)"; \
	  $(BIN)/python -m pytest --kafka-version $$version $(MATRIX) $(ARGS) || failed="$$failed $$version"; \
	done; \
	echo "matrix: Kafka $(VERSIONS): failed on$${failed:- none}"; test -z "$$failed"

lint: $(STAMP) ## ruff
	@echo "lint: ruff check"
	@exec $(BIN)/ruff check

types: $(STAMP) ## mypy, strict, of schemas and streams
	@echo "types: mypy"
	@exec $(BIN)/mypy

bench: $(BENCH_STAMP) ## speed and memory beside Quix Streams and plain Faust, about 40 minutes (ARGS="--quick": nine)
	@echo "bench: python -m tests.bench $(ARGS)"
	@exec $(BIN)/python -m tests.bench $(ARGS)

$(BENCH_STAMP): $(STAMP)
	@echo "bench: installing what it compares with"
	@$(INSTALL) --editable '.[embedded,docker,bench]'
	@touch $@

soak: $(STAMP) ## one worker under a mixed load for MINUTES: its memory and open files stay within bounds
	@echo "soak: $(MINUTES) minutes"
	@SOAK_MINUTES=$(MINUTES) exec $(BIN)/python -m pytest tests/integration/test_soak.py -s $(ARGS)

CHAOS := $(if $(DECISIONS),--decisions $(DECISIONS),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) \
  $(if $(BROKERS),--brokers $(BROKERS)) $(if $(MIN_INSYNC),--min-insync $(MIN_INSYNC)) $(ARGS)

chaos: $(STAMP) ## break what can be broken, at random, and check what is promised: for MINUTES, or up to DECISIONS=1000000
	@echo "chaos: python -m tests.chaos $(CHAOS)"
	@exec $(BIN)/python -m tests.chaos $(CHAOS)

lock: $(STAMP) ## write requirements.lock anew after a change of pyproject.toml (ARGS="--upgrade": newest versions)
	@echo "lock: requirements.lock"
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --all-extras --group dev pyproject.toml --output-file requirements.lock $(ARGS)

clean: ## remove .venv and everything that tools left in the checkout
	@echo "clean: .venv, caches, build output"
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
	@find schemas streams tests -name __pycache__ -type d -prune -exec rm -rf {} +
