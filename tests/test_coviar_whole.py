"""Whole or cut off: the structure of each container says it, not a count in its header."""

import struct

import av
import numpy as np
import pytest

import coviar
import coviar.live
from coviar import check, complete, mpeg4
from coviar.complete import find_cut
from coviar.reencode import reencode_in_memory
from coviar.source import decode_source
from coviar.source_index import read_source_index
from tests.coviar_videos import SIZE, ffmpeg, pictures, write_video

COUNT = 9
PACKET = 188  # bytes of a transport stream's packet
CONTAINERS = {
    "mpeg4.avi": {"container": "avi"},
    "mpeg4.mp4": {"container": "mp4"},
    "mpeg4.mkv": {"container": "matroska"},
    "h264.mov": {"codec": "libx264", "container": "mov"},
    "h264.avi": {"codec": "libx264", "container": "avi"},
    "h264.mkv": {"codec": "libx264", "container": "matroska"},
    "h264.flv": {"codec": "libx264", "container": "flv"},
    "wmv2.wmv": {"codec": "wmv2", "container": "asf"},
    "vp8.webm": {"codec": "libvpx", "container": "webm"},
    "vp8.ogv": {"codec": "libvpx", "container": "ogg"},
}


def passes(path, state, count):
    found = check.check(path)
    assert (found.state, found.frames) == (state, count)
    assert reencode_in_memory(path, SIZE).count == count
    if state == "ok":
        assert coviar.read_index(path).num_frames == count


