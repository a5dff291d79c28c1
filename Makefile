# make            .venv with the project installed in it (editable), native code compiled
# make test       all tests; with CI=true also installs the programs that they talk to
# make demo bench soak lint check-asan fuzz dist clean
# make install    PREFIX=/usr/local DESTDIR=

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)
PREFIX ?= /usr/local
DESTDIR ?=
FUZZ_SECONDS ?= 60

PIP := .venv/bin/python -m pip --disable-pip-version-check -q
RUN := PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/python
COMMANDS := $(notdir $(wildcard bin/*))
HEADERS := $(wildcard pcaptools/*/csrc/*.h)
NATIVE := $(wildcard pcaptools/*/*.pyx pcaptools/*/*.px[di]) $(HEADERS)
METADATA := setup.cfg setup.py pyproject.toml $(wildcard bin/*)

LIBDIR := $(PREFIX)/lib/pcaptools
MANDIR := $(PREFIX)/share/man

export PIP_NO_INPUT := 1
ifneq ($(wildcard ../shared/captures),)
export PCAPTOOLS_CAPTURES ?= $(abspath ../shared/captures)
endif

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: all build demo test deps-test bench soak lint check-asan fuzz dist install uninstall clean

all: build

build: .venv/built

.venv/ready:
	PYTHON=$(or $(PYTHON),python3) packaging/system-packages build
	$(or $(PYTHON),python3) -m venv --clear .venv
	$(PIP) install 'setuptools>=68' 'Cython>=3.1' wheel
	touch $@

# A change of native code alone needs no more than a compiler.
.venv/built: $(METADATA) $(NATIVE) | .venv/ready
	$(if $(filter $(METADATA),$?),$(PIP) install --no-build-isolation -e '.[test]',\
		.venv/bin/python setup.py -q build_ext --inplace)
	touch $@

demo: build
	packaging/system-packages demo
	$(RUN) packaging/demo.py

ifeq ($(CI),true)
test: deps-test
endif
test: build
	$(RUN) -m pytest -q -n auto --dist loadfile

deps-test:
	packaging/system-packages test

bench: build
	packaging/system-packages bench
	$(RUN) bench/run.py

soak: build
	$(RUN) bench/soak.py

.venv/bin/ruff .venv/bin/mypy .venv/bin/pyproject-build: | .venv/ready
	$(PIP) install $(@F:pyproject-%=%)

lint: build .venv/bin/ruff .venv/bin/mypy
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy pcaptools
	mandoc -T lint -W warning man/*

build/asan-%: tests/native/%.c $(HEADERS)
	mkdir -p build
	$(CC) -std=gnu99 -g -O1 -Wall -fsanitize=address,undefined -fno-sanitize-recover=all -Ipcaptools/core/csrc -Ipcaptools/net/csrc $< -o $@

check-asan: $(patsubst tests/native/%.c,build/asan-%,$(filter-out %/fuzz.c,$(wildcard tests/native/*.c)))
	for check in $^; do $$check || exit; done

build/fuzz-core: tests/native/fuzz.c tests/native/check.c $(HEADERS)
	mkdir -p build/fuzz
	clang -std=gnu99 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Ipcaptools/core/csrc $< -o $@ || \
		{ echo "make fuzz needs clang with libFuzzer (Debian: clang libclang-rt-dev)" >&2; exit 1; }

fuzz: build/fuzz-core
	build/fuzz-core -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=build/ build/fuzz

dist: .venv/bin/pyproject-build
	rm -rf dist
	.venv/bin/pyproject-build

# A private environment, and the commands with its interpreter in their first line. Built from a copy, so that
# "sudo make install" leaves nothing of root's here.
install:
	PYTHON=$(or $(PYTHON),python3) packaging/system-packages build
	$(or $(PYTHON),python3) -m venv --clear $(DESTDIR)$(LIBDIR)
	mkdir $(DESTDIR)$(LIBDIR)/src
	cp -Rp bin man pcaptools LICENSE README.md pyproject.toml setup.cfg setup.py $(DESTDIR)$(LIBDIR)/src
	$(DESTDIR)$(LIBDIR)/bin/python -m pip --disable-pip-version-check -q install $(DESTDIR)$(LIBDIR)/src
	rm -rf $(DESTDIR)$(LIBDIR)/src
	mkdir -p $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(MANDIR)/man7
	for c in $(COMMANDS); do \
		sed '1s|.*|#!$(LIBDIR)/bin/python|' bin/$$c >$(DESTDIR)$(PREFIX)/bin/$$c || exit; \
		chmod 755 $(DESTDIR)$(PREFIX)/bin/$$c; \
	done
	cp man/*.1 $(DESTDIR)$(MANDIR)/man1
	cp man/*.7 $(DESTDIR)$(MANDIR)/man7

uninstall:
	rm -rf $(DESTDIR)$(LIBDIR)
	rm -f $(COMMANDS:%=$(DESTDIR)$(PREFIX)/bin/%)
	rm -f $(patsubst man/%,$(DESTDIR)$(MANDIR)/man1/%,$(wildcard man/*.1))
	rm -f $(patsubst man/%,$(DESTDIR)$(MANDIR)/man7/%,$(wildcard man/*.7))

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find pcaptools tests -name __pycache__ -exec rm -rf {} +
	rm -f pcaptools/*/_*.c pcaptools/*/_*.so
