# `make run` and `make test` do all the set-up themselves; they need Python 3.11 or newer with venv, and for
# `make test` a C compiler. Both fetch packages from the index that pip is set up with.

PYTHON ?= python3
VENV := .venv
PURE := .venv-pure
RUN := .venv-run
PIP := -m pip --disable-pip-version-check --quiet
JOBS ?= 2

NEW_ENOUGH := import sys; sys.exit("nsqkit needs Python 3.11 or newer: make PYTHON=..." if sys.version_info < (3, 11) else 0)
SOURCES := pyproject.toml setup.py $(shell find src -name '*.py' -o -name py.typed)
CONFORMANCE := $(abspath ../shared/conformance)

# Conformance tests of features that later versions bring; and one that waits for a disk queue file of the original
# (`t:c.diskqueue.000000.dat`), where this nsqd has a log per topic: docs/storage.md.
NOT_YET := \
	--ignore=public/test_nsqadmin.py \
	--deselect=public/test_persistence.py::test_deleting_removes_the_files

.PHONY: run test check suite suite-pure wheel sdist installs conformance simulate mutate faults soak fuzz fuzz-fixed bench docs lock sbom format clean

# The compiled build: nsqlookupd and nsqd in the foreground. FLAGS="--nsqd 3 -- --mem-queue-size=0" adds flags.
run: $(RUN)/installed
	$(RUN)/bin/nsqkit up $(FLAGS)

# Everything CI runs.
test: check suite-pure suite conformance simulate fuzz-fixed installs

check: $(VENV)/installed
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m docs.generate --check
	$(VENV)/bin/python $(PIP) check

suite-pure: $(PURE)/installed
	@$(PURE)/bin/nsqd --version | grep -q ' pure$$' || { echo '$(PURE) is not the uncompiled build'; exit 1; }
	$(PURE)/bin/pytest -n $(JOBS) $(ARGS)

suite: $(VENV)/installed
	@$(VENV)/bin/nsqd --version | grep -q ' compiled$$' || \
		{ echo '$(VENV) is not compiled: install a C compiler, remove $(VENV)/installed, try again'; exit 1; }
	$(VENV)/bin/pytest -n $(JOBS) $(ARGS)

conformance: $(VENV)/installed
ifneq ($(wildcard $(CONFORMANCE)/public),)
	cd $(CONFORMANCE) && PYTHONDONTWRITEBYTECODE=1 NSQ_SLACK=3 NSQD=$(CURDIR)/$(VENV)/bin/nsqd \
		NSQLOOKUPD=$(CURDIR)/$(VENV)/bin/nsqlookupd NSQADMIN=$(CURDIR)/$(VENV)/bin/nsqadmin \
		$(CURDIR)/$(VENV)/bin/pytest public -p no:cacheprovider -p no:randomly --timeout=120 -n $(JOBS) $(NOT_YET)
else
	@echo 'conformance: $(CONFORMANCE) is not here; going on without it'
endif

# Random worlds, each decided by its seed: docs/simulation.md. SEEDS=forever never ends; REPLAY=17 explains one seed.
simulate: $(VENV)/installed
	$(VENV)/bin/python -m tests.simulation.run --seeds=$(or $(SEEDS),2000) --from=$(or $(FROM),0) --jobs=$(JOBS) \
		$(if $(FAILURES),--failures=$(FAILURES)) $(if $(REPLAY),--replay=$(REPLAY))

# The code broken on purpose, one way at a time: do the simulation and the suite notice? docs/mutation.md, which it renews.
mutate: $(PURE)/installed
	$(PURE)/bin/python tests/mutation/run.py --jobs=$(JOBS) --report=docs/mutation.md $(ARGS)

# Faults done to a real nsqd: docs/faults.md. FAULTS=kill,net chooses among them, SEED repeats a plan.
faults: $(VENV)/installed
	$(VENV)/bin/python -m faults --seconds=$(or $(SECONDS),120) $(if $(SEED),--seed=$(SEED)) \
		$(if $(FAULTS),--faults=$(FAULTS)) --nsqd=$(CURDIR)/$(VENV)/bin/nsqd

# Load with churn, for long: docs/soak.md, which it renews. RATE is messages a second, without it half of top speed.
soak: $(VENV)/installed
	$(VENV)/bin/python -m faults.soak --minutes=$(or $(MINUTES),60) $(if $(RATE),--rate=$(RATE)) \
		--output=$(or $(OUTPUT),soak.jsonl) --docs=docs --nsqd=$(CURDIR)/$(VENV)/bin/nsqd

# Coverage-guided fuzzing of the uncompiled build for SECONDS in all; TARGET=name for one target. docs/fuzzing.md
fuzz: $(PURE)/fuzzing
	$(PURE)/bin/python -m tests.fuzz.run --seconds $(or $(SECONDS),60) $(TARGET)

