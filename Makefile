# Needs Python 3.11 or later, make and a network; all else goes into .venv at the versions in requirements.lock.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo check test lint types lock docs bench quality recipe weak_labels warm_start faults clean

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fsat needs Python 3.11 or later, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12 setup")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@touch $@

# The whole main job on generated sounds.
demo: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" mlflow run . --env-manager local $(DEMO)

DEMO := -P n_folds=2 -P sampling_rate=8000 -P audio_duration=1 -P batch_size=16 -P max_epochs=50 -P patience=15

# Modules go to the workers whole and in the order of tests/conftest.py, which puts the slowest first.
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# For every save: lint, types, and the tests without a marker of pyproject.toml.
check: lint types
	$(PYTEST) -m "not (process or server or browser or ray or network or slow)"

# All tests.
test: setup
	$(PYTEST)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

# Pin the dependencies again, after a change of them in pyproject.toml.
lock: setup
	$(BIN)/uv pip compile pyproject.toml --extra app --extra backbones --extra export --extra media --extra ray --extra server --extra dev --universal --python-version 3.11 --upgrade \
		--no-header --no-annotate --no-emit-index-url --quiet --output-file requirements.lock
	$(BIN)/python -c 'import hashlib, re, pathlib; lock, conda = map(pathlib.Path, ("requirements.lock", "conda.yaml")); \
		digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]; \
		conda.write_text(re.sub("(?m)^# lock: .*", "# lock: " + digest, conda.read_text()))'

# Writes what the documentation has from the code, and runs its commands in a fresh clone: make docs [PAGES="data.md"].
docs: setup
	$(BIN)/python -m docs.make_reference
	$(BIN)/python -m docs.run_commands $(PAGES)

# What fsat's speed and memory are measured by: make bench DATA_DIR=DIR [BENCH="decode train"]; see benchmarks/README.md.
bench: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'resampy>=0.4'
	$(BIN)/python -m benchmarks $(DATA_DIR) $(BENCH)

# How good the models are: quality, on DATA_DIR's folds; recipe, what each part of cnn_logmel's is worth there;
# weak_labels, with labels made wrong on purpose; warm_start, from a tagger of other classes.
quality recipe weak_labels warm_start: setup
	$(BIN)/python -m benchmarks $(DATA_DIR) $@

# What fsat does when processes are killed, servers stop and disks fill: make faults DATA_DIR=DIR [FAULTS="kill_fold"].
FAULTS := kill_fold kill_predict server_away sqlite_ten disk_full records overhead ray_cost
faults: setup
	$(BIN)/python -m benchmarks $(DATA_DIR) $(FAULTS)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache
