# make demo   train Mask R-CNN with deformable convolutions on a photograph of coins, evaluate it, draw a picture
# make test   everything's tests
# make quick  the tests of operators, layers, configurations, weights and backbones
# make gate   every CUDA kernel compiled for every supported architecture, held to limits; needs nvcc, no GPU
# make toolkits  the kernels compiled with other CUDA toolkits, from Python packages; needs nvcc, no GPU
# make docs   the site, in build/docs; a warning is an error
# make matrix the package built with six versions of torch, and wheels run under others than they were built with
# make help   these lines; make alone sets up .venv
# All set up .venv first: nothing but git, Python >= 3.10 with venv, a C++ compiler and make is needed; with nvcc the
# CUDA part is built too.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE := $(shell find csrc build_native -type f -not -name '*.pyc' -not -name '*.md') setup.py resnet_cuda/_version.py

.PHONY: all help install demo test quick gate toolkits docs matrix lint format bench wheel clean

all: install

help:
	@sed -n 's/^# \(make .*\)/\1/p' $(firstword $(MAKEFILE_LIST))

install: $(STAMP)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# torch first: the build uses its headers. Without build isolation pip does not download a second torch for that.
$(VENV)/.requirements: pyproject.toml | $(BIN)/python
	@echo "downloading torch and torchvision: some 3 GB with CUDA"
	$(BIN)/python -m pip install --quiet torch torchvision ninja 'pybind11>=2.13' 'setuptools>=64' wheel
	touch $@

$(STAMP): $(VENV)/.requirements $(NATIVE)
	@echo "compiling: 2 to 5 minutes on 2 cores, during which pip shows nothing"
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[vision,test]'
	$(BIN)/python -m resnet_cuda info
	touch $@

demo: $(STAMP)
	$(BIN)/python examples/mask_rcnn.py

# One process per core; PYTEST_ARGS="-n 0" for one alone.
PYTEST = $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

test: $(STAMP)
	$(PYTEST) $(PYTEST_ARGS)

# On the compiled operators; `make test` runs them on the reference, too.
quick: $(STAMP)
	$(PYTEST) -m 'not slow and not reference' $(PYTEST_ARGS)

# Here what cannot run fails, where `make test` skips it.
gate: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m compile_gate
	RESNET_CUDA_TEST_REQUIRE_GATE=1 $(BIN)/python -m pytest -q tests/compile_gate

# TOOLKITS="12.8 13.5" for less.
toolkits: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m compile_gate.toolkits --folder build/toolkits $(if $(TOOLKITS),--toolkit $(TOOLKITS))

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet 'sphinx>=8' 'myst-parser>=4' furo
	touch $@

docs: $(STAMP) $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -q docs build/docs

# Needs no .venv. MATRIX_ARGS="--torch 2.10.0 newest --folder DIR --keep" for less and for looking at it afterwards.
matrix:
	$(PYTHON) tests/packaging/matrix.py $(MATRIX_ARGS)

$(VENV)/.lint: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet ruff==0.17.6 clang-format==19.1.7
	touch $@

SOURCES = $(shell find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(SOURCES)
	@echo "lines of more than 120 characters:"
	@LC_ALL=C.UTF-8 git grep --untracked -nIE '^.{121,}' -- . ':!*.json' ':!*.jsonl' ':!*.csv'; test $$? -eq 1

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(SOURCES)

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[bench]'
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

wheel: $(STAMP)
	$(BIN)/python -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir dist .

clean:
	rm -rf build dist *.egg-info resnet_cuda/*.so $(STAMP)
