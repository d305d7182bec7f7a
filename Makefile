# Everything that a reader or a machine runs. `make help` lists it.
# Targets set up .venv on first use. To use an environment of your own instead: make tutorial PYTHON=python

VENV := .venv
PYTHON ?= $(VENV)/bin/python
SETUP := $(if $(filter $(VENV)/bin/python,$(PYTHON)),$(VENV)/.done)
# the Python that makes .venv: the first of these that is there
BASE ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(if $(shell command -v $(name)),$(name))))
export ATTENTION_HEADLESS ?= 1

.DEFAULT_GOAL := help
.PHONY: help tutorial test test-3.13 test-hosts test-faults site test-site lab notebooks opening bench clean

help:  ## list the targets
	@grep -hE '^[a-z0-9.-]+:.*##' Makefile | sed -E 's/^([^:]+):.*## /\1\t/' | awk -F '\t' '{printf "make %-12s %s\n", $$1, $$2}'

$(VENV)/.done: requirements.txt
	@$(BASE) --version >/dev/null 2>&1 || { echo "$(BASE) does not start: install Python 3.11, 3.12 or 3.13"; exit 1; }
	$(BASE) -m venv $(VENV) || { echo "python3 -m venv failed; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

tutorial: $(SETUP)  ## set up, run the six notebooks on the built-in sample, say where to look
	$(PYTHON) -m helpers.run

test: $(SETUP)  ## lint, units, the series through papermill, stored outputs through nbval
	$(PYTHON) -m tests.parts

test-3.13:  ## the same tests under Python 3.13, in an environment of its own
	$(MAKE) test VENV=.venv-3.13 BASE=python3.13

.venv-colab/.done: tests/hosts/colab.txt
	python3.13 -m venv .venv-colab
	.venv-colab/bin/python -m pip install --quiet --disable-pip-version-check -r tests/hosts/colab.txt
	@touch $@

.venv-newest/.done: requirements.txt
	python3.13 -m venv .venv-newest
	sed 's/[=#].*//' requirements.txt | .venv-newest/bin/python -m pip install --quiet --disable-pip-version-check -r /dev/stdin
	@touch $@

test-hosts: $(SETUP) .venv-colab/.done .venv-newest/.done  ## the series on imitations of its hosts; Linux, root, Python 3.13
	$(PYTHON) -m pytest tests/hosts -s

test-faults: $(SETUP)  ## all that can go wrong, done for real, the load and the soak test; some 40 minutes
	$(PYTHON) -m pytest tests/faults -rs
	$(PYTHON) -m tests.faults.load
	$(PYTHON) -m tests.faults.soak

SITE_SETUP := $(if $(SETUP),$(VENV)/.site)

$(VENV)/.site: site/requirements.txt $(VENV)/.done
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r site/requirements.txt
	@touch $@

site: $(SITE_SETUP)  ## build the book, with the notebooks' stored outputs: site/_build/html/index.html
	rm -rf site/_build
	$(PYTHON) site/gather.py
	$(PYTHON) -m sphinx -W --keep-going -q -b html -c site -d site/_build/doctrees site/_build/source site/_build/html

test-site: site  ## the book in a real browser, and notebooks in a real JupyterLab; needs chromium and chromedriver
	$(PYTHON) -m pytest tests/site -rs

lab: $(SETUP)  ## open the notebooks in JupyterLab
	ATTENTION_HEADLESS= $(PYTHON) -m jupyterlab notebooks

notebooks: $(SETUP)  ## execute all notebooks on the sample and store them with their outputs
	$(PYTHON) -m tests.notebooks.store

opening: $(SETUP)  ## put the repository's address of CITATION.cff into all first cells and badges
	$(PYTHON) -m tests.notebooks.opening

bench: $(SETUP)  ## measure speed and memory here: ours, the tutorial's loop and a peer's
	$(PYTHON) bench/speed.py

clean:  ## delete .venv, caches of tools and what runs left; photographs under data/ stay
	rm -rf .venv .venv-3.13 .venv-colab .venv-newest site/_build runs .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './data/*' -prune -exec rm -rf {} +
