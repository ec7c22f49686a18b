"""How the loader's loops are compiled: by numba, once, and kept on disk. Who waits is told so."""

from __future__ import annotations

import sys

import numba
from numba.core import event

jit = numba.njit(cache=True, nogil=True)


class _Notice(event.Listener):
    """One line on stderr when the first loop of this package is not in numba's cache."""

    given = False

    def on_start(self, started: event.Event) -> None:
        module = started.data["dispatcher"].py_func.__module__
        if module.startswith("coviar.") and not self.given:
            self.given = True
            print("compiling the loader's loops, once (some 20 s)", file=sys.stderr, flush=True)

    def on_end(self, ended: event.Event) -> None:
        pass


event.register("numba:compile", _Notice())
