# Everything that a reader or a machine runs. `make help` lists it.
# Targets set up .venv on first use. To use an environment of your own: make tutorial PYTHON=python

VENV := .venv
PYTHON ?= $(VENV)/bin/python
SETUP := $(if $(filter $(VENV)/bin/python,$(PYTHON)),$(VENV)/.done)
# the Python that makes .venv: the first of these that starts and is one of those that the pins take
TAKEN := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
BASE ?= $(shell for name in python3.11 python3.12 python3.13 python3 python; do if $$name -c '$(TAKEN)' 2>/dev/null; then echo $$name; break; fi; done)
# a .venv that came from another machine, or whose Python has gone
STALE := $(shell test ! -e $(VENV)/.done || $(VENV)/bin/python -c '' 2>/dev/null || echo stale)
INSTALL := -m pip install --quiet --disable-pip-version-check
export ATTENTION_HEADLESS ?= 1

.DEFAULT_GOAL := help
.PHONY: help tutorial test lint units programs series nbval faults faults-all hosts test-gpu test-3.13 \
	lab clean-twins notebooks opening results bench site test-site clean .stale

help:  ## list the targets
	@grep -hE '^[a-z0-9.-]+:.*##' Makefile | sed 's/:.*##/ #/' | awk -F ' #  *' '{printf "make %-12s %s\n", $$1, $$2}'

.stale:
	@echo "$(VENV)/bin/python does not start here: $(VENV) is made again"; rm -rf $(VENV)

