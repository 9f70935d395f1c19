# make demo: what talking heads do, in two minutes. make test: what CI runs. make docs: the site, in site/.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin

.PHONY: demo test checks suite test-all test-versions docs tutorials wheel clean

demo: $(VENV)/installed
	$(RUN)/talking-heads demo --out runs/demo

test: $(VENV)/installed
	$(MAKE) --jobs 2 checks suite

checks:
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

suite:
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -q -n 2 --dist worksteal --durations=10 -m "not slow"

test-all: $(VENV)/installed
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -q -n 2 --dist worksteal --durations=10

# The lowest versions that pyproject.toml promises, and the newest of every package; outcome in docs/results/versions.json.
test-versions: $(VENV)/installed
	$(RUN)/python tests/versions.py lowest
	$(RUN)/python tests/versions.py newest

# site/: the documentation; a warning, a dead link among them, is an error.
docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(RUN)/mkdocs build --strict --quiet

# Run the tutorials again and keep their outputs.
tutorials: $(VENV)/docs
	PYTHONWARNINGS="ignore:IProgress not found" $(RUN)/jupyter execute --inplace docs/tutorials/*.ipynb

# dist/: source distribution, and a wheel for every Python 3 on this kind of Linux.
wheel: $(VENV)/installed
	.ci/wheel

# pip's own configuration decides where packages come from (a CPU or a CUDA build of torch, say).
$(VENV)/installed: pyproject.toml constraints.txt setup.py $(wildcard talking_heads/kernels/cpu/src/*)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,bench,dev]'
	touch $@

$(VENV)/docs: $(VENV)/installed
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-newest build dist site *.egg-info
