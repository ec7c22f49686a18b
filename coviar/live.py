"""Windows of time from a source that is read once, from its start, and may never end.

A source is "-" (standard input), a named pipe, a camera (/dev/video0), an address (URL), or a file.
The arrays are those of the whole source re-encoded by `coviar.reencode`; memory does not grow.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np

from coviar.clip import Clip, load_clip
from coviar.container import open_video
from coviar.convert import Converter
from coviar.source import Beginning
from coviar.windows import encode_gop

STDIN = "-"
# A playlist at an address may name what is of the same kind, and no file of this machine.
_WEB = "http,https,tls,tcp,crypto,httpproxy"
_PROTOCOLS = {
    **dict.fromkeys(("http", "https"), _WEB),
    **dict.fromkeys(("rtsp", "rtsps"), "rtsp,rtp,rtcp,srtp,udp,tcp,tls"),
    **dict.fromkeys(("rtmp", "rtmps"), "rtmp,rtmps,rtmpe,rtmpt,ffrtmphttp,tcp,tls"),
    **{name: name for name in ("tcp", "udp", "rtp", "srt")},
}
_OPEN_SECONDS, _READ_SECONDS = 30, 60
_LONGEST_STEP = 60  # seconds between two pictures; a longer one is a jump of the clock
_USUAL_RATE = 25


class Window(NamedTuple):
    """A stretch of time: start and end in seconds, and its clip, or the problem with it."""

    start: float
    end: float
    clip: Clip | None
    problem: str | None = None
    notes: tuple = ()


def is_live(source: str) -> bool:
    """Whether a source is a pipe, a device or an address, not a file. ValueError for an address of
    a kind that is not read."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", source)
    if scheme:
        if scheme[1].lower() not in _PROTOCOLS:
            raise ValueError(f"{source}: addresses begin with one of {', '.join(_PROTOCOLS)}")
        return True
    if source == STDIN:
        return True
    with contextlib.suppress(OSError):
        mode = os.stat(source).st_mode
        return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)
    return False


def middle_pictures(first: int, end: int, num_segments: int) -> list:
    """The number of the picture in the middle of each segment of pictures first ... end-1."""
    return [
        first + (2 * segment + 1) * (end - first) // (2 * num_segments)
        for segment in range(num_segments)
    ]


