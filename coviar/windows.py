"""Clips of files of any codec, from the few pictures that they need.

With its constant quantiser, each GOP of a re-encoded video depends on its own pictures only. So the
pictures of one GOP are decoded, converted and encoded alone, and what is loaded of that little
stream equals, bit for bit, what is loaded of the whole re-encoded file.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import av
import numpy as np

from coviar.complete import SALVAGE
from coviar.container import open_video
from coviar.convert import Converter
from coviar.encoder import QUANTISER, make_encoder, naming
from coviar.index import VideoIndex, read_index
from coviar.source import decode_source, is_intra
from coviar.source_index import CannotSeek, SourceIndex
from coviar.threads import num_threads


def encode_windows(
    index: SourceIndex, last_of: dict, threads: int | None = None
) -> Iterator[tuple]:
    """Yield (gop, VideoIndex of that GOP alone) of a file, its pictures up to a last position.

    last_of: {gop: last position}. threads: as of `load_clip`. Raises ValueError
    that names the file and the time of a picture that cannot be decoded, and CannotSeek where the
    index does not tell which pictures come out: then read it again with `stream=True`.
    """
    if index.streamed:
        yield from _from_start(index, last_of)
        return
    runs = _runs(index, last_of)
    threads = num_threads(threads, len(runs))
    if threads == 1:
        with _Reader(index) as reader:
            for run in runs:
                yield from _encode_run(index, reader, run, last_of)
        return
    shares = [runs[first::threads] for first in range(threads)]
    with ThreadPoolExecutor(threads) as pool:  # FFmpeg works outside Python's lock
        jobs = [pool.submit(_encode_share, index, share, last_of) for share in shares]
        for job in jobs:
            yield from job.result()


def _encode_share(index: SourceIndex, runs: list, last_of: dict) -> list:
    with _Reader(index) as reader:
        return [window for run in runs for window in _encode_run(index, reader, run, last_of)]


def _runs(index: SourceIndex, last_of: dict) -> list:
    """GOPs in order, those together that are decoded from the same key: [(key, [gop, ...]), ...]"""
    runs = defaultdict(list)
    for gop in sorted(last_of):
        runs[_key_before(index, index.gop_starts[gop])].append(gop)
    return list(runs.items())


def _key_before(index: SourceIndex, picture: int) -> int:
    """The number in index.keys of the last one a picture can be decoded from, -1: the start."""
    usable = np.flatnonzero(index.first_of <= picture)
    return int(usable[-1]) if len(usable) else -1


def _encode_run(index: SourceIndex, reader: _Reader, run: tuple, last_of: dict) -> Iterator[tuple]:
    key, gops = run
    wanted = [
        range(index.gop_starts[gop], index.gop_starts[gop] + last_of[gop] + 1) for gop in gops
    ]
    frames = reader.read(key, [picture for window in wanted for picture in window])
    converter = Converter((index.width, index.height), index.fit, reader.pixel_shape)
    for gop, window in zip(gops, wanted):
        with naming(index.path):
            ready = [done for _ in window for done in converter(next(frames))]
        if converter.deinterlace:
            raise CannotSeek(f"{index.path}: its pictures are interlaced")
        yield gop, _encode(index, ready)


def _encode(index: SourceIndex, frames: Sequence) -> VideoIndex:
    return encode_gop(index.path, (index.width, index.height), index.rate, frames)


def encode_gop(path: str, size: tuple, rate: Fraction | None, frames: Sequence) -> VideoIndex:
    """A GOP's first converted pictures as a stream of one GOP, named `path`."""
    encoder = make_encoder(rate, size, len(frames), QUANTISER)
    packets = []
    for number, frame in enumerate(frames):
        frame.pict_type = 0  # the encoder chooses, not the input
        frame.pts = number
        frame.time_base = encoder.time_base
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    return read_index(path, b"".join(map(bytes, packets)))


