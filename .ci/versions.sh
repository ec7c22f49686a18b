#!/bin/sh
# Run the tests on the versions in each .ci/constraints/NAME.txt, in an environment of its own.
#
#     sh .ci/versions.sh NAME...        as `make versions` does
#     sh .ci/versions.sh --python NAME  only print the Python that NAME asks for, such as 3.9
#
# .venvs/NAME is made anew when pyproject.toml or the constraints have changed. All NAMEs are tried;
# the exit code is 1 when any failed.
set -eu
cd "$(dirname "$0")/.."

# The first line of a constraints file names its Python.
wanted_python() {
    if [ ! -f ".ci/constraints/$1.txt" ]; then
        echo "no .ci/constraints/$1.txt; there are:" .ci/constraints/*.txt >&2
        return 2
    fi
    sed -n '1s/^# Python \([0-9.]*\).*/\1/p' ".ci/constraints/$1.txt"
}

# Tried, not only looked up: a shim of pyenv is there even where its Python is not.
find_python() {
    for python in "python$1" "$HOME/.pyenv/versions/$1."*/bin/python; do
        if "$python" -c '' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    echo "Python $1 is not on this machine: no python$1 in PATH or ~/.pyenv/versions;" \
        "for instance: pyenv install $1" >&2
    return 1
}

test_on() {
    name=$1 venv=.venvs/$1 constraints=.ci/constraints/$1.txt
    version=$(wanted_python "$name") && python=$(find_python "$version") || return
    if ! cat pyproject.toml "$constraints" | cmp -s - "$venv/made-from"; then
        rm -rf "$venv"
        echo "+ $venv: Python $version, $constraints"
        make venv VENV="$venv" PYTHON="$python" PINS="-c $constraints" || return
        cat pyproject.toml "$constraints" >"$venv/made-from"
    fi
    echo "+ $venv: make test"
    make test VENV="$venv"
}

if [ "${1-}" = --python ]; then
    wanted_python "$2"
    exit
fi
failed=
for name; do
    test_on "$name" || failed="$failed $name"
done
if [ -n "$failed" ]; then
    echo "failed on:$failed" >&2
    exit 1
fi
