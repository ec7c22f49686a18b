"""Running a command line's `main`: a reader that closes the pipe (`| head`) ends it quietly."""

from __future__ import annotations

import argparse
import os
import sys

CLOSED_PIPE = 141  # what the shell reports of a program that SIGPIPE ended


def run(main, parser: argparse.ArgumentParser) -> None:
    """Call main(arguments, parser) and exit with the code it returns."""
    try:
        code = main(parser.parse_args(), parser)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = CLOSED_PIPE
    sys.exit(code)