# The same inputs each time, at most a minute of them, so that nobody's change fails by somebody else's bad luck.
fuzz-fixed: $(PURE)/fuzzing
	$(PURE)/bin/python -m tests.fuzz.run --seconds 60 --runs 5000 --seed 1 --work build/fuzz-fixed

$(PURE)/fuzzing: $(PURE)/installed
	$(PURE)/bin/python $(PIP) install --only-binary :all: 'atheris>=3,<4' || \
		echo 'atheris is not to be had for this Python; fuzzing without it'
	@touch $@

# What is published, in dist/, each built in an environment of its own.
wheel sdist: $(VENV)/installed
	rm -rf build/lib* build/bdist*
	@mkdir -p build
	rm -f dist/$(if $(filter wheel,$@),*.whl,*.tar.gz)
	NSQKIT_REQUIRE_COMPILED=1 $(VENV)/bin/python -m build --$@ --outdir dist . > build/$@.log 2>&1 || \
		{ tail -n 30 build/$@.log; echo '$@ failed: if it is the package index that did not answer, try again'; exit 1; }
	@ls dist/$(if $(filter wheel,$@),*.whl,*.tar.gz)

# Both, installed as a stranger would: tests/installs/run.py.
installs: sdist wheel
	$(VENV)/bin/python -m tests.installs.run

bench: $(VENV)/installed
	$(VENV)/bin/nsqkit bench $(ARGS)

docs: $(VENV)/installed
	$(VENV)/bin/python -m docs.generate

format: $(VENV)/installed
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

# The newest versions that pyproject.toml allows, written to the lock files; requirements.lock with the hashes of every platform's files.
lock:
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python $(PIP) install 'uv>=0.9'
	.venv-lock/bin/uv pip compile --quiet --universal --python-version=3.11 --generate-hashes --no-header --no-annotate \
		--upgrade --output-file=requirements.lock pyproject.toml
	sed -n 's/^\([^ ;]*==[^ ;]*\).*/\1/p' requirements.lock > .venv-lock/versions
	.venv-lock/bin/python $(PIP) uninstall --yes uv
	NSQKIT_PURE=1 .venv-lock/bin/python $(PIP) install --constraint=.venv-lock/versions '.[test]' 'setuptools>=77'
	.venv-lock/bin/python $(PIP) freeze --all --exclude nsqkit --exclude pip > requirements-dev.lock
	rm -rf .venv-lock

# What an installation consists of, as CycloneDX: dist/nsqkit.cdx.json. The tool, in an environment of its own, checks it against the schema.
sbom: $(RUN)/installed
	test -x .venv-sbom/bin/cyclonedx-py || \
		{ $(PYTHON) -m venv .venv-sbom && .venv-sbom/bin/python $(PIP) install 'cyclonedx-bom==7.5.0'; }
	@mkdir -p dist
	.venv-sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --validate \
		--output-format JSON --output-file dist/nsqkit.cdx.json $(RUN)/bin/python

clean:
	rm -rf build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache $(VENV) $(PURE) $(RUN) .venv-sbom

# To run, nothing else is installed than what running needs. pip builds in an environment of its own, which goes.
$(RUN)/installed: export PIP_CONSTRAINT = $(CURDIR)/requirements-dev.lock
$(RUN)/installed: export PIP_BUILD_CONSTRAINT = $(CURDIR)/requirements-dev.lock
$(RUN)/installed: requirements.lock requirements-dev.lock $(SOURCES)
	@$(PYTHON) -c '$(NEW_ENOUGH)'
	@echo '1 of 3: a virtual environment in $(RUN)'
	@test -x $(RUN)/bin/python || $(PYTHON) -m venv $(RUN)
	@echo '2 of 3: the packages of requirements.lock'
	@$(RUN)/bin/python $(PIP) install -r requirements.lock
	@echo '3 of 3: compiling nsqkit, half a minute or more'
	@rm -rf build/lib* build/bdist*
	@$(RUN)/bin/python $(PIP) install --no-deps --force-reinstall .
	@$(RUN)/bin/nsqd --version
	@touch $@

# A virtual environment with what the lock says.
%/locked: requirements-dev.lock
	@$(PYTHON) -c '$(NEW_ENOUGH)'
	$(PYTHON) -m venv --clear $*
	$*/bin/python $(PIP) install -r requirements-dev.lock
	@touch $@

# The package itself, from a wheel as users get it: tests see what is installed, not src.
$(PURE)/installed: export NSQKIT_PURE = 1
%/installed: %/locked $(SOURCES)
	rm -rf build/lib* build/bdist*
	$*/bin/python $(PIP) install --no-build-isolation --no-deps --force-reinstall .
	@$*/bin/nsqd --version
	@touch $@

.PRECIOUS: %/locked
.NOTPARALLEL:
