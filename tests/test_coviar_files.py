"""What users bring: each kind is loaded, converted or refused, and check and reencode agree."""

import json
import shutil
import struct
import warnings

import av
import numpy as np
import pytest

import coviar
from coviar import check, reencode
from coviar.reencode import reencode_in_memory
from tests.coviar_videos import SIZE, ffmpeg, pictures, write_video

WHOLE = {
    "mpeg4.avi": {"container": "avi"},
    "mpeg4.mp4": {"container": "mp4"},
    "h264.mp4": {"codec": "libx264", "container": "mp4"},
    "h264.mkv": {"codec": "libx264", "container": "matroska"},
    "h264.mts": {"codec": "libx264", "container": "mpegts"},
    "h264.flv": {"codec": "libx264", "container": "flv"},
    "wmv2.wmv": {"codec": "wmv2", "container": "asf"},
    "vp8.webm": {"codec": "libvpx", "container": "webm"},
    "mpeg2.mpg": {"codec": "mpeg2video", "container": "mpeg"},
    "raw 100%d a:b.m4v": {},
    "gif.gif": {"codec": "gif", "container": "gif"},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    for name, options in WHOLE.items():
        options = dict(options)
        frames = pictures(9)
        if options.get("codec") == "gif":
            write_gif(folder / name, frames)
        else:
            write_video(folder / name, frames, **options)
    return folder


def write_gif(path, frames):
    with av.open(str(path), "w", format="gif") as output:
        stream = output.add_stream("gif", rate=25)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "rgb8"
        for t, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="rgb8")
            picture.pts = t
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))


