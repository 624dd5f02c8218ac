# make demo     sets everything up in .venv and trains MFEF on scikit-learn's digits (half a minute);
#               with another build of torch: make clean demo TORCH="torch torchvision --index-url ..."
# make test     sets everything up and runs the tests
# make test-all the slow tests as well
# make chaos    kills and stops runs, breaks numbers, checkpoints and configs; prints what came of it (hours)
# make test-slurm     jobs, and a comparison, on a Slurm of one node that it starts (needs slurmd)
# make matrix         every supported stack, in an environment of its own; ROWS="onedl newest"
# make mmrazor-tests  mmrazor's own tests of distillation; MMRAZOR=folder of a checkout
# make lint     ruff and mypy
# make docs     the documentation, in docs/_build/index.html
# make notebook runs docs/tutorial.ipynb anew and keeps its outputs
# make clean    removes .venv and everything generated

PYTHON ?= python3
TORCH ?= torch==2.14.1 torchvision==0.29.1
SEED ?= 0
BIN = .venv/bin

demo: .venv/ready
	$(BIN)/python tools/train.py configs/mfef/mfef_resnet8-x2_1xb32-20e_digits.py --seed $(SEED) \
		--cfg-options train_cfg.val_interval=5

test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal -m 'not slow'

test-all: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal

chaos: .venv/ready
	for script in tests/chaos/[a-z]*.py; do OMP_NUM_THREADS=1 $(BIN)/python $$script || exit 1; done

test-slurm: .venv/ready
	$(BIN)/python -m pip install -q -e '.[cluster]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -s -rs tests/cluster/test_slurm.py

matrix:
	$(PYTHON) .ci/matrix.py $(ROWS)

mmrazor-tests: .venv/ready
	.ci/mmrazor_tests $(if $(MMRAZOR),"$(MMRAZOR)")

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/ready
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build

notebook: .venv/ready
	$(BIN)/python docs/run_notebook.py

.venv/ready: setup.cfg setup.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11 ...")'
	rm -f .venv/bin/python*
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q $(TORCH)
	$(BIN)/python -m pip install -q -e '.[openmmlab,export,dev,docs]'
	touch $@

clean:
	rm -rf .venv build dist docs/_build docs/generated docs/jupyter_execute *.egg-info work_dirs .matrix .pytest_cache .mypy_cache .ruff_cache

.PHONY: demo test test-all test-slurm matrix mmrazor-tests chaos lint docs notebook clean