$(VENV)/.done: requirements.txt $(if $(STALE),.stale)
	@base='$(BASE)'; $$base -c '$(TAKEN)' 2>/dev/null || { \
	echo "needs Python 3.11, 3.12 or 3.13; $${base:-python3} is: $$($${base:-python3} --version 2>&1)"; \
	echo "Install one of them, or say where it is: make BASE=/path/to/python3.13 $(MAKECMDGOALS)"; exit 1; }
	$(BASE) -m venv $(VENV) || { echo "$(BASE) -m venv failed: see above; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(VENV)/bin/python -c '$(TAKEN)' || { echo "$(VENV) is of another Python: delete it, and start again"; exit 1; }
	$(VENV)/bin/python $(INSTALL) -r requirements.txt
	@touch $@

tutorial: $(SETUP)  ## set up, run the series on the built-in sample, say where to look [PARAMS=FILE]
	$(PYTHON) -m helpers.run $(if $(PARAMS),--params '$(PARAMS)')

# Tests. `make test` is what CI runs: the parts, two at a time, each with its line in the summary.
# A part alone: `make units`. What a contributor runs while working: `pytest`, the same as `make units`.

# in an order in which two cores end at about the same time
PARTS := lint nbval series programs units faults
JOBS ?= 2
# what a part prints comes when it ends, so that two do not mix (GNU make 4)
TOGETHER := $(if $(filter output-sync,$(.FEATURES)),--output-sync=recurse)
SUMMARY := $(or $(TMPDIR),/tmp)/attention-test-$(shell id -u)

test: $(SETUP)  ## the parts lint, units, programs, series, nbval and faults, and a summary
	@rm -rf "$(SUMMARY)" && mkdir -p "$(SUMMARY)"
	@$(MAKE) -k --no-print-directory $(if $(findstring -j,$(MAKEFLAGS)),,-j$(JOBS)) $(TOGETHER) $(PARTS:%=.part-%); \
	code=$$?; echo; cat "$(SUMMARY)"/* 2>/dev/null; exit $$code

.part-%:
	@start=$$(date +%s); \
	if $(MAKE) --no-print-directory $*; then word=passed; code=0; else word=FAILED; code=1; fi; \
	printf '%-7s %s in %s s\n' $* $$word $$(($$(date +%s) - start)) > "$(SUMMARY)/$*"; exit $$code

lint: $(SETUP)  ## ruff: rules and format
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

units: $(SETUP)  ## what is tested in seconds: the package, its docstrings' examples, the Kaggle client on loopback
	$(PYTHON) -m pytest

programs: $(SETUP)  ## the programs of bench/ on a few photographs, and the GPU path on a pretend GPU
	$(PYTHON) -m pytest tests/bench tests/gpu

series: $(SETUP)  ## all notebooks through papermill, on a small set
	$(PYTHON) -m pytest tests/notebooks

nbval: $(SETUP)  ## stored outputs against those of this machine
	$(PYTHON) -m tests.notebooks.compare

faults: $(SETUP)  ## what can go wrong, done for real: the quick ones
	$(PYTHON) -m pytest tests/faults

faults-all: $(SETUP)  ## all of them, the load and the soak test; some 40 minutes
	$(PYTHON) -m pytest tests/faults -m "long or not long" -rs
	$(PYTHON) -m pytest tests/runs tests/bench -m long -rs
	$(PYTHON) -m tests.faults.load
	$(PYTHON) -m tests.faults.soak

test-gpu: $(SETUP)  ## the GPU path on a pretend GPU: devices, waits, memory, precision, two processes, notebooks
	$(PYTHON) -m pytest tests/gpu -m "long or not long"

test-3.13:  ## the same tests under Python 3.13, in an environment of its own
	$(MAKE) test VENV=.venv-3.13 BASE=python3.13

.venv-colab/.done: tests/hosts/colab.txt
	python3.13 -m venv .venv-colab
	.venv-colab/bin/python $(INSTALL) -r tests/hosts/colab.txt
	@touch $@

.venv-newest/.done: requirements.txt
	python3.13 -m venv .venv-newest
	sed 's/[=#].*//' requirements.txt | .venv-newest/bin/python $(INSTALL) -r /dev/stdin
	@touch $@

hosts: $(SETUP) .venv-colab/.done .venv-newest/.done  ## the series on imitations of its hosts; Linux, root, Python 3.13
	$(PYTHON) -m pytest tests/hosts -s

# The web edition.

SITE_SETUP := $(if $(SETUP),$(VENV)/.site)

$(VENV)/.site: site/requirements.txt $(VENV)/.done
	$(VENV)/bin/python $(INSTALL) -r requirements.txt -r site/requirements.txt
	@touch $@

site: $(SITE_SETUP)  ## build the web edition, with the notebooks' stored outputs: site/_build/html/index.html
	rm -rf site/_build
	$(PYTHON) site/gather.py
	$(PYTHON) -m sphinx -W --keep-going -q -b html -c site -d site/_build/doctrees site/_build/source site/_build/html

test-site: site  ## the web edition in a real browser, and notebooks in a real JupyterLab; needs chromium and chromedriver
	$(PYTHON) -m pytest tests/site -rs

# Work on the series.

lab: $(SETUP)  ## open the notebooks in JupyterLab, or those that a run left: FOLDER=runs/sample
	ATTENTION_HEADLESS= $(PYTHON) -m jupyterlab $(or $(FOLDER),notebooks)

clean-twins: $(SETUP)  ## the notebooks without their text, to test yourself: notebooks/clean/
	$(PYTHON) -m tests.notebooks.clean

notebooks: $(SETUP)  ## execute all notebooks on the sample and store them with their outputs
	$(PYTHON) -m tests.notebooks.store

opening: $(SETUP)  ## put the repository's address of CITATION.cff into all first cells and badges
	$(PYTHON) -m tests.notebooks.opening

results: $(SETUP)  ## measure all that is published, into data/results/, and put it into the pages; needs real photographs for some
	$(PYTHON) bench/publish.py --measure

bench: $(SETUP)  ## measure speed and memory here: ours, the tutorial's loop and a peer's
	$(PYTHON) bench/speed.py

publish: $(SETUP)  ## put the figures of data/results/ into README, data/, bench/ and site/
	$(PYTHON) bench/publish.py

clean:  ## delete .venv, caches of tools and what runs left; photographs under data/ stay
	rm -rf .venv .venv-3.13 .venv-colab .venv-newest site/_build notebooks/clean runs .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './data/*' -prune -exec rm -rf {} +
