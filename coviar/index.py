"""Where each picture of a video lies in its file, so that decoding can start at any GOP.

A GOP opens at each real I-picture; nothing is assumed about its length. Indexed are raw MPEG-4
Part 2 streams (whatever their file name ends in) and containers such as AVI and MP4 that hold one.
"""

from __future__ import annotations

import os
from itertools import accumulate
from typing import NamedTuple

import av
import numpy as np

from coviar import mpeg4
from coviar.complete import SALVAGE, read_head
from coviar.container import REMEDY, display_matrix, open_video
from coviar.convert import UNDECLARED, range_and_matrix
from coviar.decode import decode_alone
from coviar.source import check_whole, is_blank

MAX_PIXELS = 4096 * 2304

_CONTINUES_PACKET = (0xB7, 0xB8)
_MAX_PACKET_HEADER = 64  # some containers give the place of a packet's own small header
_MAPPED_BYTES = 1 << 28  # files from this size on are not read into memory
_BLOCK_BYTES = 1 << 26


class VideoIndex(NamedTuple):
    """The pictures of one video in file order: small, picklable, valid while the file is unchanged.

    path, width, height (pixels); gop_lengths: pictures per GOP, a tuple; offsets (int64) and sizes
    (int32): the bytes of each picture's packet; header: the stream's headers, which open a decoder.
    content: the raw stream itself where it is in memory, and `path` only its name. tag: the codec
    tag of the container, such as "XVID", by which FFmpeg chooses among inverse transforms.
    """

    path: str
    width: int
    height: int
    gop_lengths: tuple
    offsets: np.ndarray
    sizes: np.ndarray
    header: bytes
    content: bytes | None = None
    tag: str = ""

    @property
    def num_frames(self) -> int:
        return len(self.offsets)

    @property
    def num_gops(self) -> int:
        return len(self.gop_lengths)

    @property
    def gop_starts(self) -> list:
        """The number of each GOP's first picture."""
        return [0, *accumulate(self.gop_lengths[:-1])]


def read_index(path: str | os.PathLike, content: bytes | None = None) -> VideoIndex:
    """Scan a video file and return its VideoIndex.

    content: a raw stream in memory to index instead of the file; `path` then only names it.
    Raises FileNotFoundError, and ValueError if the file is empty or no video, holds another codec,
    or uses tools whose motion cannot be followed (B-frames, quarter-pixel vectors, global motion).
    """
    path = os.fspath(path)
    if content is not None:
        return _index(path, np.frombuffer(content, np.uint8))._replace(content=content)
    head = np.frombuffer(read_head(path), np.uint8)
    codes = mpeg4.find_start_codes(head)
    check_whole(path)
    if _is_elementary(head, codes[codes < head.size - 4]):
        index = _index(path, _read(path))
        _check_pictures(index)
        return index
    return _index(path, None)


def _read(path: str) -> np.ndarray:
    if os.path.getsize(path) < _MAPPED_BYTES:
        return np.fromfile(path, np.uint8)
    return np.asarray(np.memmap(path, np.uint8, mode="r"))


def _index(path: str, data: np.ndarray | None) -> VideoIndex:
    """data: a raw stream; None: the file is a container."""
    tag = ""
    if data is None:
        data, packets, header, tag = _read_container(path)
        codes = _start_codes(data)
    else:
        codes = _start_codes(data)
        packets, header = _split_stream(data, codes), b""
    codes, owners = _codes_inside(codes, packets)
    layer = _common_layer(path, [*_layer_headers(data, codes), *_layers_of(header)])
    pictures = _pictures(path, data, codes, owners, layer.time_bits)
    return _arrange(path, data, packets, pictures, layer, header)._replace(tag=tag)


def _start_codes(data: np.ndarray) -> np.ndarray:
    blocks = [
        mpeg4.find_start_codes(data[first : first + _BLOCK_BYTES + 2]) + first
        for first in range(0, max(1, data.size), _BLOCK_BYTES)
    ]
    codes = np.concatenate(blocks)
    return codes[codes < data.size - 4]


