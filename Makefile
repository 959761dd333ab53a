# Everything works on a fresh clone with Python 3.11 or later, pip and make; it happens in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo recipes test test-slow test-oldest test-newest test-mindspore fuzz fuzz-short lint format docs docs-serve tutorial dist clean

demo: $(VENV)/.core
	$(BIN)/python scripts/demo.py

# The recipes in full or in short form against what was recorded of them: a minute. RECIPES='--photos FOLDER --cifar10
# FOLDER' runs those too that need images.
recipes: $(VENV)/.core
	$(BIN)/python scripts/check_recipes.py $(RECIPES)

# One thread per process: two test processes share the cores.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-slow: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'slow and not mindspore'

# What touches each package most, with the oldest versions that pyproject.toml allows, and with the newest that are to
# be had: an environment of its own for each.
BOUNDS := tests/api tests/backends/onnx tests/config tests/data tests/exporters tests/report tests/runs tests/serve tests/weights \
	tests/training/test_optimizer.py tests/cli/test_train.py tests/cli/test_eval.py tests/cli/test_infer.py

test-oldest: $(VENV)/oldest/.dev
	OMP_NUM_THREADS=1 $(VENV)/oldest/bin/python -m pytest -n 2 $(BOUNDS)

test-newest: $(VENV)/newest/.dev
	OMP_NUM_THREADS=1 $(VENV)/newest/bin/python -m pytest -n 2 $(BOUNDS)

# MindSpore (2.9 GB) is asked for here only; it stands beside torch in one environment.
test-mindspore: $(VENV)/.mindspore
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m mindspore

# Hostile images, weights, checkpoints, recipes, options and policies: ten minutes with another seed each time, or the
# minute that CI takes, always the same.
fuzz: $(VENV)/.dev
	$(BIN)/python tests/fuzz/fuzz.py --seconds 600 --seed $$(date +%s)

fuzz-short: $(VENV)/.dev
	$(BIN)/python tests/fuzz/fuzz.py --seconds 60

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site, in site/: README, docs/ and the notebook as pages, and the reference of the Python API. A link that leads
# nowhere fails.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The same on http://127.0.0.1:8000/, built again as the files change.
docs-serve: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

# The notebook's cells are run, and it is stored with what they show.
tutorial: $(VENV)/.dev
	$(BIN)/python scripts/run_tutorial.py

# Source archive and wheel, in dist/.
dist: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build --no-isolation

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache

# A mark's age tells whether the environment is as the files want it.
$(VENV)/.core: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[torch]"
	touch $@

$(VENV)/.dev: $(VENV)/.core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

$(VENV)/oldest/.dev: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(VENV)/oldest
	$(VENV)/oldest/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt -e ".[dev]"
	$(VENV)/oldest/bin/python -m pip uninstall --quiet --yes executorch  # each fits one torch, none the oldest
	touch $@

$(VENV)/newest/.dev: pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)/newest
	$(VENV)/newest/bin/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

$(VENV)/.docs: $(VENV)/.core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	touch $@

$(VENV)/.mindspore: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[mindspore]"
	touch $@
