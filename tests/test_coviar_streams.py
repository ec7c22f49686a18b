"""Which stream of a file is its video, and what its container says of pixels, tags and secrets."""

import struct

import av
import numpy as np
import pytest

import coviar
from coviar import check, reencode
from coviar.encryption import is_encrypted
from coviar.reencode import reencode_in_memory
from tests.coviar_videos import SIZE, pictures, write_video
from tests.test_coviar_files import ffmpeg, first_picture, write_gif

COUNT = 5


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    write_video(folder / "v.avi", pictures(COUNT), container="avi")
    write_video(folder / "v.mp4", pictures(COUNT), "libx264", "mp4")
    write_video(folder / "one.avi", pictures(1, (48, 32)), container="avi")
    return folder


def box(content, name):
    place = content.index(name) - 4
    return place, place + struct.unpack_from(">I", content, place)[0]


def put_covers_first(path):
    """Move an MP4's tags, where its covers are, before its tracks."""
    content = path.read_bytes()
    _, here = box(content, b"mvhd")
    start, end = box(content, b"udta")
    parts = content[:here], content[start:end], content[here:start], content[end:]
    path.write_bytes(b"".join(parts))


def test_a_cover_before_the_video_is_not_the_video(made, tmp_path):
    path, inputs = tmp_path / "cover.mp4", ["-i", made / "one.avi", "-i", made / "v.avi"]
    as_cover = ["-c:v:0", "png", "-disposition:v:0", "attached_pic"]
    ffmpeg(*inputs, "-map", 0, "-map", 1, "-c", "copy", *as_cover, path)
    put_covers_first(path)
    with av.open(str(path)) as container:
        assert [s.codec_context.name for s in container.streams.video] == ["png", "mpeg4"]
    assert check.check(path)[:5] == ("ok", COUNT, 1, *SIZE)
    assert reencode_in_memory(path, SIZE).count == COUNT
    ffmpeg("-i", path, "-map", "0:0", "-c", "copy", "-f", "mp4", tmp_path / "only.mp4")
    with pytest.raises(ValueError, match="there is no video in this file, only .*a cover picture"):
        reencode_in_memory(tmp_path / "only.mp4", SIZE)


@pytest.mark.parametrize("name", ["preview.avi", "preview.mp4", "preview.mkv", "preview.mov"])
def test_a_preview_of_one_picture_is_not_the_video(made, tmp_path, name):
    path = tmp_path / name
    inputs = ["-i", made / "one.avi", "-i", made / "v.avi"]
    ffmpeg(*inputs, "-map", 0, "-map", 1, "-c", "copy", path)
    with av.open(str(path)) as container:
        assert [stream.width for stream in container.streams.video] == [48, SIZE[0]]
    assert check.check(path)[:5] == ("ok", COUNT, 1, *SIZE)
    assert reencode_in_memory(path, SIZE).count == COUNT


def test_a_video_of_one_picture_is_a_video(made):
    assert check.check(made / "one.avi")[:3] == ("ok", 1, 1)


@pytest.mark.parametrize("suffix", ["avi", "mp4", "mov", "mkv"])
def test_tags_need_not_be_utf_8(made, tmp_path, suffix):
    path = tmp_path / f"v.{suffix}"
    tags = ["-metadata", "title=MARKMARK", "-metadata:s:v", "title=MARKMARK"]
    ffmpeg("-i", made / "v.avi", "-c", "copy", *tags, path)
    content = path.read_bytes()
    assert b"MARKMARK" in content
    path.write_bytes(content.replace(b"MARKMARK", b"\xff\xe9\x80M\xfeRK\xc3"))
    if int(av.__version__.split(".")[0]) < 19:
        with pytest.raises(UnicodeDecodeError):
            av.open(str(path))
    assert check.check(path)[:3] == ("ok", COUNT, 1)
    assert reencode_in_memory(path, SIZE).count == COUNT
    assert coviar.load_clip(path, [(0, 2)]).iframe.shape[1:3] == SIZE[::-1]


@pytest.mark.parametrize("name", ["v.mp4", "v.avi", "v.mkv", "v.m4v"])
def test_pixels_that_are_not_square(tmp_path, name):
    """64x64 pixels three times as wide as high: shown 3:1, in 96x64 as a band of 32 lines."""
    white = ["-f", "lavfi", "-i", "color=white:s=64x64:d=0.12", "-vf", "setsar=3"]
    ffmpeg(*white, "-c:v", "mpeg4", "-q:v", 1, tmp_path / name)
    stretched = reencode_in_memory(tmp_path / name, SIZE)
    assert "3.00:1" in stretched.note and first_picture(stretched.content).min() > 220
    padded = first_picture(reencode_in_memory(tmp_path / name, SIZE, fit="pad").content)
    assert padded[:14].max() < 40 and padded[18:46].min() > 220 and padded[50:].max() < 40
    cropped = reencode_in_memory(tmp_path / name, SIZE, fit="crop")
    assert cropped.note is None and first_picture(cropped.content).min() > 220


def encode(*words):
    parser = reencode.get_args_parser()
    arguments = parser.parse_args([*map(str, words), "--size", "64x48", "--workers", "1"])
    return reencode.main(arguments, parser)


