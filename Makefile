# Works in GNU make and in OpenBSD make: plain rules, and sh for the rest.

PYTHON = python3
# newest, oldest: which of the allowed urllib3 and tenacity the tests get.
DEPS = newest
VENV = .venv-$(DEPS)
BIN = $(VENV)/bin
# Processes that share the tests out; 0 for one after the other.
JOBS = auto
PYTEST_FLAGS =
BENCH_FLAGS =
# For site: of OpenBSD, and packages of it.
RELEASE =
PACKAGES =
FUZZ_SECONDS = 60
# For install and uninstall, as packaging/install has them; empty: its defaults.
SYSTEM =
PREFIX =
DESTDIR =
LIBRARIES =
EMULATOR =
# For accept: see tests/openbsd/accept --help. Without --yes it asks.
ACCEPT_FLAGS =

help:
	@echo "make install     install the commands, the manuals and the service"
	@echo "make demo        watch a boot signal, against an emulated service"
	@echo "make test        run every test (STRICT=1: a skip is a failure)"
	@echo "make uninstall   remove what make install installed"
	@echo "make accept      test all of it on this machine, OpenBSD or Linux, as root"
	@echo "make lint        run ruff, mypy, shellcheck and mandoc"
	@echo "make soak        run the randomized tests, for many minutes"
	@echo "make fuzz        fuzz what parses replies, FUZZ_SECONDS for each target"
	@echo "make bench       measure the commands beside others"
	@echo "make fleet       simulate a zone that boots at once"
	@echo "make picture     make the picture of the demo in the README"
	@echo "make completion  make the completion files for the shells"
	@echo "make vendor      fetch urllib3 and tenacity for make install"
	@echo "make dist        make the release tarball"
	@echo "make site        make a set for OpenBSD's installer: RELEASE=8.0, PACKAGES="
	@echo "make port        make the generated files of the OpenBSD port"
	@echo "make clean       remove what these made"

# The tests run against the wheel, installed as a user would have it.
$(VENV)/.made: tests/make-venv
	@sh tests/make-venv "$(PYTHON)" "$(VENV)" "$(DEPS)"

# Watching it takes no more than what it runs on. The code is that of the checkout.
.venv-demo/.made: tests/make-venv setup.cfg
	@sh tests/make-venv "$(PYTHON)" .venv-demo demo
	@rm -rf build scw_signal.egg-info

demo: .venv-demo/.made
	@.venv-demo/bin/python tests/demo.py

# The picture of it in the README.
picture: .venv-demo/.made
	@.venv-demo/bin/python -m pip install --quiet rich
	.venv-demo/bin/python tests/picture.py docs/demo.svg .venv-demo/bin/python tests/demo.py

wheel: $(VENV)/.made
	@rm -rf build scw_signal.egg-info $(VENV)/wheel
	@$(BIN)/python -m build --no-isolation --wheel --outdir $(VENV)/wheel . \
	    >build.log 2>&1 || { cat build.log; exit 1; }
	@rm -rf build build.log scw_signal.egg-info
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --force-reinstall --no-deps $(VENV)/wheel/scw_signal-*.whl

test: wheel
	$(BIN)/pytest -n $(JOBS) $(PYTEST_FLAGS)

# It needs no virtual environment: on OpenBSD it takes a release, or packages.
accept:
	@sh tests/openbsd/accept $(ACCEPT_FLAGS)

# What draws at random or waits, for much longer: 100,000 documents in each form
# through real shells, a thousand runs of the state machine of faults, a minute
# without a link.
soak: wheel
	HYPOTHESIS_PROFILE=soak $(BIN)/pytest -n $(JOBS) --timeout=0 $(PYTEST_FLAGS)

# FUZZ_SECONDS for each target. atheris is there for Linux, Python 3.10 to 3.13.
.venv-fuzz/.made: tests/make-venv
	@sh tests/make-venv "$(PYTHON)" .venv-fuzz fuzz

fuzz: .venv-fuzz/.made
	PYTHONPATH=tests .venv-fuzz/bin/python -m fuzz --seconds $(FUZZ_SECONDS)

lint: $(VENV)/.made
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	sh tests/lint-shell
	sh tests/lint-man packaging/man/*.[0-9]

# Root, and an otherwise idle machine; BENCH_FLAGS=--quick for a first look.
bench: wheel
	$(BIN)/python tests/benchmarks/bench.py $(BENCH_FLAGS)

# The same figures on any machine, within a minute.
fleet: wheel
	PYTHONPATH=tests $(BIN)/python -m fleet

# The release tarball, with the two libraries in it.
dist: $(VENV)/.made
	$(BIN)/python packaging/dist

# The two libraries, as a release has them, for an installation from a checkout.
vendor:
	@sh tests/make-venv "$(PYTHON)" .venv-demo demo
	@rm -rf build scw_signal.egg-info
	@.venv-demo/bin/python packaging/dist vendor

# A site set for OpenBSD's installer; PACKAGES are those of Python to take along.
site: $(VENV)/.made
	$(BIN)/python packaging/image/make-site "$(RELEASE)" $(PACKAGES)

# The completions for ksh, bash, zsh and fish that follow from the tables of options.
completion: $(VENV)/.made
	$(BIN)/python packaging/completion/make-completion

# Those files of the OpenBSD port that follow from this tree.
port:
	sh packaging/openbsd/make-port

INSTALL = SYSTEM="$(SYSTEM)" PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" \
    PYTHON="$(PYTHON)" LIBRARIES="$(LIBRARIES)" EMULATOR="$(EMULATOR)" \
    sh packaging/install

install:
	@$(INSTALL)

uninstall:
	@$(INSTALL) -u

clean:
	rm -rf .venv-newest .venv-oldest .venv-demo .venv-fuzz .venv-python3* \
	    .sid build dist build.log scw_signal.egg-info .fuzz .pytest_cache .mypy_cache \
	    .ruff_cache .hypothesis
	find . -name __pycache__ -type d -exec rm -rf {} +

.PHONY: help demo picture wheel test accept soak fuzz lint bench fleet dist vendor site completion port install uninstall clean
