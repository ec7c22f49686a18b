"""Whether this Python is in pyproject.toml's range. Runs on any Python."""

import re
import sys

with open("pyproject.toml") as file:
    line = next(line for line in file if line.startswith("requires-python"))
low, high = (int(minor) for minor in re.findall(r"3\.(\d+)", line)[:2])
if not (3, low) <= sys.version_info[:2] < (3, high):
    sys.exit(
        "this is Python {}; 3.{} to 3.{} are tested: name one, as in"
        " make venv PYTHON=python3.{}".format(sys.version.split()[0], low, high - 1, high - 1)
    )
