# Two commands do everything: `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= 3.10
# `make TORCH_BACKEND=cpu` installs torch without CUDA.
TORCH_BACKEND ?=
# A pyenv shim named uv may exist and still fail: ask it, do not look for it.
UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo .uv/bin/uv)
RUN := .venv/bin/
# The networks here are too small to share out: a second thread costs more than it brings.
THREADS := OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1}

# `make test-slow SLOW="slow and not scale"` leaves out what takes half an hour on Lava.
SLOW ?= slow

.DEFAULT_GOAL := help
.PHONY: help install install-lava demo test test-slow test-all bench results check format docs constraints clean

help:
	@echo "make demo      export, simulate on Lava, verify and report the shipped model (build/demo/)"
	@echo "make test      the test suite, under ten minutes"
	@echo "make test-all  with the slow suites (make test-slow: only those)"
	@echo "make bench     measure, and write docs/performance.md (make bench ONLY=emulator: only that)"
	@echo "make install-lava  Lava into a .venv of Python 3.11 or 3.12 (docs/lava-on-newer-pythons.md)"
	@echo "make results   train, attack and compare on Fashion-MNIST (DATA=its .npz), and write docs/results.md"
	@echo "make check     format, lint, types, docs"
	@echo "make format    apply formatting and safe fixes"
	@echo "make docs      regenerate the generated pages of docs/"
	@echo "make clean     remove everything the other targets made"

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/pip install --quiet --disable-pip-version-check "uv>=0.9,<0.10"

.venv/.installed: pyproject.toml constraints.txt
	@$(MAKE) --no-print-directory $(filter .uv/bin/uv,$(UV))
	$(UV) venv --quiet --clear --python $(PYTHON) .venv
	$(UV) pip install --quiet --python .venv/bin/python $(if $(TORCH_BACKEND),--torch-backend=$(TORCH_BACKEND)) \
		--constraint constraints.txt --editable ".[dev]"
	@touch $@

install: .venv/.installed

# Lava declares Python 3.10 and would not be resolved elsewhere; docs/lava-on-newer-pythons.md says what this is good for.
install-lava: install
	$(UV) pip install --quiet --no-config --python .venv/bin/python $(if $(TORCH_BACKEND),--torch-backend=$(TORCH_BACKEND)) \
		"numpy>=1.26,<2" "torch==2.3.1" "torchvision==0.18.1" "networkx<=2.8.7" "asteval<0.10" scipy "h5py<4" \
		"matplotlib<4" "pillow<11" "opencv-python-headless<4.10" setuptools
	$(UV) pip install --quiet --no-config --python .venv/bin/python --no-deps lava-nc==0.10.0 lava-dl==0.6.0

demo: install
	$(THREADS) $(RUN)rsnn-deploy demo --out build/demo

test: install
	$(THREADS) $(RUN)python -m pytest

test-slow: install
	$(THREADS) $(RUN)python -m pytest -m "$(SLOW)"

test-all: test test-slow

# Apart from the rest: it brings a pytest plugin that fails where warnings are errors.
build/nengo/bin/python: $(filter .uv/bin/uv,$(UV))
	$(UV) venv --quiet --clear --python 3.10 build/nengo
	$(UV) pip install --quiet --python build/nengo/bin/python nengo-loihi==1.1.0 nengo==3.2.0 numpy==1.26.4

# Without them a bench leaves out its plots, and nengo-loihi.
bench: install
	-$(UV) pip install --quiet --python .venv/bin/python $(if $(TORCH_BACKEND),--torch-backend=$(TORCH_BACKEND)) \
		--constraint constraints.txt --editable ".[dev,bench]"
	-@$(MAKE) --no-print-directory build/nengo/bin/python
	PYTHONPATH=tests $(RUN)python -m bench $(if $(ONLY),--only $(ONLY))

results: install
	@test -n "$(DATA)" || { echo "make results DATA=fashion_mnist.npz, an .npz with x_train, y_train, x_test, y_test"; exit 2; }
	$(THREADS) PYTHONPATH=tests $(RUN)python -m study $(DATA)

check: install
	$(RUN)ruff format --check .
	$(RUN)ruff check .
	$(RUN)mypy
	$(RUN)python docs/generate.py --check

format: install
	$(RUN)ruff check --fix --exit-zero --quiet .
	$(RUN)ruff format .

docs: install
	$(RUN)python docs/generate.py

constraints: $(filter .uv/bin/uv,$(UV))
	$(UV) pip compile --quiet --universal --python-version 3.10 --all-extras --no-header --no-annotate \
		--output-file constraints.txt pyproject.toml

clean:
	rm -rf .venv .uv build dist runs .mypy_cache .ruff_cache .pytest_cache .hypothesis