def is_named(path):
    for read, words in ((coviar.read_index, "cut off|codec is"), (reencode_in_memory, "cut off")):
        with pytest.raises(ValueError, match=words) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: ")
    found = check.check(path)
    assert found.state == "unusable" and "cut off" in found.reason


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_cut_at_any_packet_s_edge_is_named(tmp_path, name):
    write_video(tmp_path / name, pictures(COUNT), **CONTAINERS[name])
    data = (tmp_path / name).read_bytes()
    with av.open(str(tmp_path / name)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    edges = sorted({edge for pos, size in packets for edge in (pos, pos + size)})
    path = tmp_path / f"cut {name}"
    for edge in edges:
        path.write_bytes(data[:edge])
        assert edge >= len(data) or find_cut(path), edge
    path.write_bytes(data[: edges[len(edges) // 2]])
    is_named(path)


def test_a_transport_stream_is_cut_within_a_picture(tmp_path):
    """It has no end of its own: cut between two pictures it is a shorter one."""
    path = write_video(tmp_path / "v.ts", pictures(COUNT), "mpeg2video", "mpegts", qmin="2")
    data = path.read_bytes()
    opens_video = b"\x41\x00"  # of PID 256, the first packet of a picture
    packets = range(0, len(data), PACKET)
    starts = [number for number, i in enumerate(packets) if data[i + 1 : i + 3] == opens_video]
    path = tmp_path / "cut.ts"
    path.write_bytes(data[: (starts[5] + 1) * PACKET])
    is_named(path)
    path.write_bytes(data[: starts[5] * PACKET])
    passes(path, "convert", 5)


def remux(source, target, change=lambda number, content: content, step=1):
    """Copy a video's packets, changed, `step` pictures apart."""
    with av.open(str(source)) as container, av.open(str(target), "w") as output:
        given = container.streams.video[0]
        stream = output.add_stream_from_template(given)
        for number, packet in enumerate(p for p in container.demux(given) if p.size):
            copy = av.Packet(change(number, bytes(packet)))
            copy.stream, copy.time_base, copy.is_keyframe = stream, packet.time_base, number == 0
            copy.pts = copy.dts = number * step
            output.mux(copy)


@pytest.mark.parametrize("codec, state", [("mpeg4", "ok"), ("libx264", "convert")])
def test_an_avi_with_null_frames_is_whole(tmp_path, codec, state):
    write_video(tmp_path / "v.avi", pictures(COUNT), codec, "avi", bf="0")
    remux(tmp_path / "v.avi", tmp_path / "null.avi", step=3)
    with av.open(str(tmp_path / "null.avi")) as container:
        assert container.streams.video[0].frames > COUNT
    passes(tmp_path / "null.avi", state, COUNT)


@pytest.mark.parametrize("stated", [5, 14])
@pytest.mark.parametrize("name", ["mpeg4.avi", "h264.avi"])
def test_a_wrong_count_in_a_header_plays_no_part(tmp_path, name, stated):
    path = write_video(tmp_path / name, pictures(COUNT), **CONTAINERS[name])
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
        place = content.index(mark) + offset
        assert struct.unpack_from("<I", content, place) == (COUNT,)
        struct.pack_into("<I", content, place, stated)
    path.write_bytes(content)
    passes(path, "ok" if name == "mpeg4.avi" else "convert", COUNT)


@pytest.mark.parametrize("codec", ["mpeg4", "msmpeg4", "msmpeg4v2", "wmv1", "wmv2", "flv"])
@pytest.mark.parametrize("bf", ["0", "2"])
def test_pictures_without_what_they_refer_to_are_left_out(tmp_path, codec, bf):
    """In a file, in a stream and by `check`: a capture that begins between two I-pictures."""
    if bf != "0" and codec != "mpeg4":
        pytest.skip("has no B-pictures")
    suffix = ".flv" if codec == "flv" else ".avi" if bf == "0" else ".mkv"
    container = {".mkv": "matroska"}.get(suffix, suffix[1:])
    path = write_video(tmp_path / f"whole{suffix}", pictures(20), codec, container, gop=8, bf=bf)
    cut = tmp_path / f"cut{suffix}"
    with av.open(str(path)) as container, av.open(str(cut), "w") as output:
        given = container.streams.video[0]
        stream = output.add_stream_from_template(given)
        for packet in [p for p in container.demux(given) if p.size][3:]:
            packet.stream = stream
            output.mux(packet)
    with av.open(str(path)) as container:
        first = [n for n, f in enumerate(container.decode(video=0)) if int(f.pict_type) == 1][1]
    with av.open(str(cut)) as container:
        if bf != "0" and all(p.dts == p.pts for p in container.demux(video=0) if p.size):
            pytest.skip("this PyAV loses the order of B-pictures in a copy of packets")
    count = 20 - first
    shown = [f.to_ndarray(format="rgb24") for f in decode_source(cut)]
    whole = [f.to_ndarray(format="rgb24") for f in decode_source(path)]
    assert np.array_equal(shown, whole[first:])
    with coviar.live._open(str(cut)) as opened:
        assert sum(frame is not None for _, frame, _ in coviar.live._pictures(*opened)) == count
    found = check.check(cut)
    assert (found.state in ("ok", "convert"), found.frames) == (True, count)
    assert read_source_index(cut).num_frames == count


def test_check_counts_the_pictures_that_reencode_writes(tmp_path):
    path = write_video(tmp_path / "raw.mp4", pictures(20), gop=8)
    index = coviar.read_index(path)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(index.header + path.read_bytes()[int(index.offsets[3]) :])
    assert check.check(cut).frames == reencode_in_memory(cut, SIZE).count == 12


def pack_b_frames(packets):
    """As DivX and XviD write AVI: a P- and its B-picture in one chunk, an empty picture after."""
    kinds = [packet[packet.index(b"\0\0\1\xb6") + 4] >> 6 for packet in packets]
    assert kinds == [mpeg4.I_PICTURE] + [1, mpeg4.B_PICTURE] * (len(packets) // 2)
    data = np.frombuffer(packets[0], np.uint8)
    codes = mpeg4.find_start_codes(data)
    place = next(code for code in codes if mpeg4.is_layer_code(data[code + 3]))
    bits = "01" + "01" + "0" * mpeg4.parse_layer(packets[0][place + 4 :]).time_bits + "10"
    bits += "0" + "1" * (-(len(bits) + 1) % 8)
    empty = b"\0\0\1\xb6" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    user_data = b"\0\0\1\xb2DivX503b1393p"
    first = packets[0].replace(b"\0\0\1\xb6", user_data + b"\0\0\1\xb6", 1)
    pairs = zip(packets[1::2], packets[2::2])
    return [first, *(chunk for p, b in pairs for chunk in (p + b, empty))]


def test_packed_b_frames_are_whole_and_give_the_same_pictures(tmp_path):
    path = write_video(tmp_path / "b.avi", pictures(COUNT), container="avi", bf="1", gop=100)
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    chunks = pack_b_frames(packets)
    remux(path, tmp_path / "packed.avi", lambda number, _: chunks[number])
    passes(tmp_path / "packed.avi", "convert", COUNT)
    packed, plain = (reencode_in_memory(tmp_path / name, SIZE) for name in ("packed.avi", "b.avi"))
    assert packed.content == plain.content


def test_an_edit_list_leaves_a_whole_file_whole(tmp_path):
    write_video(tmp_path / "v.mp4", pictures(COUNT), "libx264", "mp4")
    ffmpeg("-ss", 0.12, "-i", tmp_path / "v.mp4", "-c", "copy", tmp_path / "trimmed.mp4")
    with av.open(str(tmp_path / "trimmed.mp4")) as container:
        assert container.streams.video[0].frames == COUNT
    passes(tmp_path / "trimmed.mp4", "convert", COUNT - 3)


ZEROED = {
    **CONTAINERS,
    "mpeg4.m4v": {},
    "h264.h264": {"codec": "libx264", "container": "h264"},
    "h264.ts": {"codec": "libx264", "container": "mpegts"},
    "mpeg2.mpg": {"codec": "mpeg2video", "container": "mpeg"},
    "index first.mp4": {"container": "mp4"},
}


@pytest.mark.parametrize("name", ZEROED)
def test_a_download_whose_rest_is_zeros_is_named(tmp_path, name):
    write_video(tmp_path / "v", pictures(COUNT), **ZEROED[name])
    if name.startswith("index first"):
        ffmpeg("-i", tmp_path / "v", "-c", "copy", "-movflags", "faststart", tmp_path / name)
    else:
        (tmp_path / "v").rename(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    there = len(data) * 3 // 4
    with av.open(str(tmp_path / name)) as container:
        ends = [p.pos + p.size for p in container.demux(video=0) if p.size and p.pos]
    there = max([end for end in ends if end <= there], default=there)
    path = tmp_path / f"cut {name}"
    path.write_bytes(data[:there] + bytes(len(data) - there + 5000))
    is_named(path)


def test_black_raw_pictures_are_no_missing_ones(tmp_path):
    black = (np.zeros((64, 96, 3), np.uint8) for _ in range(3))
    with av.open(str(tmp_path / "v.avi"), "w") as output:
        stream = output.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "bgr24"
        for frame in black:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
    passes(tmp_path / "v.avi", "convert", 3)


@pytest.mark.parametrize("tail", [b"\n", b"\r\n", b"\0" * 9])
@pytest.mark.parametrize("name", [*CONTAINERS, "mpeg2.ts", "vp8.ivf", "v.gif"])
def test_blanks_after_the_end_are_no_cut(tmp_path, name, tail):
    other = {
        "mpeg2.ts": {"codec": "mpeg2video", "container": "mpegts"},
        "vp8.ivf": {"codec": "libvpx", "container": "ivf"},
    }
    if name == "v.gif":
        ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48:r=5:d=2", tmp_path / name)
    else:
        write_video(tmp_path / name, pictures(COUNT), **{**CONTAINERS, **other}[name])
    content = (tmp_path / name).read_bytes()
    (tmp_path / f"tail_{name}").write_bytes(content + tail)
    assert find_cut(tmp_path / f"tail_{name}") is None
    (tmp_path / f"cut_{name}").write_bytes(content[: -len(content) // 3] + tail)
    assert find_cut(tmp_path / f"cut_{name}") or name in ("mpeg2.ts", "vp8.ogv")


@pytest.mark.parametrize("name", ["mpeg4.avi", "wmv2.wmv"])
def test_a_tag_after_the_end_is_no_cut(tmp_path, name):
    path = write_video(tmp_path / name, pictures(COUNT), **CONTAINERS[name])
    path.write_bytes(path.read_bytes() + b"ID3 the words of a program that sorts music, and more.")
    assert find_cut(path) is None


@pytest.mark.parametrize("packet_bytes", [3200, 32000])
def test_a_broadcast_of_unknown_length_is_no_cut(tmp_path, packet_bytes):
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=64x48:r=5:d=2", "-c:v", "wmv2", "-f", "asf"),
        *("-packet_size", packet_bytes, "pipe:1"),
        output=tmp_path / "piped.wmv",
    )
    assert find_cut(tmp_path / "piped.wmv") is None


def test_a_black_last_picture_is_no_missing_one(tmp_path):
    picture = b"FRAME\n" + b"\0" * (96 * 64)
    header = b"YUV4MPEG2 W96 H64 F5:1 Ip A1:1 Cmono\n"
    (tmp_path / "black.y4m").write_bytes(header + 3 * picture)
    assert find_cut(tmp_path / "black.y4m") is None
    assert sum(1 for _ in decode_source(tmp_path / "black.y4m")) == 3


def test_seconds_that_are_there_count_from_the_first_picture(tmp_path):
    path = write_video(tmp_path / "v.ts", pictures(COUNT), "mpeg2video", "mpegts")
    path.write_bytes(path.read_bytes()[:-100])  # its clock begins at 1.4 s
    with pytest.raises(ValueError, match=r"pictures \(0\.[0-4] s\) are there"):
        list(decode_source(path))


def box(name, length, content=bytes(100)):
    """A box of an MP4 whose header states `length` bytes, in 64 bits where needed."""
    if length < 1 << 32:
        return struct.pack(">I4s", length, name) + content
    return struct.pack(">I4sQ", 1, name, length) + content


DAMAGED_LENGTHS = {
    **{
        f"{name.decode()} {length:#x}.mp4": box(b"ftyp", 108) + box(name, length)
        for name in (b"sidx", b"moov", b"mdat")
        for length in (0xFFFFFF00, 1 << 50, (1 << 63) - 200, (1 << 63) - 1, (1 << 64) - 1)
    },
    "ebml.mkv": b"\x1a\x45\xdf\xa3\x01" + b"\xff" * 6 + b"\xfe" + bytes(100),
    "asf.wmv": bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + b"\xff" * 8 + bytes(100),
    "flv.flv": b"FLV\1\5\0\0\0\x09\0\0\0\0\x09\xff\xff\xff" + bytes(100),
}


@pytest.mark.parametrize("name", DAMAGED_LENGTHS)
def test_a_damaged_length_is_a_reason_and_no_error(tmp_path, name):
    (tmp_path / name).write_bytes(DAMAGED_LENGTHS[name])
    assert " ends at byte " in find_cut(tmp_path / name)
    assert check.check(tmp_path / name).state == "unusable"


def test_a_list_of_parts_in_a_large_box_is_read_in_part(tmp_path):
    """A box may have any length; what it lists is small."""
    parts = struct.pack(">IIIIIHH", 0, 1, 1, 0, 0, 0, 1) + struct.pack(">III", 7000, 0, 0)
    size = 64 << 20
    with open(tmp_path / "v.mp4", "wb") as file:
        file.write(box(b"ftyp", 108) + box(b"moov", 108) + box(b"sidx", size, parts))
        file.truncate(216 + size)
    with open(tmp_path / "v.mp4", "rb") as file:
        assert len(complete._at(file, 216, size)) == 1 << 20
    assert find_cut(tmp_path / "v.mp4") == (
        f"its list of parts (sidx) ends at byte {216 + size + 7000}, the file at {216 + size}"
    )
