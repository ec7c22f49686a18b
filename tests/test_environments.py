"""Versions: pyproject.toml says them, and the files that make environments agree with it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.conftest import REPO

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONSTRAINTS = REPO / ".ci/constraints"
CONDA_FILES = ("environment.yml", "py39env.yml")
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PYTHONS = Requirement(f"python{PROJECT['requires-python']}").specifier


def requirements(*extras):
    """Requirements of the project and of some of its extras, by name."""
    lines = [*PROJECT["dependencies"], *(line for name in extras for line in EXTRAS[name])]
    return {Requirement(line).name: Requirement(line).specifier for line in lines}


def floor(specifier):
    (version,) = (part.version for part in specifier if part.operator == ">=")
    return Version(version)


def pins(name):
    """{package: version} of a constraints file."""
    lines = (CONSTRAINTS / f"{name}.txt").read_text().splitlines()
    found = [
        re.fullmatch(r"([\w-]+)==([\w.]+)", line) for line in lines if not line.startswith("#")
    ]
    return {match[1].replace("_", "-"): Version(match[2]) for match in found}


def python_of(name):
    command = ["sh", REPO / ".ci/versions.sh", "--python", name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_oldest_environment_has_the_floors():
    floors = {name: floor(specifier) for name, specifier in requirements("dev").items()}
    oldest = pins("oldest")  # without .post of a version that has only that
    assert {name: Version(oldest[name].base_version) for name in floors} == floors


def test_extras_that_share_a_package_want_the_same_of_it():
    wanted = {}
    for line in (line for lines in EXTRAS.values() for line in lines):
        wanted.setdefault(Requirement(line).name, set()).add(str(Requirement(line).specifier))
    assert [name for name, specifiers in wanted.items() if len(specifiers) > 1] == []


def test_every_pin_is_a_version_that_the_project_accepts():
    needed = requirements("dev")
    for name in ("oldest", "py39"):
        pinned = pins(name)
        assert needed.keys() <= pinned.keys()
        wrong = {key: pinned[key] for key in needed if pinned[key] not in needed[key]}
        assert wrong == {}, name
    assert pins("newest") == {}


def test_the_environments_are_those_of_make_and_of_the_workflow():
    names = {path.stem for path in CONSTRAINTS.iterdir()}
    makefile = (REPO / "Makefile").read_text()
    assert set(re.search("(?m)^VERSIONS = (.*)", makefile)[1].split()) == names
    workflow = (REPO / ".github/workflows/ci.yml").read_text()
    assert set(re.findall(r"ubuntu\S+ versions: (\w+)", workflow)) == names
    targets = set(re.findall(r"(?m)^([a-z]+):", makefile))
    assert set(re.findall(r"\bmake ([a-z]+)", workflow)) <= targets


def test_the_environments_span_the_pythons_that_the_project_accepts():
    minors = [minor for minor in range(30) if f"3.{minor}" in PYTHONS]
    assert python_of("oldest") == python_of("py39") == f"3.{minors[0]}"
    assert python_of("newest") == f"3.{minors[-1]}"


@pytest.mark.parametrize(("file", "python"), [("environment.yml", None), ("py39env.yml", "3.9")])
def test_conda_files_repeat_no_version(file, python):
    lines = (REPO / file).read_text().splitlines()
    entries = [line.strip()[2:] for line in lines if line.strip().startswith("- ")]
    assert entries[0] == "conda-forge" and entries[2:4] == ["pip", "pip:"]
    version = entries[1].removeprefix("python=")
    assert version in PYTHONS and version == (python or version)
    (install,) = entries[4:]
    assert set(re.fullmatch(r"-e \.\[([\w,]+)\]", install)[1].split(",")) <= EXTRAS.keys()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with the script, one environment "future", and a make that only writes down its
    arguments; the Python that "future" asks for comes with the tests."""
    (tmp_path / ".ci/constraints").mkdir(parents=True)
    shutil.copy(REPO / ".ci/versions.sh", tmp_path / ".ci")
    (tmp_path / ".ci/constraints/future.txt").write_text("# Python 3.99\ntorch==9\n")
    (tmp_path / "pyproject.toml").write_text("first\n")
    write_program(
        tmp_path / "bin/make",
        f'echo "$@" >> {tmp_path}/calls\n[ "$1" != venv ] || mkdir -p "${{2#VENV=}}"\n',
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write_program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)


