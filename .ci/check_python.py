"""Whether this Python is in pyproject.toml's range. Runs on Python 2 too."""

import re
import sys

with open("pyproject.toml") as file:
    line = next(line for line in file if line.startswith("requires-python"))
low, high = (int(minor) for minor in re.findall(r"3\.(\d+)", line)[:2])
if not (3, low) <= sys.version_info[:2] < (3, high):
    text = "this is Python {}; 3.{} to 3.{} are tested: name one, as in make venv PYTHON=python3.{}"
    sys.exit(text.format(sys.version.split()[0], low, high - 1, high - 1))
