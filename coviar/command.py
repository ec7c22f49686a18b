"""Running a command line: a reader that closes the pipe (`| head`), or Ctrl-C, ends it quietly."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import sys
from collections.abc import Callable, Iterator

INTERRUPTED = 130  # what the shell reports of a program that Ctrl-C ended
CLOSED_PIPE = 141  # what the shell reports of a program that SIGPIPE ended
_OUTPUTS = (1, 2)  # the descriptors of stdout and stderr


def run(main: Callable, parser: argparse.ArgumentParser) -> None:
    """Call main(arguments, parser) and exit with the code it returns, or that of Ctrl-C."""
    with quiet_pipe():
        if sys.stdout.errors == "strict":  # the name of a file need not be text
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            code = main(parser.parse_args(), parser)
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            code = INTERRUPTED
        sys.exit(code)


@contextlib.contextmanager
def quiet_pipe() -> Iterator[None]:
    """Exit without a traceback where nobody reads the output any more."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not any(map(_is_unread, _OUTPUTS)):
            raise  # another pipe, such as a worker's
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for output in _OUTPUTS:
            os.dup2(nowhere, output)
        sys.exit(CLOSED_PIPE)


def _is_unread(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)
    return bool(poll.poll(0))
