# make demo   the whole study on a small data set, into runs/demo/
# make report RUNS=runs/demo OUT=runs/demo/report.html   one page of the results in RUNS
# make figures RESULTS=results/ucf101_7   every figure and table of studies, into figures/
# make test   all tests, one process a core; make test-network those that need the package index
# make venv   only the set-up: .venv with everything in it
# make lint   ruff and shellcheck
# make clean  remove what the demo made
.POSIX:

PYTHON = python3
PIP_ARGS =
PY = .venv/bin/python

demo: .venv/ready
	PYTHON=$(PY) sh multirunner/demo.sh

RUNS = runs/demo
OUT = $(RUNS)/report.html
REPORT_ARGS =
report: .venv/ready
	$(PY) -m study.report $(RUNS) --out $(OUT) $(REPORT_ARGS)

# The notebook is run, not written back; RESULTS reaches it through the environment.
figures: .venv/ready
	.venv/bin/jupyter-execute trade_off_all.ipynb

# A file's tests share what is costly to make, so each file stays with one process.
test: .venv/ready
	$(PY) -m pytest -n auto --maxprocesses=8 --dist=loadfile --durations=10

test-network: .venv/ready
	$(PY) -m pytest -m network

lint: .venv/ready
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	shellcheck .ci/run multirunner/*.sh

venv: .venv/ready

# A Debian Python without ensurepip still makes an environment that another pip can fill.
.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 9))' || \
	    { echo "Python 3.9 or newer is needed; name one with: make $@ PYTHON=python3.11"; exit 1; }
	$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv || { $(PYTHON) -m venv --clear --without-pip .venv \
	    && $(PYTHON) -m pip --python $(PY) install pip; } || { rm -rf .venv; \
	    echo "could not make .venv; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PY) -m pip install --quiet $(PIP_ARGS) -e '.[dev]'
	touch $@

clean:
	rm -rf runs/demo data/toy

.PHONY: demo report figures test test-network lint venv clean
