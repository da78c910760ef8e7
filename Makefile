# Six targets; each makes .venv and installs what it needs when that is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export OMP_NUM_THREADS ?= 2
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: demo test check fmt bench golden

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip
	@# torch first, on its own: a CPU build is then taken where one is offered
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/pip install -q -c constraints.txt -e ".[train,dev]"
	touch $(READY)

demo: $(READY)  ## the whole way on the Python standard library of this machine
	$(BIN)/tamis demo --out demo-engine

test: $(READY)  ## the suite: offline, CPU only
	$(BIN)/python -m pytest -q -m "not slow and not gpu" $(ARGS)

check: $(READY)  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(READY)  ## rewrite in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## every public figure; writes docs/evidence.md (long)
	$(BIN)/python -m pytest -q -m slow tests
	$(BIN)/python benchmarks/retrieval.py --encoder scratch
	$(BIN)/python benchmarks/retrieval.py --encoder minilm
	$(BIN)/python benchmarks/scaling.py
	for script in kernels selection_speed selection_scaling small_targets near_duplicates substrings cleaning decontamination source_bias \
		long_tail mixtures selection_retrieval learn_from; do $(BIN)/python benchmarks/$$script.py || exit 1; done

golden: $(READY)  ## rewrite tests/golden from today's answers; review the diff
	$(BIN)/python -m pytest -q tests/golden --rewrite-golden
