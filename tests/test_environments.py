"""Every pip requirement of the two conda files resolves to a wheel for that file's Python."""

import re
import subprocess
import sys

import pytest
from conftest import REPO


def requirements(file):
    """(Python version, pip requirements) of a conda environment file of ours."""
    lines = (REPO / file).read_text().splitlines()
    python = next(m[1] for m in map(re.compile(r"\s+- python=([\d.]+)").fullmatch, lines) if m)
    after_pip = lines[lines.index("  - pip:") + 1 :]
    return python, [line.strip().removeprefix("- ") for line in after_pip]


@pytest.mark.network
@pytest.mark.parametrize("file", ["environment.yml", "py39env.yml"])
def test_requirements_resolve_to_wheels(file, tmp_path):
    python, names = requirements(file)
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed"]
    target = ["--target", tmp_path, "--python-version", python, "--only-binary=:all:"]
    run = subprocess.run([*pip, *target, *names], capture_output=True, text=True, check=False)
    if "Temporary failure in name resolution" in run.stderr or "ConnectionError" in run.stderr:
        pytest.skip("no network: the package index cannot be reached")
    assert run.returncode == 0, run.stderr
    installed = run.stdout.split("Would install", 1)[1]
    for name in names:
        assert re.search(rf"\b{re.split('[<>=!]', name)[0]}-\d", installed), name


def test_both_files_name_what_the_project_needs():
    """A requirement added to pyproject.toml must reach the conda files."""
    text = (REPO / "pyproject.toml").read_text()
    block = re.search(r"^dependencies = \[(.*?)^\]", text, re.S | re.M)[1]
    needed = {re.split("[<>=!]", item)[0] for item in re.findall(r'"(.+?)"', block)}
    for file in ("environment.yml", "py39env.yml"):
        assert needed <= {re.split("[<>=!]", item)[0] for item in requirements(file)[1]}
