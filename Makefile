# Everything that is done with this repository, by one word each. `make setup` is part of all of them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup test test-real lint types check quickstart clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

test: setup  ## the default suite: under five minutes, no network, no real weights
	$(BIN)/python -m pytest -n 2 -m "not real and not slow"

test-real: setup  ## real weights and real text; minutes
	$(BIN)/python -m pytest -m "real or slow"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

check: lint types test

quickstart: setup  ## three models, three tasks, three ranks: fetch, train, compare
	$(BIN)/h2tune assets fetch smollm2-135m-instruct gemma-3-270m all-minilm-l6-v2 movie_reviews bbc_topics tweets
	rm -rf runs/quickstart
	$(BIN)/h2tune run examples/quickstart.toml

clean:
	rm -rf $(VENV) build dist *.egg-info runs