def test_a_folder_goes_on_with_its_fit_only(made, tmp_path, capsys):
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "v.avi").write_bytes((made / "v.avi").read_bytes())
    assert encode(source, target, "--fit", "pad") == 0
    for fit in ([], ["--fit", "crop"]):
        with pytest.raises(SystemExit):
            encode(source, target, *fit)
        assert "'fit': 'pad'" in capsys.readouterr().err
    (source / "w.avi").write_bytes((made / "v.avi").read_bytes())
    assert encode(source, target, "--fit", "pad") == 0
    assert (target / "v.mp4").read_bytes() == (target / "w.mp4").read_bytes()
    assert '"encoded": 1, "kept": 1' in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", '{"settings": 3}', "{}"])
def test_a_report_that_cannot_be_read_is_named(made, tmp_path, capsys, content):
    (tmp_path / "reencode.json").write_text(content)
    with pytest.raises(SystemExit):
        encode(made / "v.avi", tmp_path)
    assert f"{tmp_path / 'reencode.json'} is not" in capsys.readouterr().err


def insert_asf_object(content):
    content = bytearray(content)
    length, count = struct.unpack_from("<QI", content, 16)
    struct.pack_into("<QI", content, 16, length + 40, count + 1)
    identifier = bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e")
    return content[:30] + identifier + struct.pack("<Q", 40) + bytes(16) + content[30:]


def scramble_transport(content):
    content = bytearray(content)
    for start in range(0, len(content), 188):
        if content[start + 1] & 31 == 1 and content[start + 2] == 0:  # the video's PID, 256
            content[start + 3] |= 0x80
    return content


def scramble_program(content):
    parts = content.split(b"\0\0\1\xe0")
    return b"\0\0\1\xe0".join(
        [parts[0], *(p[:2] + bytes([p[2] | 0x30]) + p[3:] for p in parts[1:])]
    )


NAME = b"\x53\x6e\x8eFourteenBytes!"  # a Matroska track's, in the room of which comes
ENCODING = bytes.fromhex("6d808e 62408b 50338101 50358447e18105")  # an encryption of the same size
KEY = ["-encryption_key", "76a6c65c5ea762046bd749a2e632ccbb"]
KEY += ["-encryption_kid", "a7e61c373e219033c21091fa607bf3b8"]
ENCRYPTED = {
    "cenc.mp4": (["-c", "copy", "-encryption_scheme", "cenc-aes-ctr", *KEY], bytes),
    "store.mp4": (["-c", "copy"], lambda content: content.replace(b"avc1", b"drmi")),
    "v.mkv": (
        ["-c", "copy", "-metadata:s:v", "title=FourteenBytes!"],
        lambda content: content.replace(NAME, ENCODING),
    ),
    "v.ts": (["-c", "copy"], scramble_transport),
    "v.wmv": (["-c:v", "wmv2"], insert_asf_object),
    "v.vob": (["-c:v", "mpeg2video"], scramble_program),
}


def test_a_gif_is_no_transport_stream(tmp_path):
    """A byte of 256 is G where a transport stream's second packet would begin."""
    write_gif(tmp_path / "v.gif", [np.zeros((*SIZE[::-1], 3), np.uint8)] * COUNT)
    content = bytearray((tmp_path / "v.gif").read_bytes())
    assert content[10] & 0x80  # a palette is there
    content[188], content[191:768:188] = ord("G"), b"\xc0" * 4
    (tmp_path / "v.gif").write_bytes(content)
    assert not is_encrypted(str(tmp_path / "v.gif"), bytes(content))
    assert reencode_in_memory(tmp_path / "v.gif", SIZE).count == COUNT


@pytest.mark.parametrize("name", ENCRYPTED)
def test_encrypted_videos_are_named(made, tmp_path, name):
    options, encrypt = ENCRYPTED[name]
    ffmpeg("-i", made / "v.mp4", *options, tmp_path / name)
    content = (tmp_path / name).read_bytes()
    if name != "cenc.mp4":
        assert check.check(tmp_path / name).state == "convert"
    (tmp_path / name).write_bytes(encrypt(content))
    refused_as(tmp_path / name, "the video is encrypted; it can only be read without encryption")


@pytest.mark.parametrize(
    "name, codec, other",
    [
        ("v.mp4", b"avc1", b"zzzz"),
        ("v.avi", b"FMP4", b"ZZZZ"),
        ("v.mkv", b"V_MPEG4/ISO/AVC", b"V_QUACK/ISO/AVC"),
    ],
)
def test_unknown_codecs_are_named(made, tmp_path, name, codec, other):
    if name == "v.mkv":
        ffmpeg("-i", made / "v.mp4", "-c", "copy", tmp_path / "plain.mkv")
        content = (tmp_path / "plain.mkv").read_bytes()
    else:
        content = (made / name).read_bytes()
    assert codec in content
    (tmp_path / name).write_bytes(content.replace(codec, other))
    refused_as(tmp_path / name, "its video codec is not known to this FFmpeg; convert it with")


def refused_as(path, words):
    for read in (coviar.read_index, reencode_in_memory):
        with pytest.raises(ValueError, match=words) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: ") and "re-encode" not in str(error.value)
    found = check.check(path)
    assert found.state == "unusable" and found.reason.startswith(words)
