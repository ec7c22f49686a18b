"""All pictures of a video file in the order they are shown, or why they are not all there."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator

import av
from av.video.frame import PictureType

from coviar.complete import SALVAGE, find_cut
from coviar.container import open_video

# Without an I-picture to begin with, their decoders make grey pictures and no error. Others wait
# for one by themselves; H.264 may begin without.
_MAKES_UP = {
    *("mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4", "wmv1", "wmv2", "h263", "h263i", "h263p"),
    *("flv", "rv10", "rv20"),
}


def decode_source(
    path: str | os.PathLike, keep_damaged: bool = False, prepare: Callable | None = None
) -> Generator[av.VideoFrame, None, str | None]:
    """Yield the decoded pictures of a file, from the first that can be decoded; those outside its
    edit list are left out.

    keep_damaged: yield what can be decoded of a cut-off or damaged file, and return what is wrong
    with it (None: nothing). Else raises ValueError for one; always for a file without any picture.
    Other errors as `open_video`.
    prepare: called with the stream before anything is decoded. If it returns True, the first
    keyframe is decoded once more after the last picture.
    """
    path = os.fspath(path)
    count, first, shown, problem, has_begun = 0, None, 0, None, False
    cut = None
    with open_video(path) as (container, stream):
        cut = find_cut(path)
        stream.thread_count = 1  # the callers keep all cores busy
        time_base, begin = stream.time_base, Beginning(stream)
        repeat_first = prepare is not None and prepare(stream)
        try:
            for packet in _packets(container, stream, repeat_first):
                if packet is not None and packet.is_corrupt:
                    problem = problem or f"its data are damaged after {count} pictures"
                if packet is not None and is_blank(stream, packet):
                    problem = problem or f"only zeros after {count} pictures"
                has_begun = has_begun or packet is None or packet.is_keyframe
                try:
                    frames = stream.decode(packet)
                except av.error.FFmpegError:
                    if count == 0 and problem is None and not has_begun:
                        continue  # a capture may begin between two I-frames
                    problem = problem or f"picture {count} cannot be decoded"
                    continue
                for frame in begin(packet, frames):
                    if frame.is_corrupt:
                        problem = problem or f"picture {count} is damaged"
                    if problem and not keep_damaged and not cut:
                        break
                    if frame.pts is not None:
                        first = frame.pts if first is None else first
                        shown = frame.pts - first
                    count += 1
                    if keep_damaged or not (cut or problem):
                        yield frame
                if problem and not keep_damaged and not cut:
                    break
        except av.error.FFmpegError as error:
            problem = problem or f"its data end in an error ({error.strerror})"
    if count == 0 and not cut:
        raise ValueError(f"{path}: there is no picture in this file that can be decoded")
    if not (cut or problem):
        return None
    fault = f"cut off: {cut}" if cut else f"cut off or damaged: {problem}"
    seconds = float(shown * (time_base or 0))
    reason = f"the file is {fault}; {count} pictures ({seconds:.1f} s) are there"
    if keep_damaged and count:
        return reason
    raise ValueError(f"{path}: {reason}; {SALVAGE if count else 'a whole copy is needed'}")


class Beginning:
    """Leaves out the pictures before the first I-picture that a decoder makes up."""

    def __init__(self, stream):
        self._is_over = stream.codec_context.name not in _MAKES_UP

    def __call__(
        self, packet: av.Packet | None, frames: Iterable[av.VideoFrame]
    ) -> Iterator[av.VideoFrame]:
        """The frames that a decoder gave for a packet, without those."""
        # An edit list may begin after its I-picture, which is then decoded but not given.
        if packet is not None and packet.is_discard and packet.is_keyframe:
            self._is_over = True
        for frame in frames:
            self._is_over = self._is_over or is_intra(frame)
            if self._is_over:
                yield frame


def is_intra(frame: av.VideoFrame) -> bool:
    """Whether it is an I-picture, whatever the container says of its packet."""
    return int(frame.pict_type) == PictureType.I


def _packets(container, stream, repeat_first):
    """The packets that hold data, and None at the end, which empties the decoder."""
    first = None
    for packet in container.demux(stream):
        if packet.size > 0:
            first = packet if first is None and packet.is_keyframe else first
            yield packet
    if repeat_first and first is not None:
        again = av.Packet(bytes(first))  # an edit list may discard the first itself
        again.pts, again.dts, again.time_base = first.pts, first.dts, first.time_base
        yield again
    yield None


def is_blank(stream, packet: av.Packet) -> bool:
    """Whether there are only zeros where a picture should be; raw pictures may be zeros."""
    return not stream.codec_context.codec.intra_only and not any(memoryview(packet))


def check_whole(path: str | os.PathLike) -> None:
    """ValueError, as of `decode_source`, if the container's structure says the file is cut off."""
    if find_cut(path):
        for _ in decode_source(path):
            pass
