# Needs GNU make and Python 3.11 to 3.13; everything else is installed into .venv.
#   make lab PYTHON=python3.12                           another Python than python3
#   make lab LAB_ARGS="--no-browser --port=9000"         options of JupyterLab

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
LAB_ARGS ?=

PY := $(VENV)/bin/python
PIP_INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt
LAB_INSTALLED := $(VENV)/.lab-installed
TEST_INSTALLED := $(VENV)/.test-installed
NOTEBOOKS := $(sort $(wildcard tutorials/*.ipynb))
FIRST := $(notdir $(firstword $(NOTEBOOKS)))
FIGURES := $(filter-out figures/common.py,$(sort $(wildcard figures/*.py)))
KERNEL_TESTS := $(addprefix tests/test_,kernels.py kernels_regressions.py spikes.py event_layers.py event_recurrent.py event_conv.py)
SANITIZED := SNNLEARN_CACHE=$(VENV)/sanitized SNNLEARN_CXXFLAGS="-fsanitize=address,undefined -g -O1 -DSNN_NO_POOL \
  -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
TEST_STEPS := lint unit notebooks-test browser

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help lab test lint unit notebooks-test browser notebooks figures sanitize bench-slider

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

lab: $(LAB_INSTALLED) ## open the tutorials in JupyterLab (installs everything the first time)
	$(PY) -m jupyterlab --ServerApp.root_dir=tutorials --LabApp.default_url=/lab/tree/$(FIRST) $(AS_ROOT) $(LAB_ARGS)

# JupyterLab refuses to run as root unless it is told to.
AS_ROOT = $(if $(filter 0,$(shell id -u)),--allow-root)

test: $(TEST_INSTALLED) ## all of the next four, in this order
	@set -e; for step in $(TEST_STEPS); do \
	  echo "== $$step: $$(date '+%H:%M:%S')"; $(MAKE) --no-print-directory $$step; \
	done; echo "== end: $$(date '+%H:%M:%S')"

lint: $(TEST_INSTALLED) ## style and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy snnlearn

unit: $(TEST_INSTALLED) ## tests of the library, and the tutorials executed again
	-$(PY) -m snnlearn build
	$(PY) -m pytest -n $(JOBS) --dist worksteal -m "not browser"

notebooks-test: $(TEST_INSTALLED) ## the text that each cell of the tutorials prints
	-$(PY) -m snnlearn build
	PYTHONPATH=tests $(PY) -m pytest -p nbval_plugin --nbval --nbval-current-env --nbval-cell-timeout=120 \
	  --nbval-sanitize-with tests/nbval_sanitize.cfg -n $(JOBS) --dist loadscope tutorials/

browser: $(TEST_INSTALLED) ## the tutorials in JupyterLab in a headless Chromium
	$(PY) -m pytest -m browser -o faulthandler_timeout=900 -o faulthandler_exit_on_timeout=true

notebooks: $(TEST_INSTALLED) ## execute the tutorials and write them as they are committed
	$(PY) tests/notebooks.py $(NOTEBOOKS)

figures: $(TEST_INSTALLED) ## redraw the papers' figures (DATA=folder for the real data sets, where you have them)
	@set -e; for script in $(FIGURES); do echo "== $$script"; $(PY) $$script $(if $(DATA),--data $(DATA)); done

sanitize: $(TEST_INSTALLED) ## the CPU kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer (needs gcc)
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
	  $(SANITIZED) $(PY) -m pytest -n $(JOBS) $(KERNEL_TESTS)

bench-slider: $(TEST_INSTALLED) ## from key press to new picture, in milliseconds
	$(PY) tests/bench_slider.py $(NOTEBOOKS)

$(LAB_INSTALLED): pyproject.toml constraints.txt | $(PY)
	@echo "Installing PyTorch, JupyterLab and snnlearn into $(VENV); the first time this takes some minutes."
	$(PIP_INSTALL) -e ".[lab]"
	@touch $@

$(TEST_INSTALLED): pyproject.toml constraints.txt | $(PY)
	@echo "Installing snnlearn and what its tests need into $(VENV); the first time this takes some minutes."
	$(PIP_INSTALL) -e ".[test]"
	$(PIP_INSTALL) --no-deps norse  # to compare spikes with; without torchvision, whose default build wants CUDA's torch
	@touch $(LAB_INSTALLED) $@

# A link that leads nowhere counts as missing, so this rule is where a vanished Python is noticed, too.
$(PY):
	@if [ -L $@ ]; then \
	  echo "The Python that made $(VENV) is gone. Remove that folder and run make again." >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
	  found=$$($(PYTHON) --version 2>/dev/null) || found="not there"; \
	  echo "snnlearn needs Python 3.11, 3.12 or 3.13; $(PYTHON) is $$found." >&2; \
	  echo "Install one of them and name it: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make environments: its modules venv and ensurepip are missing." >&2; \
	  echo "On Debian and Ubuntu: apt install python3-venv. Then run make again." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -f $@; exit 1; }