def versions(checkout, *names):
    """(exit code, stderr, calls of make) of .ci/versions.sh."""
    (checkout / "calls").write_text("")
    run = subprocess.run(
        ["sh", checkout / ".ci/versions.sh", *names],
        capture_output=True,
        text=True,
        check=False,
    )
    return run.returncode, run.stderr, (checkout / "calls").read_text().splitlines()


def test_an_environment_is_made_once_for_the_same_requirements(checkout):
    write_program(checkout / "bin/python3.99", "")
    test = "test VENV=.venvs/future"
    made = "venv VENV=.venvs/future PYTHON=python3.99 PINS=-c .ci/constraints/future.txt"
    code, _, calls = versions(checkout, "future")
    assert (code, calls) == (0, [made, test])
    assert versions(checkout, "future")[2] == [test]
    for changed in ("pyproject.toml", ".ci/constraints/future.txt"):
        with open(checkout / changed, "a") as file:
            file.write("# more\n")
        leftover = checkout / ".venvs/future/old"
        leftover.touch()
        assert len(versions(checkout, "future")[2]) == 2
        assert not leftover.exists()


def test_a_python_of_pyenv_is_found_and_a_missing_one_said(checkout):
    code, error, calls = versions(checkout, "future")
    assert (code, calls) == (1, [])
    assert "Python 3.99 is not on this machine" in error and "failed on: future" in error
    write_program(checkout / ".pyenv/versions/3.99.1/bin/python", "")
    code, _, calls = versions(checkout, "future")
    assert code == 0 and f"PYTHON={checkout}/.pyenv/versions/3.99.1/bin/python" in calls[0]


def test_all_environments_are_tried_and_those_that_failed_are_named(checkout):
    write_program(checkout / "bin/python3.99", "")
    shutil.copy(checkout / ".ci/constraints/future.txt", checkout / ".ci/constraints/other.txt")
    with open(checkout / "bin/make", "a") as file:
        file.write('case "$*" in test*future*) exit 1; esac\n')
    code, error, calls = versions(checkout, "unknown", "future", "other")
    assert code == 1 and "failed on: unknown future" in error
    assert "no .ci/constraints/unknown.txt; there are: .ci/constraints/future.txt" in error
    assert calls[-1].startswith("test VENV=.venvs/other")


@pytest.mark.parametrize(
    ("version", "accepted"), [((3, 8), False), ((3, 9), True), ((3, 13), True), ((3, 14), False)]
)
def test_make_refuses_a_python_outside_the_range(version, accepted):
    check = (REPO / ".ci/check_python.py").read_text()
    setting = f"import sys; sys.version_info = {(*version, 0)}; exec(sys.argv[1])"
    run = subprocess.run(
        [sys.executable, "-c", setting, check], cwd=REPO, capture_output=True, text=True
    )
    assert (run.returncode == 0) == accepted
    assert accepted or "3.9 to 3.13 are tested" in run.stderr


def pip(*arguments):
    command = [sys.executable, "-m", "pip", *map(str, arguments)]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)


@pytest.mark.network
def test_an_installation_that_leaves_the_checkout_is_refused(tmp_path):
    copy = tmp_path / "copy"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, text=True)
    for name in filter(None, files.stdout.split("\0")):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / name, copy / name)
    run = pip("install", "--no-deps", "--target", tmp_path / "plain", copy)
    assert run.returncode != 0 and "Install it with: make venv" in run.stdout + run.stderr
    run = pip("install", "--no-deps", "--target", tmp_path / "editable", "-e", copy)
    assert run.returncode == 0, run.stderr
    assert not Path(tmp_path / "editable/training").exists()
