"""Read a video segment by segment: only what is asked for, or one segment ahead."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

Segment = Sequence[torch.Tensor]  # I-frame, motion vectors, residual: uint8 (1, c, S, S)


class SegmentReader:
    """The segments of one video in the given order, each decoded when it is needed.

    load: gives the segment of a number, 0 .. T-1 in time; raises ValueError or OSError.
    ahead: 1 decodes the next segment in a thread while the network works.
    clock: measures the times, in seconds.
    Use it as a context; the thread has finished when the context ends.

    segments: those read so far, in reading order. wait_ms: how long the network waited for them.
    wasted, wasted_ms: how many segments were decoded ahead and not used, and their time.
    note: what was wrong with such a segment, None if nothing was.
    """

    def __init__(
        self,
        load: Callable[[int], Segment],
        order: Sequence[int],
        ahead: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.load, self.order, self.clock = load, order, clock
        self.segments: list[Segment] = []
        self.wait_ms, self.wasted, self.wasted_ms = 0.0, 0, 0.0
        self.note: str | None = None
        self._thread = ThreadPoolExecutor(1) if ahead else None
        self._next: Future | None = None

    def __enter__(self) -> SegmentReader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is None:
            return
        if self._next is not None:
            try:
                self.wasted_ms = self._next.result()[1]
                self.wasted = 1
            except (ValueError, OSError) as error:
                self.note = (
                    f"{self._where(len(self.segments))} was read ahead and cannot be decoded; the"
                    f" answer was there before ({error})"
                )
        self._thread.shutdown()

    def read(self, count: int) -> list[Segment]:
        """The first `count` segments in reading order.

        Raises ValueError or OSError when one cannot be decoded, saying that nothing was decided.
        """
        started = self.clock()
        while len(self.segments) < count:
            place = len(self.segments)
            try:
                ahead, self._next = self._next, None
                segment, _ = self._timed(place) if ahead is None else ahead.result()
            except (ValueError, OSError) as error:
                where = f"{self._where(place)} cannot be decoded, and nothing was decided before"
                raise type(error)(f"{error} ({where})") from error
            self.segments.append(segment)
        if self._thread and count < len(self.order):
            self._next = self._thread.submit(self._timed, count)
        self.wait_ms += 1000 * (self.clock() - started)
        return self.segments

    def numbers(self) -> list[int]:
        """Those of the segments read so far, in the order of reading."""
        return list(self.order[: len(self.segments)])

    def _timed(self, place: int) -> tuple[Segment, float]:
        started = self.clock()
        segment = self.load(self.order[place])
        return segment, 1000 * (self.clock() - started)

    def _where(self, place: int) -> str:
        return f"segment {self.order[place] + 1} of {len(self.order)}, the {place + 1}. to be read"