def _check_pictures(index: VideoIndex) -> None:
    """ValueError where the last picture of a raw stream is cut off, or colours are not as read."""
    frame = decode_alone(index, index.num_frames - 1)
    if frame is None or frame.is_corrupt:
        there = index.num_frames - 1
        raise ValueError(
            f"{index.path}: the file is cut off or damaged: its last picture is incomplete; "
            f"{there} whole pictures are there; {SALVAGE}"
        )
    _check_colours(index.path, frame)


def _check_colours(path: str, frame: av.VideoFrame) -> None:
    value_range, matrix = range_and_matrix(frame)
    is_declared = int(frame.colorspace) != UNDECLARED
    if value_range == "full" or (is_declared and matrix != "bt601"):
        raise ValueError(
            f"{path}: its colours are {value_range} range {matrix}, not limited range bt601;"
            f" {REMEDY}"
        )


def _is_elementary(data: np.ndarray, codes: np.ndarray) -> bool:
    """Whether the file opens with MPEG-4 headers and a layer header is among them."""
    if codes.size == 0 or codes[0] != 0:
        return False
    for code in data[codes + 3].tolist():
        if mpeg4.is_layer_code(code):
            return True
        if not mpeg4.is_header_code(code):
            return False
    return False


def _split_stream(data: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """(start, end) of each packet of a raw stream: a VOP with the headers before it."""
    starts, has_picture = [0], False
    for offset, code in zip(codes.tolist(), data[codes + 3].tolist()):
        if has_picture and code not in _CONTINUES_PACKET:
            starts.append(offset)
            has_picture = False
        has_picture = has_picture or code == mpeg4.VOP
    return np.stack([starts, [*starts[1:], data.size]], axis=1)


def _read_container(path: str) -> tuple:
    """The file's bytes, (start, end) of each packet of its video stream, the global header, and the
    codec tag."""
    packets, is_checked = [], False
    with open_video(path) as (container, stream):
        codec = stream.codec_context.name
        if codec != "mpeg4":
            raise ValueError(f"{path}: the codec is {codec}, not MPEG-4 Part 2; {REMEDY}")
        data = _read(path)
        header = bytes(stream.codec_context.extradata or b"")
        tag = _codec_tag(stream)
        stream.thread_count = 1
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            if packet.is_corrupt:
                raise ValueError(
                    f"{path}: the file is cut off or damaged after {len(packets)} pictures;"
                    f" {SALVAGE}"
                )
            if is_blank(stream, packet):
                raise ValueError(
                    f"{path}: the file is cut off: only zeros after {len(packets)} pictures;"
                    f" {SALVAGE}"
                )
            if packet.is_discard:
                raise ValueError(f"{path}: its edit list leaves pictures out; {REMEDY}")
            if not is_checked:
                is_checked = _check_first_picture(path, stream, packet)
            start = _find_packet(data, packet)
            if start < (packets[-1][1] if packets else 0):
                raise ValueError(f"{path}: its pictures do not lie whole in the file; {REMEDY}")
            packets.append((start, start + packet.size))
    return data, np.array(packets, np.int64).reshape(-1, 2), header, tag


def _codec_tag(stream) -> str:
    try:
        tag = stream.codec_context.codec_tag
    except UnicodeDecodeError:
        return ""  # no letters, so none that FFmpeg heeds
    return tag if tag.strip("\0") else ""


def _check_first_picture(path: str, stream, packet: av.Packet) -> bool:
    """Whether the packet gives a picture; ValueError if it is to be turned or of other colours."""
    try:
        frames = stream.decode(packet)
    except av.error.FFmpegError:
        return False
    for frame in frames:
        try:
            is_turned = display_matrix(frame) != (1, 0, 0, 1)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if is_turned:
            raise ValueError(f"{path}: its pictures are to be turned or mirrored; {REMEDY}")
        _check_colours(path, frame)
    return bool(frames)


def _find_packet(data: np.ndarray, packet: av.Packet) -> int:
    """Where a packet's bytes begin in the file, -1 if they do not lie there in one piece."""
    if packet.pos is None or packet.pos < 0:
        return -1
    end = packet.pos + packet.size + _MAX_PACKET_HEADER
    offset = data[packet.pos : end].tobytes().find(bytes(packet))
    return -1 if offset < 0 else packet.pos + offset


def _codes_inside(codes: np.ndarray, packets: np.ndarray) -> tuple:
    """The start codes that lie inside a packet, and the number of that packet."""
    if len(packets) == 0:
        return codes[:0], codes[:0]
    owners = np.searchsorted(packets[:, 0], codes, side="right") - 1
    inside = (owners >= 0) & (codes + 4 < packets[owners, 1])
    return codes[inside], owners[inside]


def _layers_of(header: bytes) -> list:
    data = np.frombuffer(header, np.uint8)
    codes = mpeg4.find_start_codes(data)
    return _layer_headers(data, codes[codes < data.size - 4])


def _layer_headers(data: np.ndarray, codes: np.ndarray) -> list:
    """The distinct layer headers, each as the bytes after its start code."""
    found = {}
    for i in np.flatnonzero(mpeg4.is_layer_code(data[codes + 3])).tolist():
        end = codes[i + 1] if i + 1 < len(codes) else data.size
        found[data[codes[i] + 4 : end][: mpeg4.MAX_LAYER_BYTES].tobytes()] = None
    return list(found)


def _common_layer(path: str, headers: list) -> mpeg4.VideoLayer:
    """What the layer headers agree on; a header too damaged to read is passed over."""
    layers, problem = [], "it has no MPEG-4 layer header"
    for header in headers:
        try:
            layers.append(mpeg4.parse_layer(header))
        except ValueError as error:
            problem = str(error)
    if not layers:
        raise ValueError(f"{path}: the stream cannot be decoded: {problem}; {REMEDY}")
    first = layers[0]
    if any(layer[:2] != first[:2] for layer in layers):
        raise ValueError(f"{path}: the picture size changes within the stream; {REMEDY}")
    if any(layer.time_bits != first.time_bits for layer in layers):
        raise ValueError(f"{path}: the time resolution changes within the stream; {REMEDY}")
    if not 0 < first.width * first.height <= MAX_PIXELS:
        raise ValueError(
            f"{path}: a picture size of {first.width}x{first.height} is beyond what is read "
            f"(at most {MAX_PIXELS} pixels); {REMEDY}"
        )
    if any(layer.interlaced for layer in layers):
        raise ValueError(f"{path}: the stream is interlaced; {REMEDY}")
    if any(layer.quarter_sample for layer in layers):
        raise ValueError(f"{path}: the stream has quarter-pixel vectors (qpel); {REMEDY}")
    return first


def _pictures(path: str, data, codes, owners, time_bits: int) -> list:
    """(packet, is I-picture) of every coded picture, in file order."""
    pictures = []
    is_picture = data[codes + 3] == mpeg4.VOP
    for offset, owner in zip(codes[is_picture].tolist(), owners[is_picture].tolist()):
        kind = mpeg4.picture_kind(data[offset + 4 : offset + 20].tobytes(), time_bits)
        if kind == mpeg4.B_PICTURE:
            raise ValueError(f"{path}: the stream has B-frames; {REMEDY}")
        if kind == mpeg4.S_PICTURE:
            raise ValueError(f"{path}: the stream has global motion (GMC, S-VOPs); {REMEDY}")
        if kind == mpeg4.NOT_CODED:
            continue
        if pictures and pictures[-1][0] == owner:
            raise ValueError(f"{path}: a packet holds several pictures; {REMEDY}")
        pictures.append((owner, kind == mpeg4.I_PICTURE))
    return pictures


def _arrange(path: str, data, packets, pictures: list, layer, header: bytes) -> VideoIndex:
    opens_gop = np.array([is_i for _, is_i in pictures], bool)
    starts = np.flatnonzero(opens_gop)
    if len(starts) == 0:
        raise ValueError(f"{path}: there is no I-frame in this file; {REMEDY}")
    lengths = np.diff([*starts, len(pictures)]).tolist()
    used = packets[[owner for owner, _ in pictures][starts[0] :]]
    if not header:
        first = data[used[0, 0] : used[0, 1]].tobytes()
        header = first[: first.index(b"\0\0\1\xb6")]
    return VideoIndex(
        path,
        layer.width,
        layer.height,
        tuple(lengths),
        used[:, 0].copy(),
        np.diff(used)[:, 0].astype(np.int32),
        header,
    )
