"""How the loader's loops are compiled: by numba, once, and kept on disk. Who waits is told so, and
who will wait again, because the disk cannot keep them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import numba
from numba.core import event
from numba.core.dispatcher import Dispatcher


def jit(function: Callable) -> Callable:
    """`function`, compiled when it is first called. Kept on disk; where that is not possible, one
    line on stderr says so, and the loops are compiled again at each start."""
    try:
        compiled = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError as error:  # no folder for it can be written
        _say_they_are_not_kept(error)
        return numba.njit(nogil=True)(function)
    # numba reads and writes the file at the first call, which may be amid a video's decoding.
    if isinstance(compiled, Dispatcher):  # not under NUMBA_DISABLE_JIT
        compiled._cache._guard_against_spurious_io_errors = _without_errors_of_the_disk
    return compiled


@contextlib.contextmanager
def _without_errors_of_the_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _say_they_are_not_kept(error)


class _Notice(event.Listener):
    """One line on stderr when the first loop of this package is not in numba's cache, and one when
    it cannot be kept there."""

    given = False
    not_kept = False  # whether that is said

    def on_start(self, started: event.Event) -> None:
        module = started.data["dispatcher"].py_func.__module__
        if module.startswith("coviar.") and not self.given:
            self.given = True
            once = "" if self.not_kept else ", once"
            print(f"compiling the loader's loops{once} (some 20 s)", file=sys.stderr, flush=True)

    def on_end(self, ended: event.Event) -> None:
        pass


def _say_they_are_not_kept(error: Exception) -> None:
    if not _Notice.not_kept:
        _Notice.not_kept = True
        print(
            f"the compiled loops cannot be kept ({error}): each start compiles them again; set"
            " NUMBA_CACHE_DIR to a folder that can be written",
            file=sys.stderr,
            flush=True,
        )


event.register("numba:compile", _Notice())
