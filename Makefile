# uv is quicker than pip, which steps in where uv finds no way out (behind a proxy with certificates of its own, say).
# Each word works on a fresh machine that has Python 3.11 and nothing else: it makes .venv and installs into it.
# Without the bytecode that Python keeps beside TensorFlow's files, each process takes three times as long to start.
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test test-slow wheel-test cluster-test prism-test docs pages-test lint format clean
.PHONY: bench bench-checkpoints bench-densities bench-growth bench-judges bench-limit bench-methods bench-pipelines bench-serving bench-stores bench-peers
.PHONY: bench-gpu-carry bench-gpu-run torture

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[test]' || $(BIN)/python -m pip install --quiet -e '.[test]'
	touch $@

quickstart: $(VENV)/.installed
	$(BIN)/tfvae quickstart --output runs/quickstart

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow and not cluster' --durations 15

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'slow and not cluster' --durations 15

# The wheel, the sdist and the client, in environments of their own for each Python from 3.11 to 3.13 that is there.
wheel-test: $(VENV)/.installed
	nice $(BIN)/python tests/wheel/run.py

cluster-test: $(VENV)/.installed
	timeout -s INT -k 60 1200 $(BIN)/python -m pytest -m cluster --durations 10 tests/cluster --ignore tests/cluster/test_prism.py

# Needs Go, which builds Prism in two minutes of a processor, once for each version of Beam.
prism-test: $(VENV)/.installed
	timeout -s INT -k 60 1200 $(BIN)/python -m pytest -m cluster --durations 10 tests/cluster/test_prism.py

# The tutorials run once and are kept in build/notebooks until they change; `make docs` again takes seconds for them.
$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[docs]' || $(BIN)/python -m pip install --quiet -e '.[docs]'
	touch $@

docs: $(VENV)/.docs
	nice $(BIN)/python -m sphinx -q -W --keep-going -b html -c docs . build/docs

# The pages on Airflow, Dagster, MLflow, Ray, LanceDB, OpenVINO and ONNX, and jobs for Dataflow, whose libraries are large: in
# an environment of their own.
PAGES := .venv-pages
$(PAGES)/.installed: tests/pages.txt pyproject.toml | $(VENV)/.installed
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(PAGES)
	$(BIN)/uv pip install --quiet --python $(PAGES)/bin/python -e '.[test,dataflow]' -r $<
	touch $@

# Where a library is not there its page would be skipped: they are imported first. Ray gives its workers the last of a
# busy machine, and 60 s to start.
pages-test: $(PAGES)/.installed
	AIRFLOW_HOME=$(CURDIR)/$(PAGES)/airflow $(PAGES)/bin/python -c 'import apitools; import airflow, dagster, lancedb, mlflow, onnxruntime, openvino, ray, tf2onnx'
	RAY_worker_niceness=0 RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S=300 timeout -s INT -k 60 900 \
		$(PAGES)/bin/python -m pytest tests/test_pages.py tests/pipelines/test_dataflow.py \
		tests/pipelines/embedding/test_parquet_parts.py -k 'dataflow or mlflow.md or ray.md or runtimes.md or schedule.md or search.md or open_the_folder' --durations 5

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.evaluation
	$(BIN)/python -m benchmarks.startup

bench-checkpoints: $(VENV)/.installed
	$(BIN)/python -m benchmarks.checkpoints

bench-growth: $(VENV)/.installed
	$(BIN)/python -m benchmarks.growth

bench-judges: $(VENV)/.installed
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps prdc==0.2 disentanglement-lib==1.5 gin-config==0.3.0 six
	$(BIN)/python -m benchmarks.judges
	$(BIN)/python -m benchmarks.planted

bench-limit: $(VENV)/.installed
	$(BIN)/python -m benchmarks.limit
	$(BIN)/python -m benchmarks.samples

bench-densities: $(VENV)/.installed
	$(BIN)/python -m benchmarks.densities

bench-methods: $(VENV)/.installed
	$(BIN)/python -m benchmarks.methods

bench-pipelines: $(VENV)/.installed
	$(BIN)/python -m benchmarks.pipelines
	$(BIN)/python -m benchmarks.pipeline_growth

bench-stores: $(VENV)/.installed
	$(BIN)/python -m benchmarks.stores

bench-serving: $(VENV)/.installed
	$(BIN)/python -m benchmarks.serving

# Each command killed a hundred times, for an hour at most: docs/results/reliability.md.
torture: $(VENV)/.installed
	$(BIN)/python -m benchmarks.torture
	$(BIN)/python -m benchmarks.torture_stores

# PyTorch with pythae, and JAX, each in an environment of its own, so that no side decides what another gets.
PEERS := .venv-peers
$(PEERS)/torch/.installed: benchmarks/peers/torch.txt | $(VENV)/.installed
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(PEERS)/torch
	$(BIN)/uv pip install --quiet --python $(PEERS)/torch/bin/python -r $<
	touch $@

$(PEERS)/jax/.installed: benchmarks/peers/jax.txt | $(VENV)/.installed
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(PEERS)/jax
	$(BIN)/uv pip install --quiet --python $(PEERS)/jax/bin/python -r $<
	touch $@

bench-peers: $(VENV)/.installed $(PEERS)/torch/.installed $(PEERS)/jax/.installed
	$(BIN)/python -m benchmarks.peers --environments $(PEERS)
	$(BIN)/python -m benchmarks.log_marginal --environments $(PEERS)

# In two stages: the first needs TensorFlow and no GPU; the second runs where the GPU is, with any Python that holds
# jax, optax and PyTorch, for example `make bench-gpu-run GPU_PYTHON=python3`. FOLDER goes from the one to the other.
FOLDER ?= runs/gpu
GPU_PYTHON ?= $(BIN)/python
bench-gpu-carry: $(VENV)/.installed
	$(BIN)/python -m benchmarks.gpu carry $(FOLDER)

bench-gpu-run:
	$(GPU_PYTHON) -m benchmarks.gpu run $(FOLDER)

clean:
	rm -rf $(VENV) $(PAGES) $(PEERS) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
