"""Stop a training at SIGTERM or SIGUSR1, at a step from which it can be resumed."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: try again later
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)  # of schedulers that want the machine back


class Stopped(SystemExit):
    """A signal has stopped this training. `except Exception` does not catch it."""

    def __init__(self, name: str):
        super().__init__(REQUEUE)
        self.name = name


class StopSignals:
    """While entered, SIGTERM and SIGUSR1 raise Stopped at once.

    Within `deferred` a signal only sets `asked`, its name. The code there looks at `asked` where it
    can stop; else Stopped is raised at the end of `deferred`.
    """

    def __init__(self) -> None:
        self.asked: str | None = None
        self._deferred = False
        self._before: dict = {}

    def __enter__(self) -> StopSignals:
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if self.asked else handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        self.check()

    def check(self) -> None:
        if self.asked:
            raise Stopped(self.asked)

    def _handle(self, number: int, _: object) -> None:
        first, self.asked = self.asked is None, signal.Signals(number).name
        if first and not self._deferred:
            self.check()


def ignore_in_worker(_: int) -> None:
    """Let a loader worker ignore the signals of a scheduler, and end by those of its parent."""
    if not hasattr(signal, "sigwaitinfo"):
        return  # macOS does not tell who sent a signal
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Python sends its workers SIGTERM, and waits, when it ends with a loader still in use."""
    while signal.sigwaitinfo(SIGNALS).si_pid != os.getppid():
        pass
    os._exit(0)