@pytest.mark.parametrize("name", WHOLE)
def test_whole_files_pass_and_cut_ones_are_named(whole, tmp_path, name):
    assert check.check(whole / name).state in ("ok", "convert"), check.check(whole / name)
    assert reencode_in_memory(whole / name, SIZE).count == 9
    data = (whole / name).read_bytes()
    for share in (0.6, 0.85):
        path = tmp_path / f"cut {share} {name}"
        path.write_bytes(data[: int(len(data) * share) // 188 * 188 + 7])
        found = check.check(path)
        assert found.state == "unusable" and "cut off" in found.reason
        with pytest.raises(ValueError, match="cut off"):
            reencode_in_memory(path, SIZE)
        with pytest.raises(ValueError):
            coviar.read_index(path)
        if "--keep-damaged" in found.reason:
            assert 0 < reencode_in_memory(path, SIZE, keep_damaged=True).count <= 9


OTHERS = {
    "empty.mp4": (b"", "the file is empty"),
    "text.webm": (b"no video\n", "a text file"),
    "page.mp4": (b"<!DOCTYPE html><p>404</p>", "a web page"),
    "zeros.avi": (bytes(5000), "only zeros"),
    "archive.mov": (b"PK\3\4" + bytes(range(256)), "a ZIP archive"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_video_is_named_and_never_to_be_reencoded(tmp_path, name):
    content, words = OTHERS[name]
    (tmp_path / name).write_bytes(content)
    for read in (coviar.read_index, reencode_in_memory):
        with pytest.raises(ValueError, match=words) as error:
            read(tmp_path / name)
        assert "re-encode" not in str(error.value)
    assert words in check.check(tmp_path / name).reason


def test_check_and_reencode_agree_on_a_folder(whole, tmp_path, capsys):
    source = tmp_path / "in"
    shutil.copytree(whole, source)
    for number, path in enumerate(sorted(whole.iterdir())):
        data = path.read_bytes()
        stem, suffix = f"{number}", path.suffix
        (source / f"{stem}cut{suffix}").write_bytes(data[: len(data) // 2 + 3])
        noisy = bytearray(data)
        noisy[len(data) // 2 : len(data) // 2 + 60] = b"\xaa" * 60
        (source / f"{stem}noisy{suffix}").write_bytes(noisy)
    for name, (content, _) in OTHERS.items():
        (source / name).write_bytes(content)
    (source / "mpeg4.mp4").rename(source / "mpeg4 in mp4.mp4")
    (source / "h264.mkv").rename(source / "h264 in mkv.mkv")
    (source / "h264.mts").rename(source / "h264 in ts.mts")
    (source / "h264.flv").rename(source / "h264 in flv.flv")
    (source / "notes.docx").write_text("")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        states = {p: check.check(p).state for p in source.iterdir() if p.suffix != ".docx"}
    parser = reencode.get_args_parser()
    arguments = parser.parse_args([str(source), str(tmp_path / "out"), "--size", "64x48"])
    assert reencode.main(arguments, parser) == 1
    failed = json.loads((tmp_path / "out" / "reencode.json").read_text())["failed"]
    bad = {str(path) for path, state in states.items() if state not in ("ok", "convert")}
    assert bad == set(failed)
    assert len(bad) > 15 and len(states) - len(bad) >= 10
    printed = capsys.readouterr()
    assert "1 .docx" in printed.err and '"skipped": 1' in printed.out


def first_picture(content):
    index = coviar.read_index("memory", content)
    return coviar.load_clip("memory", [(0, 0)], index=index).iframe[0].astype(int)


TURNS = {
    (0, 1, -1, 0): lambda x: np.rot90(x, 3),
    (-1, 0, 0, -1): lambda x: np.rot90(x, 2),
    (0, -1, 1, 0): lambda x: np.rot90(x, 1),
    (-1, 0, 0, 1): lambda x: x[:, ::-1],
    (1, 0, 0, -1): lambda x: x[::-1],
    (0, 1, 1, 0): lambda x: x.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda x: x.transpose(1, 0, 2)[::-1, ::-1],
}


def set_matrix(path, target, matrix):
    content = bytearray(path.read_bytes())
    a, b, c, d = (int(value * 65536) for value in matrix)
    place = content.index(b"tkhd") + 44
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(content)
    return target


@pytest.mark.parametrize("matrix", TURNS)
def test_every_orientation(whole, tmp_path, matrix):
    turn = TURNS[matrix]
    plain = first_picture(reencode_in_memory(whole / "mpeg4.mp4", SIZE).content)
    turned = set_matrix(whole / "mpeg4.mp4", tmp_path / "turned.mp4", matrix)
    size = SIZE if matrix[0] else SIZE[::-1]
    found = first_picture(reencode_in_memory(turned, size).content)
    assert np.abs(found - turn(plain)).mean() < 6  # encoded twice in other blocks
    with pytest.raises(ValueError, match="to be turned or mirrored; re-encode it"):
        coviar.read_index(turned)


def test_a_slanted_matrix_is_refused(whole, tmp_path):
    path = set_matrix(whole / "mpeg4.mp4", tmp_path / "v.mp4", (0.7, 0.7, -0.7, 0.7))
    with pytest.raises(ValueError, match="v.mp4: its display matrix"):
        reencode_in_memory(path)
    assert check.check(path).state == "unusable"


def test_a_plain_source_is_encoded_as_published(whole):
    content = reencode_in_memory(whole / "h264.mp4", (64, 48), 12, 1).content
    encoder = reencode.make_encoder(25, (64, 48), 12, 1)
    packets = []
    with av.open(str(whole / "h264.mp4")) as container:
        for t, frame in enumerate(container.decode(video=0)):
            frame = frame.reformat(64, 48, format="yuv420p", interpolation="BICUBIC")
            frame.pict_type, frame.pts, frame.time_base = 0, t, encoder.time_base
            packets += encoder.encode(frame)
    assert content == b"".join(map(bytes, [*packets, *encoder.encode(None)]))


COLOUR = "color=c=0x{0}:s=96x64:r=25:d=0.2"


@pytest.mark.parametrize("matrix, value_range", [("bt709", "tv"), ("bt709", "pc"), ("bt601", "pc")])
def test_colours_are_converted_from_what_is_declared(tmp_path, matrix, value_range):
    path = tmp_path / "v.mp4"
    scale = f"format=gbrp,scale=out_color_matrix={matrix}:out_range={value_range},format=yuv420p"
    space = "bt709" if matrix == "bt709" else "smpte170m"
    declared = ["-colorspace", space, "-color_range", value_range]
    source = ["-f", "lavfi", "-i", COLOUR.format("C83C28"), "-vf", scale, *declared]
    ffmpeg(*source, "-c:v", "libx264", "-qp", 1, path)
    found = first_picture(reencode_in_memory(path, SIZE).content).mean((0, 1))
    np.testing.assert_allclose(found, [0x28, 0x3C, 0xC8], atol=6)  # two 8-bit conversions
    ffmpeg(*source, "-c:v", "mpeg4", "-q:v", 1, "-strict", -1, tmp_path / "v.mkv")
    with pytest.raises(ValueError, match="its colours are .*; re-encode it"):
        coviar.read_index(tmp_path / "v.mkv")


def test_edit_lists_are_refused_as_they_are_and_honoured(whole, tmp_path):
    ffmpeg("-ss", 0.12, "-i", whole / "mpeg4.mp4", "-c", "copy", tmp_path / "trimmed.mp4")
    with pytest.raises(ValueError, match="edit list leaves pictures out; re-encode it"):
        coviar.read_index(tmp_path / "trimmed.mp4")
    assert reencode_in_memory(tmp_path / "trimmed.mp4", SIZE).count == 6


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video"])
def test_interlaced_videos_are_deinterlaced(tmp_path, codec):
    path = tmp_path / "v.avi"
    filters = "tinterlace=interleave_top,setfield=tff"
    moving = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=50:d=0.4", "-vf", filters]
    ffmpeg(*moving, "-c:v", codec, "-flags", "+ildct+ilme", "-q:v", 2, path)
    encoded = reencode_in_memory(path, SIZE)
    with av.open(str(path)) as container:
        assert encoded.count == sum(1 for _ in container.decode(video=0))
    with pytest.raises(ValueError, match="interlaced|codec is"):
        coviar.read_index(path)


def test_fits(tmp_path):
    frames = (np.full((128, 64, 3), 200, np.uint8) for _ in range(3))
    path = write_video(tmp_path / "v.mp4", frames, codec="libx264", container="mp4")
    stretched = reencode_in_memory(path, SIZE)
    assert "--fit pad" in stretched.note and first_picture(stretched.content).min() > 180
    padded = reencode_in_memory(path, SIZE, fit="pad")
    picture = first_picture(padded.content)
    assert padded.note is None
    assert picture[:, :28].max() < 40 and picture[:, 36:60].min() > 180
    assert first_picture(reencode_in_memory(path, SIZE, fit="crop").content).min() > 180


@pytest.mark.parametrize("size", [(97, 64), (96, 65), (97, 65), (41, 33), (64, 96)])
@pytest.mark.parametrize("shape", [(64, 128), (160, 32)])
def test_fits_of_any_size(tmp_path, size, shape):
    frames = (np.full((*shape[::-1], 3), 200, np.uint8) for _ in range(3))
    path = write_video(tmp_path / "v.mp4", frames, codec="libx264", container="mp4")
    is_narrow = shape[0] * size[1] < size[0] * shape[1]
    for fit in ("pad", "crop"):
        encoded = reencode_in_memory(path, size, fit=fit)
        index = coviar.read_index("v.mp4", encoded.content)
        assert (encoded.count, index.width, index.height) == (3, *size)
        picture = coviar.load_clip("v.mp4", [(0, 2)], index=index).iframe[0]
        bright = (picture > 180).all(axis=-1)
        across = bright[size[1] // 2] if is_narrow else bright[:, size[0] // 2]
        along = bright[:, size[0] // 2] if is_narrow else bright[size[1] // 2]
        assert along.all()
        if fit == "crop":
            assert bright.all()
        else:
            ratio = shape[0] / shape[1]
            expected = size[1] * ratio if is_narrow else size[0] / ratio
            assert abs(across.sum() - expected) <= 5 and not across[[0, -1]].any()


def test_a_huge_file_of_another_codec_is_not_read(whole, tmp_path):
    path = tmp_path / "film.mp4"
    data = (whole / "h264.mp4").read_bytes()
    path.write_bytes(data + struct.pack(">I4sQ", 1, b"free", 1 << 40))
    with open(path, "r+b") as file:
        file.truncate(len(data) + (1 << 40))  # no bytes on the disk
    with pytest.raises(ValueError, match="codec is h264"):
        coviar.read_index(path)
