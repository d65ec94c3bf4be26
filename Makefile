# Everything that is done with this repository, by one word each. `make setup` is part of all of them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup test test-real test-gpu gguf coverage crashes soak fuzz audit sbom lock lint types check docs dist assets quickstart \
  quickstart-short report-picture pictures clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

test: setup  ## the default suite: eight minutes on two cores, no network, no real weights
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not real and not slow and not gpu"

coverage: setup  ## the default suite with coverage; prints a table, and writes build/coverage/index.html
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not real and not slow and not gpu" --cov \
	  --cov-report=term:skip-covered --cov-report=html:build/coverage

test-real: setup gguf  ## real weights and real text; minutes
	$(BIN)/python -m pytest -rs -m "real or slow"

test-gpu: setup  ## every family on a CUDA device beside the CPU; without one it skips, and says so
	$(BIN)/python -m pytest -rs -m gpu

GGUF := build/gguf
gguf: setup $(GGUF)/.installed  ## the converter of llama.cpp, and llama.cpp itself without compiling it, for the tests of GGUF files

$(GGUF)/.installed:
	$(BIN)/python -m pip install --quiet --no-deps --target $(GGUF)/lib xllamacpp==2026.10.11549 sentencepiece==0.2.3
	$(BIN)/python -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest $(GGUF) llama-cpp-python==0.3.36
	tar --extract --gzip --file $(GGUF)/llama_cpp_python-*.tar.gz --directory $(GGUF) --strip-components=2 --wildcards \
	  '*/llama.cpp/convert_*_to_gguf.py' '*/llama.cpp/conversion' '*/llama.cpp/gguf-py' '*/llama.cpp/LICENSE'
	rm $(GGUF)/llama_cpp_python-*.tar.gz
	touch $@

KILLS ?= 200
crashes: setup  ## a crash at every write and step, then KILLS kills of real processes at random moments; prints counts
	$(BIN)/python -m pytest -s -m slow tests/federation/test_crashes.py
	KILLS=$(KILLS) $(BIN)/python -m pytest -s -m slow tests/e2e/test_kills.py

MEMBERS ?= 24
ROUNDS ?= 200
soak: export KILLS := $(or $(SOAK_KILLS),20)
soak: setup  ## MEMBERS real processes, ROUNDS rounds, SOAK_KILLS random kills, delay and loss; for a schedule: hours. Run again to go on
	MEMBERS=$(MEMBERS) ROUNDS=$(ROUNDS) PYTHONPATH=tests $(BIN)/python -m soak.run

FUZZ_SECONDS ?= 600
FUZZ_TARGETS := update message enrolment settings commit log config
fuzz: setup  ## each parser of what others wrote, FUZZ_SECONDS long, guided by coverage; prints executions (Linux)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	for target in $(FUZZ_TARGETS); do $(BIN)/python tests/fuzz/run.py $$target $(FUZZ_SECONDS) || exit 1; done

AUDIT := .venv-audit/bin
audit:  ## known vulnerabilities of the pinned versions; 1: found and not accepted in audit.toml, 2: could not be looked up
	test -x $(AUDIT)/pip-audit || $(PYTHON) -m venv .venv-audit
	$(AUDIT)/python -m pip install --quiet pip-audit==2.10.1
	$(AUDIT)/python .ci/audit.py

# resolve against a CPU build of torch (UV_FIND_LINKS or UV_INDEX): PyPI's would bring CUDA's packages into the lock
LOCK := --generate-hashes --no-emit-package torch --python-version 3.11 --python-platform x86_64-manylinux_2_28
lock: setup  ## the hashes of constraints.txt's versions
	{ sed -n '/^#/p' requirements.lock; $(BIN)/uv pip compile pyproject.toml --extra dev --extra fuzz --quiet \
	  --constraint constraints.txt $(LOCK) --no-header --no-annotate; } > requirements.lock.new
	mv requirements.lock.new requirements.lock

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

check: lint types test

docs: setup  ## the documentation site in build/docs; warnings are errors; needs no network
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --builder html docs build/docs

sbom:  ## the software bill of materials of the lock, in CycloneDX: dist/h2tune.cdx.json
	test -x $(AUDIT)/pip || $(PYTHON) -m venv .venv-audit
	$(AUDIT)/python -m pip install --quiet cyclonedx-bom==7.5.0
	mkdir -p dist
	$(AUDIT)/cyclonedx-py requirements --output-reproducible --mc-type library --pyproject pyproject.toml \
	  --output-file dist/h2tune.cdx.json requirements.lock

dist: export SOURCE_DATE_EPOCH = $(shell git log -1 --format=%ct)
dist: setup  ## sdist and wheel in dist/ (the wheel from the sdist, twice, to the byte), tried in a bare environment
	rm -rf dist build/bare build/again
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m build --outdir build/again
	for wheel in dist/*.whl; do cmp $$wheel build/again/$${wheel##*/}; done
	$(PYTHON) -m venv build/bare
	build/bare/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	build/bare/bin/python .ci/try_wheel.py

assets: setup  ## the demo models and texts, fetched once into the user's cache
	$(BIN)/h2tune assets fetch smollm2-135m-instruct all-minilm-l6-v2 paraphrase-minilm-l3-v2 e5-small-en-pt \
	  bert-tiny-splade movie_reviews amazon_reviews nyt_editorials tweets bbc_topics

quickstart: assets  ## five models, two tasks, one client without labels: teach, train, aggregate, compare
	rm -rf runs/quickstart
	$(BIN)/h2tune run examples/quickstart.toml

quickstart-short: assets  ## the same with a few steps; fails on any warning
	rm -rf runs/quickstart-short
	$(BIN)/h2tune run examples/quickstart.toml --strict --out runs/quickstart-short \
	  --set experimental.alone=false --set train.local_steps=2 --set client.films.local_steps=2 \
	  --set data.test=32 --set basis.count=200

CHROMIUM ?= chromium
report-picture:  ## docs/images/report.png from the quickstart's report; needs runs/quickstart and Chromium
	$(CHROMIUM) --headless --no-sandbox --hide-scrollbars --window-size=1560,1390 \
	  --screenshot=docs/images/report.png "file://$(CURDIR)/runs/quickstart/report.html"

PAGE ?= runs/quickstart/report.html
pictures:  ## PAGE at 420, 800 and 1,400 px, light and dark, in build/pictures; needs Chromium
	mkdir -p build/pictures
	for width in 420 800 1400; do for light in 0 1; do \
	  $(CHROMIUM) --headless --no-sandbox --hide-scrollbars --blink-settings=preferredColorScheme=$$light \
	    --window-size=$$width,4000 --screenshot=build/pictures/$$width-$$light.png "file://$(abspath $(PAGE))" || exit 1; \
	done; done

clean:
	rm -rf $(VENV) build dist *.egg-info runs
