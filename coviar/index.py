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

MAX_PIXELS = 4096 * 2304
REMEDY = "re-encode it: python -m coviar.reencode IN OUT"

_CONTINUES_PACKET = (0xB7, 0xB8)
_MAX_PACKET_HEADER = 64  # some containers give the place of a packet's own small header
CONTAINER_OPTIONS = {"protocol_whitelist": "file"}  # a playlist must not open other addresses


class VideoIndex(NamedTuple):
    """The pictures of one video in file order: small, picklable, valid while the file is unchanged.

    path, width, height (pixels); gop_lengths: pictures per GOP, a tuple; offsets (int64) and sizes
    (int32): the bytes of each picture's packet; header: the stream's headers, which open a decoder.
    content: the raw stream itself where it is in memory, and `path` only its name.
    """

    path: str
    width: int
    height: int
    gop_lengths: tuple
    offsets: np.ndarray
    sizes: np.ndarray
    header: bytes
    content: bytes | None = None

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
    data = np.fromfile(path, np.uint8) if content is None else np.frombuffer(content, np.uint8)
    if data.size == 0:
        raise ValueError(f"{path}: the file is empty")
    codes = mpeg4.find_start_codes(data)
    codes = codes[codes < data.size - 4]
    if _is_elementary(data, codes):
        packets, header = _split_stream(data, codes), b""
    else:
        packets, header = _read_container(path, data)
    codes, owners = _codes_inside(codes, packets)
    layer = _common_layer(path, [*_layer_headers(data, codes), *_layers_of(header)])
    pictures = _pictures(path, data, codes, owners, layer.time_bits)
    return _arrange(path, data, packets, pictures, layer, header)._replace(content=content)


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


def _read_container(path: str, data: np.ndarray) -> tuple:
    """(start, end) of each packet of a container's first video stream, and the global header."""
    packets = []
    try:
        with av.open(path, container_options=CONTAINER_OPTIONS) as container:
            if not container.streams.video:
                raise ValueError(f"{path}: there is no video in this file")
            stream = container.streams.video[0]
            codec = getattr(stream.codec_context, "name", "unknown")
            if codec != "mpeg4":
                raise ValueError(f"{path}: the codec is {codec}, not MPEG-4 Part 2; {REMEDY}")
            header = bytes(stream.codec_context.extradata or b"")
            for packet in container.demux(stream):
                if packet.size == 0:
                    continue
                start = _find_packet(data, packet)
                if start < (packets[-1][1] if packets else 0):
                    raise ValueError(f"{path}: its pictures do not lie whole in the file; {REMEDY}")
                packets.append((start, start + packet.size))
    except (av.error.FFmpegError, UnicodeError) as error:
        raise ValueError(f"{path}: not a video that can be read ({error}); {REMEDY}") from error
    return np.array(packets, np.int64).reshape(-1, 2), header


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
    if not 0 < first.width * first.height <= MAX_PIXELS:
        raise ValueError(
            f"{path}: a picture size of {first.width}x{first.height} is beyond what is read "
            f"(at most {MAX_PIXELS} pixels); {REMEDY}"
        )
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
