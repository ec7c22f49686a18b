"""A prediction for each window of time of a long video or of a live source."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import warnings
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate

import numpy as np
import torch

from coviar import Clip, VideoIndex, load_clip
from coviar.container import open_video
from coviar.live import (
    Window,
    end_of,
    is_live,
    middle_pictures,
    middle_position,
    pictures_between,
    stream_windows,
    windows_until,
)
from coviar.source_index import CannotSeek
from dataset_team.transforms import fixed_boxes, resize
from early_exit.predictor import Predictor

SEVERAL = "several"  # the decision points of merged windows, where they differ
_READ_AHEAD = 2  # windows


@dataclass
class Moment:
    """The prediction for one window, or for equal neighbours that were merged.

    start, end: seconds. label, probability, point (where it left), gmacs: None where there is a
    `problem`. windows: how many were merged; probability and gmacs are then means.
    picture: (S, S, 3) uint8, the I-frame in the middle of the first window.
    """

    start: float
    end: float
    label: str | None = None
    probability: float | None = None
    point: str | None = None
    gmacs: float | None = None
    problem: str | None = None
    picture: np.ndarray | None = None
    windows: int = 1


class Timeline:
    """The Moments of a source, each given as soon as it is decided.

    every, seconds: a window of `seconds` begins each `every` seconds. smooth: a window's
    probabilities are the mean of its own and those of the smooth - 1 windows before it, as far as
    these have any.
    costs: GMACs by decision point. duration: seconds of the source, None if it is not known.
    notes: what the user should know. Errors as `Predictor.predict`; a window that cannot be decoded
    or decided is a Moment with a problem.
    """

    def __init__(
        self,
        predictor: Predictor,
        source: str,
        every: float,
        seconds: float,
        costs: dict,
        smooth: int = 1,
    ):
        self.predictor, self.costs = predictor, costs
        self.recent: deque = deque(maxlen=smooth)
        self.duration, self.notes = None, []
        trained = predictor.trained
        num_segments = predictor.net.backbone.num_segments
        streamed = (source, every, seconds, num_segments, trained.picture_size, trained.gop)

        def from_start(size: tuple) -> Iterator[Window]:
            return stream_windows(*streamed, predictor.fit, fixed_boxes(*size, 1)[0])

        if is_live(source):
            windows = from_start(trained.picture_size)
        else:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                index, reason = predictor.open(source)
            self.notes += [str(warning.message) for warning in caught]
            times = index.seconds if reason else _times(index)
            self.duration = end_of(times[-1], len(times))
            if reason and index.streamed:
                windows = from_start(trained.picture_size)
            else:
                windows = _file_windows(index, times, every, seconds, num_segments)
                windows = _or_from_start(windows, from_start, trained.picture_size, self.notes)
        self.windows = windows

    def __iter__(self) -> Iterator[Moment]:
        for window in _ahead(self.windows):
            self.notes += window.notes
            if window.problem:
                self.recent.append(None)
                yield Moment(window.start, window.end, problem=window.problem)
            else:
                yield self._decide(window)

    def _decide(self, window: Window) -> Moment:
        clip = [resize(array, self.predictor.trained.crop_size) for array in window.clip]
        try:
            probabilities, point, _ = self.predictor.decide(clip)
        except ValueError as error:  # its output is not finite
            self.recent.append(None)
            return Moment(window.start, window.end, problem=str(error))
        self.recent.append(probabilities.cpu())
        smoothed = torch.stack([own for own in self.recent if own is not None]).mean(0)
        label = int(smoothed.argmax())
        name = self.predictor.points[point]
        return Moment(
            window.start,
            window.end,
            self.predictor.trained.class_names[label],
            float(smoothed[label]),
            name,
            self.costs[name],
            picture=clip[0][len(clip[0]) // 2].permute(1, 2, 0).numpy(),
        )


def merge(moments: Iterable[Moment]) -> Iterator[Moment]:
    """Neighbours of one label as one Moment; those with a problem stay alone."""
    run = None
    for moment in moments:
        if run is not None and not moment.problem and moment.label == run.label:
            run = _joined(run, moment)
            continue
        if run is not None:
            yield run
        run = None if moment.problem else moment
        if moment.problem:
            yield moment
    if run is not None:
        yield run


def _joined(run: Moment, moment: Moment) -> Moment:
    count = run.windows + 1
    return replace(
        run,
        end=moment.end,
        probability=(run.probability * run.windows + moment.probability) / count,
        point=run.point if run.point == moment.point else SEVERAL,
        gmacs=(run.gmacs * run.windows + moment.gmacs) / count,
        windows=count,
    )


def _times(index: VideoIndex) -> np.ndarray:
    """The time of each picture, in seconds, of a file that is loaded as it is: as its packets say,
    whose rate may vary; at the mean rate where they do not say it of each picture."""
    with open_video(index.path) as (container, stream):
        rate = stream.average_rate or Fraction(25)
        ticks = [packet.pts for packet in container.demux(stream) if packet.size]
        unit = stream.time_base
    if len(ticks) == index.num_frames and None not in ticks and (np.diff(ticks) > 0).all():
        return (np.array(ticks) - ticks[0]) * unit.numerator / unit.denominator
    return np.arange(index.num_frames) * rate.denominator / rate.numerator


def _file_windows(index, times, every: float, seconds: float, num_segments: int) -> Iterator:
    """Windows of a file in which any picture can be reached."""
    crop = fixed_boxes(index.width, index.height, 1)[0]
    starts = [0, *accumulate(index.gop_lengths)]
    duration, size = end_of(times[-1], len(times)), os.path.getsize(index.path)
    known: dict = {}
    for start, end in windows_until(times[-1], every, seconds):
        first, last = pictures_between(times, start, end)
        end = min(end, duration)
        if first == last:
            yield Window(start, end, None, "there is no picture in it")
            continue
        gops = [bisect_right(starts, n) - 1 for n in middle_pictures(first, last, num_segments)]
        positions = [(gop, middle_position(index.gop_lengths[gop])) for gop in gops]
        try:
            known, notes = _load(index, positions, known, crop)
        except CannotSeek:
            raise
        except (ValueError, OSError) as error:
            known = {}
            yield Window(start, end, None, str(error).replace(f"{index.path}: ", ""))
            if not os.path.exists(index.path) or os.path.getsize(index.path) != size:
                return  # the file was cut or removed
            continue
        clip = Clip(*map(np.stack, zip(*(known[position] for position in positions))))
        yield Window(start, end, clip, None, notes)


def _load(index, positions: list, known: dict, crop: tuple) -> tuple:
    """({(gop, position): arrays}, warnings); positions in `known` are not decoded again."""
    found = {position: known[position] for position in positions if position in known}
    missing = sorted(set(positions) - set(found))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if missing:
            clip = load_clip(index.path, missing, encode=True, crop=crop, index=index)
            found.update(zip(missing, zip(*clip)))
    return found, tuple(str(warning.message) for warning in caught)


def _or_from_start(windows, from_start, size: tuple, notes: list) -> Iterator:
    """The windows. If the file proves not to be seekable, the rest are read from its start."""
    done = 0
    try:
        for window in windows:
            yield window
            done += 1
        return
    except CannotSeek as error:
        notes.append(f"decoded from its start: {error}")
    for number, window in enumerate(from_start(size)):
        if number >= done:
            yield window


def _ahead(windows: Iterator) -> Iterator:
    """The same windows, read in a thread while the network works on earlier ones.

    The thread is a daemon, so a silent source does not keep the program from ending.
    """
    ready: queue.Queue = queue.Queue(_READ_AHEAD)
    ended = threading.Event()  # nobody takes any more

    def read() -> None:
        try:
            for window in windows:
                ready.put((window, None))
                if ended.is_set():
                    return
            ready.put((None, None))
        except BaseException as error:  # raised again where the windows are used
            ready.put((None, error))

    threading.Thread(target=read, daemon=True).start()
    try:
        while True:
            window, error = ready.get()
            if error is not None:
                raise error
            if window is None:
                return
            yield window
    finally:
        ended.set()
        with contextlib.suppress(queue.Empty):  # a `put` that waits for room goes on
            while True:
                ready.get_nowait()


def time_text(seconds: float) -> str:
    """Seconds as h:mm:ss.s."""
    tenths = round(10 * seconds)
    minutes, rest = divmod(tenths, 600)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest // 10:02d}.{rest % 10}"