def middle_position(length: int) -> int:
    """The position in a GOP of `length` pictures that stands for it, as a clip is tested."""
    return min(length - 1, max(1, (length - 1) // 2))


def window_times(number: int, every: float, seconds: float) -> tuple[float, float]:
    """Start and end of a window, in seconds. The numbers are taken as their decimals, and rounded
    once, so that an edge at a picture is at its time."""
    start = number * Fraction(str(every))
    return float(start), float(start + Fraction(str(seconds)))


def windows_until(
    last: float, every: float, seconds: float, number: int = 0
) -> Iterator[tuple[float, float]]:
    """`window_times` from a number on. The first window that holds the source's last picture, at
    `last`, is the last window; none begins behind that picture."""
    while True:
        start, end = window_times(number, every, seconds)
        if start > last:
            return
        yield start, end
        if end > last:
            return
        number += 1


def pictures_between(times: Sequence[float], start: float, end: float) -> tuple[int, int]:
    """(first, end) of the pictures in a window: those at its start or later, and before its end."""
    return bisect_left(times, start), bisect_left(times, end)


def end_of(last: float, count: int) -> float:
    """When a source of `count` pictures ends: the last one, at `last`, stays as long as a mean
    one."""
    return float(last + (last / (count - 1) if count > 1 else 1 / _USUAL_RATE))


def stream_windows(
    source: str,
    every: float,
    seconds: float,
    num_segments: int,
    size: tuple,
    gop: int,
    fit: str = "stretch",
    crop: tuple | None = None,
) -> Iterator[Window]:
    """Windows of `seconds`, one begun each `every` seconds, each as soon as its pictures are there.

    size, gop, fit: of the re-encoding; crop: as in `load_clip`; the clips are encoded for the
    network. A window with damage or without pictures has a problem. The last one ends with the
    source. Raises ValueError and OSError where the source cannot be opened, and at its end where
    it ended in an error.
    """
    with _open(source) as (container, stream):
        rate = stream.average_rate
        converter = Converter(size, fit, stream.sample_aspect_ratio)
        recent = _Recent(source, size, rate, gop, crop)
        number, error = 0, None
        start, end = window_times(number, every, seconds)
        pictures = _pictures(container, stream)
        while error is None:
            try:
                picture = next(pictures)
            except StopIteration:
                break
            except (av.error.FFmpegError, OSError) as raised:
                error = raised
                break
            recent.add(*picture, converter)
            while recent.holds(end):
                yield recent.window(start, end, num_segments)
                number += 1
                start, end = window_times(number, every, seconds)
                recent.forget(start)
        recent.finish(converter)
        if recent.times:
            for start, end in windows_until(recent.times[-1], every, seconds, number):
                yield recent.window(start, min(end, recent.end), num_segments)
    if error is not None:
        raise ValueError(f"{source}: the source ended in an error ({error.strerror})") from error
    if not recent.count:
        raise ValueError(f"{source}: there is no picture in this source that can be decoded")


class _Recent:
    """The pictures that windows may still need: of each GOP the first ones, converted."""

    def __init__(self, source: str, size: tuple, rate: Fraction | None, gop: int, crop):
        self.source, self.size, self.rate, self.gop, self.crop = source, size, rate, gop, crop
        self.kept = middle_position(gop) + 1
        self.first = 0  # the number of the first picture that is still known
        self.times: list = []  # seconds of the pictures from there on
        self.count = 0  # pictures converted so far
        self.gops: dict = {}  # converted pictures, or the VideoIndex of their stream
        self.problems: list = []  # (seconds, words)
        self.start = 0.0  # of the next window
        self.finished = False

    @property
    def end(self) -> float:
        """When the source ends, as far as it is known."""
        return end_of(self.times[-1], self.first + len(self.times))

    def add(self, seconds: float, frame, problem: str | None, converter: Converter) -> None:
        if problem:
            self.problems.append((seconds, problem))
        if frame is not None:
            self.times.append(seconds)
            self._keep(converter(frame))
            self.forget(self.start)  # there may be no window for a long time

    def finish(self, converter: Converter) -> None:
        self._keep(converter.finish())
        self.finished = True

    def _keep(self, frames: list) -> None:
        for frame in frames:
            gop, position = divmod(self.count, self.gop)
            if position < self.kept:
                self.gops.setdefault(gop, []).append(frame)
            self.count += 1

    def holds(self, end: float) -> bool:
        """Whether all pictures are there that a window up to `end` may need."""
        if not self.times or self.times[-1] < end:
            return False
        last = self.first + bisect_left(self.times, end) - 1
        return self.count >= last // self.gop * self.gop + self.kept

    def window(self, start: float, end: float, num_segments: int) -> Window:
        first, last = (self.first + n for n in pictures_between(self.times, start, end))
        problem = next((words for at, words in self.problems if start <= at < end), None)
        if first == last:
            problem = problem or "there is no picture in it"
        if problem:
            return Window(start, end, None, problem)
        clips = [self._load(n) for n in middle_pictures(first, last, num_segments)]
        return Window(start, end, Clip(*map(np.concatenate, zip(*clips))))

    def _load(self, picture: int) -> Clip:
        gop = picture // self.gop
        if isinstance(self.gops[gop], list):
            self.gops[gop] = encode_gop(self.source, self.size, self.rate, self.gops[gop])
        length = self.gop
        if self.finished:
            length = min(length, self.count - gop * length)
        position = [(0, middle_position(length))]
        return load_clip(self.source, position, encode=True, crop=self.crop, index=self.gops[gop])

    def forget(self, start: float) -> None:
        """Let go of what lies before `start`, where the next window begins."""
        self.start = start
        gone = bisect_left(self.times, start)
        gone = min(gone, len(self.times) - 1)  # the last one says when the source ends
        self.first += gone
        del self.times[:gone]
        for gop in [gop for gop in self.gops if (gop + 1) * self.gop <= self.first]:
            del self.gops[gop]
        self.problems = [entry for entry in self.problems if entry[0] >= start]


def _pictures(container, stream) -> Iterator[tuple]:
    """(seconds since the first picture, picture or None, what is wrong or None)"""
    clock, begin = _Clock(stream), Beginning(stream)
    stream.thread_count = 1
    for packet in container.demux(stream):
        if packet.size == 0:
            continue
        is_begun = clock.seconds is not None  # a capture may begin between two I-frames
        problem = "its data are damaged" if packet.is_corrupt and is_begun else None
        try:
            frames = stream.decode(packet)
        except av.error.FFmpegError:
            frames = []
            problem = "a picture cannot be decoded" if is_begun or packet.is_keyframe else None
        if problem:
            yield float(clock.seconds or 0), None, problem
        for frame in begin(packet, frames):
            yield clock.tell(frame), frame, "a picture is damaged" if frame.is_corrupt else None
    for frame in begin(None, stream.decode(None)):
        yield clock.tell(frame), frame, None


class _Clock:
    """Seconds since the first picture; where the source's clock jumps, they go on.

    Fractions, so that they are exact whatever the number of pictures.
    """

    def __init__(self, stream):
        self.step = 1 / Fraction(stream.average_rate or _USUAL_RATE)
        self.seconds = self.before = None

    def tell(self, frame: av.VideoFrame) -> float:
        known = frame.pts is not None and frame.time_base
        time = frame.pts * frame.time_base if known else None
        if self.seconds is None:
            self.seconds = Fraction(0)
        else:
            both = time is not None and self.before is not None
            step = time - self.before if both else self.step
            self.seconds += step if 0 < step < _LONGEST_STEP else self.step
        self.before = time
        return float(self.seconds)


@contextlib.contextmanager
def _open(source: str) -> Iterator[tuple]:
    """(container, video stream) of a source."""
    if not is_live(source):
        with open_video(source) as opened:
            yield opened
        return
    file, options = source, {"protocol_whitelist": "none"}
    scheme, is_address, _ = source.partition("://")
    container_format, timeout = None, None
    with contextlib.ExitStack() as stack:
        if is_address:
            options = {"protocol_whitelist": _PROTOCOLS[scheme.lower()]}
            timeout = (_OPEN_SECONDS, _READ_SECONDS)
        elif source == STDIN or stat.S_ISFIFO(os.stat(source).st_mode):
            # Without a buffer there is no lock that a stopped reader could hold at the end.
            name = 0 if source == STDIN else source
            file = stack.enter_context(open(name, "rb", buffering=0, closefd=source != STDIN))
        else:
            options, container_format = {}, "v4l2"
        try:
            opened = av.open(
                file, format=container_format, container_options=options, timeout=timeout
            )
            container = stack.enter_context(opened)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ValueError(
                f"{source}: cannot be read as a stream of video ({reason}); a format that needs"
                " its end first, such as MP4, has to be a file"
            ) from error
        if not container.streams.video:
            raise ValueError(f"{source}: there is no video in this source")
        yield container, container.streams.video[0]
