# make demo   the whole study on a small data set, into runs/demo/
# make report RUNS=runs/demo OUT=runs/demo/report.html   one page of the results in RUNS
# make figures RESULTS=results/ucf101_7   every figure and table of studies, into figures/
# make test   all tests, one process a core; make test-network those that need the package index
# make venv   only the set-up: .venv with everything in it
# make lint   ruff and shellcheck
# make versions   the tests on the oldest versions, Python 3.9 and the newest, each in .venvs/
# make oldest     the same on the oldest versions only, for the tests that depend on libraries
# make clean  remove what the demo made
.POSIX:

PYTHON = python3
PIP_ARGS =
PINS =
VENV = .venv
PY = $(VENV)/bin/python

demo: $(VENV)/ready
	PYTHON=$(PY) sh multirunner/demo.sh

RUNS = runs/demo
OUT = $(RUNS)/report.html
REPORT_ARGS =
report: $(VENV)/ready
	$(PY) -m study.report $(RUNS) --out $(OUT) $(REPORT_ARGS)

# The notebook is run, not written back; RESULTS reaches it through the environment.
figures: $(VENV)/ready
	$(VENV)/bin/jupyter-execute trade_off_all.ipynb

# TESTS="tests/test_macs.py -k name": only these. Without a value: all.
# The tests of a file share what is costly to make, so each file stays with one process. A test that
# ends its process is tried twice more, then the run ends.
TESTS =
test: $(VENV)/ready
	$(PY) -m pytest -n auto --maxprocesses=8 --dist=loadfile --max-worker-restart=2 --durations=10 $(TESTS)

test-network: $(VENV)/ready
	$(PY) -m pytest -m network

lint: $(VENV)/ready
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	shellcheck .ci/run .ci/*.sh multirunner/*.sh

venv: $(VENV)/ready

# A Debian Python without ensurepip still makes an environment that another pip can fill.
$(VENV)/ready: pyproject.toml
	@$(PYTHON) .ci/check_python.py
	$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --clear --without-pip $(VENV) \
	    && $(PYTHON) -m pip --python $(PY) install pip; } || { rm -rf $(VENV); \
	    echo "could not make $(VENV); on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "installing into $(VENV): several GB where PyTorch comes with GPU libraries, some minutes"
	$(PY) -m pip install --quiet $(PIP_ARGS) $(PINS) -e '.[dev]'
	touch $@

# VERSIONS="oldest py39": only these. The script calls make, which hands on TESTS and PIP_ARGS.
VERSIONS = oldest py39 newest
versions:
	sh .ci/versions.sh $(VERSIONS)

# Where libraries matter: codec, re-encoding, counting, checkpoints, training, figures, notebook.
LIBRARY_TESTS = tests/test_coviar_*.py tests/test_macs*.py tests/test_models*.py \
    tests/test_checkpoint.py tests/test_distributed.py tests/test_training.py tests/test_wise.py \
    tests/test_predict.py tests/test_figures.py tests/test_notebook.py tests/test_environments.py
oldest:
	$(MAKE) versions VERSIONS=oldest TESTS='$(LIBRARY_TESTS)'

clean:
	rm -rf runs/demo data/toy

.PHONY: demo report figures test test-network lint venv versions oldest clean