class _Reader:
    """Decodes chosen pictures of a file. One container is open, for use in one thread."""

    def __init__(self, index: SourceIndex):
        self.index = index
        self._opened = None

    def __enter__(self) -> _Reader:
        self._opened = open_video(self.index.path)
        self.container, self.stream = self._opened.__enter__()
        self.stream.thread_count = 1  # there are other readers
        self.pixel_shape = self.stream.sample_aspect_ratio
        return self

    def __exit__(self, *exception) -> None:
        self._opened.__exit__(*exception)

    def read(self, key: int, wanted: list) -> Iterator[av.VideoFrame]:
        """The wanted pictures, given by number in ascending order, decoded from a key on.

        Where some do not come out, it is tried again from an earlier key and from the start."""
        done = 0
        starts = [(key, True), (key, False), (max(key - 1, -1), False), (-1, False)]
        for start, skip in dict.fromkeys(starts):
            try:
                for frame in self._decode(start, wanted[done:], skip):
                    yield frame
                    done += 1
                return
            except (av.error.FFmpegError, _Lost) as error:
                problem = error
        if isinstance(problem, _Lost) and not problem.is_damage:
            raise CannotSeek(f"{self.index.path}: its pictures are not those of its packets")
        raise ValueError(self._where(wanted[done]))

    def _where(self, picture: int) -> str:
        seconds = self.index.seconds[picture]
        return (
            f"{self.index.path}: picture {picture} (at {seconds:.2f} s) cannot be decoded; the file"
            f" is damaged there; {SALVAGE}"
        )

    def _decode(self, key: int, wanted: list, skip: bool) -> Iterator[av.VideoFrame]:
        """skip: leave out pictures before the wanted ones that no other refers to."""
        index, context = self.index, self.stream.codec_context
        first, start = index.first_of[key] if key >= 0 else 0, None
        can_begin = key < 0 or context.codec.intra_only
        left = iter(wanted)
        expected = next(left)
        for number, packet in self._packets(key):
            start = number if start is None else start
            picture = -1 if packet is None else int(index.pictures[number])
            context.skip_frame = "NONREF" if skip and 0 <= picture < expected else "DEFAULT"
            for frame in self._decode_packet(packet, number, picture >= first):
                shown = int(index.pictures[frame.pts]) if frame.pts is not None else -1
                if shown >= first and frame.is_corrupt:
                    raise _Lost(True)
                can_begin = can_begin or (frame.pts == start and is_intra(frame))
                if shown >= first and not can_begin:  # the container took it for a key
                    raise _Lost(False)
                if shown < expected:
                    continue
                if shown > expected:
                    raise _Lost(False)
                yield frame
                expected = next(left, None)
                if expected is None:
                    return
        raise _Lost(False)

    def _decode_packet(self, packet, number: int, is_needed: bool) -> list:
        try:
            if packet is not None:
                packet.pts = number  # so a frame tells which packet it came from
            return self.stream.codec_context.decode(packet)
        except av.error.FFmpegError:
            if is_needed:
                raise _Lost(True) from None
            return []

    def _packets(self, key: int) -> Iterator[tuple]:
        """(number, packet) from a key on, and (-1, None) at the end."""
        index = self.index
        start, packets = self._seek(key)
        for number, packet in enumerate(packets, start):
            if number >= len(index.pts) or packet.pts != index.pts[number]:
                raise _Lost(False)
            if packet.is_corrupt:
                raise _Lost(True)
            yield number, packet
        yield -1, None

    def _seek(self, key: int) -> tuple:
        """(number of the first packet, packets): those from a key on, or from one before it."""
        if key < 0:
            self.__exit__(None, None, None)
            self.__enter__()
            return 0, self._demux()
        number = self.index.keys[key]
        for time in (self.index.pts[number], self.index.dts[number]):
            self.container.seek(int(time), stream=self.stream)
            packets = self._demux()
            first = next((packet for packet in packets if packet.is_keyframe), None)
            same = () if first is None else np.flatnonzero(self.index.pts == first.pts)
            if len(same) == 1 and same[0] <= number:
                return int(same[0]), itertools.chain([first], packets)
        raise _Lost(False)

    def _demux(self) -> Iterator[av.Packet]:
        return (packet for packet in self.container.demux(self.stream) if packet.size > 0)


class _Lost(Exception):
    """A wanted picture does not come out."""

    def __init__(self, is_damage: bool):
        self.is_damage = is_damage


def _from_start(index: SourceIndex, last_of: dict) -> Iterator[tuple]:
    """As `encode_windows`, by decoding the file up to the last window; memory does not grow."""
    with open_video(index.path) as (_, stream):
        converter = Converter((index.width, index.height), index.fit, stream.sample_aspect_ratio)
    gops, length = iter(sorted(last_of)), index.gop_lengths[0]
    gop, frames = next(gops), []
    with naming(index.path):
        for number, frame in enumerate(_converted(index.path, converter)):
            if number // length != gop:
                continue
            frames.append(frame)
            if number % length == last_of[gop]:
                yield gop, _encode(index, frames)
                gop, frames = next(gops, None), []
                if gop is None:
                    return
    raise ValueError(f"{index.path}: the file has changed since its pictures were counted")


def _converted(path: str, converter: Converter) -> Iterator[av.VideoFrame]:
    for frame in decode_source(path):
        yield from converter(frame)
    yield from converter.finish()
