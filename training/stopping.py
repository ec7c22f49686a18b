"""How a training ends before it is done: asked by a signal, or by an error that has a remedy.

Exit codes of the training scripts: 0 done, 1 failed, 2 refused (options, or a folder in use),
75 stopped by a signal and to be started again with --resume.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
from collections.abc import Iterator

from coviar.files import NO_ROOM
from training import distributed
from training.checkpoint import CheckpointError
from training.lock import LockedError
from training.log import RunFolder

REQUEUE = 75  # EX_TEMPFAIL of sysexits.h: try again later
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)  # of schedulers that want the machine back


class Stopped(SystemExit):
    """A signal has stopped this training; not an Exception, so that nobody takes it for one."""

    def __init__(self, name: str):
        super().__init__(REQUEUE)
        self.name = name


class StopSignals:
    """While entered, SIGTERM and SIGUSR1 raise Stopped: at once, or within `deferred` not at all,
    where whoever is in the middle of something looks at `asked` where it can stop."""

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


@contextlib.contextmanager
def running(
    folder: RunFolder, args: argparse.Namespace, parser: argparse.ArgumentParser
) -> Iterator[StopSignals]:
    """A run at work in its folder. What a user can do something about ends it with one line, and
    with the exit code for it, instead of a traceback."""
    with StopSignals() as stop:
        try:
            folder.start(args, parser)
            yield stop
        except (LockedError, CheckpointError) as error:
            parser.error(str(error))
        except Stopped as stopped:
            parser.exit(
                REQUEUE,
                f"{stopped.name}: stopped; the same command with --resume goes on from"
                f" {folder.path} (exit code {REQUEUE})\n",
            )
        except FloatingPointError as error:
            parser.exit(1, f"{parser.prog}: error: {error}\n")
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            parser.exit(1, f"{parser.prog}: error: {error.strerror}; make room, then --resume\n")
        except RuntimeError as error:
            if not distributed.is_parted(error):
                raise
            reason = str(error).splitlines()[0]
            parser.exit(
                1,
                f"{parser.prog}: error: another process of this training is gone ({reason}); see"
                " above why. The last checkpoint is intact: the same command with --resume goes"
                " on\n",
            )
        finally:
            folder.release()


def ignore_in_worker(_: int) -> None:
    """For loader workers: a scheduler signals the whole group, but their parent ends them."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
