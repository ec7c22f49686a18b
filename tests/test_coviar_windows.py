"""Windows of a file of any codec equal, bit for bit, the same GOPs of the re-encoded file."""

import shutil
import subprocess

import av
import numpy as np
import pytest

import coviar
from coviar import windows
from coviar.reencode import reencode_in_memory
from coviar.source_index import CannotSeek, read_source_index
from tests.coviar_videos import pictures
from tests.test_coviar_files import TURNS, ffmpeg, set_matrix, write_gif
from tests.test_coviar_whole import pack_b_frames, remux
from tests.tools import lacking

SIZE = (64, 48)
COUNT = 75
X264 = ["-c:v", "libx264", "-preset", "fast"]
X265 = ["-c:v", "libx265", "-preset", "fast", "-x265-params"]
XVID = ["-c:v", "mpeg4", "-q:v", "3"]
MPEG2 = ["-c:v", "mpeg2video", "-q:v", "3"]
FIELDS = ["-vf", "tinterlace=interleave_top,setfield=tff"]

# name: options of the encoder and the muxer
SOUGHT = {
    "h264.mp4": X264,
    "no_b.mp4": [*X264, "-bf", "0", "-g", "20"],
    "short_gops.mkv": [*X264, "-bf", "3", "-g", "9"],
    "open.mp4": [*X264, "-bf", "3", "-g", "13", "-x264-params", "open-gop=1:scenecut=0"],
    "refresh.mp4": [*X264, "-g", "20", "-x264-params", "intra-refresh=1"],
    "pyramid.ts": [*X264, "-bf", "8", "-g", "25", "-x264-params", "b-pyramid=normal"],
    "one_ref.flv": [*X264, "-refs", "1", "-g", "12"],
    "fragments.mp4": [*X264, "-g", "10", "-movflags", "frag_keyframe+empty_moov"],
    "lossless444.mkv": ["-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuv444p", "-g", "30"],
    "deep.mkv": ["-c:v", "libx264", "-pix_fmt", "yuv420p10le", "-g", "30"],
    "odd.mkv": ["-vf", "crop=91:53", "-c:v", "libx264", "-pix_fmt", "yuv444p", "-g", "30"],
    "tall.mp4": ["-vf", "transpose", *X264, "-g", "30"],
    "wide_pixels.mp4": ["-vf", "setsar=2", *X264, "-g", "30"],
    "bt709_full.mp4": [*X264, "-colorspace", "bt709", "-color_range", "pc", "-g", "30"],
    "hevc.mp4": [*X265, "keyint=20"],
    "hevc_closed.mkv": [*X265, "keyint=20:open-gop=0:bframes=4"],
    "hevc.ts": [*X265, "keyint=15"],
    "vp8.webm": ["-c:v", "libvpx", "-auto-alt-ref", "1", "-lag-in-frames", "16", "-g", "30"],
    "vp9.webm": ["-c:v", "libvpx-vp9", "-lag-in-frames", "16", "-g", "30"],
    "vp9.mp4": ["-c:v", "libvpx-vp9", "-g", "25", "-b:v", "100k"],
    "av1.mp4": ["-c:v", "libsvtav1", "-preset", "10", "-g", "30"],
    "av1.mkv": ["-c:v", "libaom-av1", "-cpu-used", "8", "-g", "30"],
    "mpeg2.ts": [*MPEG2, "-bf", "2", "-g", "12"],
    "mpeg2_closed.ts": [
        *MPEG2,
        "-bf",
        "2",
        "-g",
        "12",
        "-flags",
        "+cgop",
        "-sc_threshold",
        "1000000000",
    ],
    "mpeg2.mkv": [*MPEG2, "-bf", "2", "-g", "15"],
    "mpeg1.mpg": ["-c:v", "mpeg1video", "-q:v", "3", "-bf", "2", "-g", "15"],
    "xvid.avi": [*XVID, "-g", "250"],
    "xvid_b.avi": [*XVID, "-bf", "2", "-g", "20"],
    "qpel.mkv": [*XVID, "-flags", "+qpel", "-g", "20"],
    "wmv2.asf": ["-c:v", "wmv2", "-g", "20"],
    "h263.flv": ["-c:v", "flv", "-g", "20"],
    "motion.avi": ["-c:v", "mjpeg", "-q:v", "3"],
    "prores.mov": ["-c:v", "prores_ks"],
    "wrap.ts": [*X264, "-g", "20", "-output_ts_offset", "95442.5"],
    "slow.mkv": [*X264, "-r", "7", "-g", "20"],
    "vfr.mkv": ["-vf", "setpts=N/25/TB+0.01*mod(N*N\\,7)/TB", "-vsync", "vfr", *X264, "-g", "20"],
}
STREAMED = {
    "b.avi": ([*X264, "-bf", "2"], "shown at other times"),
    "raw.h264": (X264, "no times"),
    "raw.hevc": ([*X265, "keyint=20"], "no times"),
    "fields.ts": ([*FIELDS, *MPEG2, "-flags", "+ildct+ilme"], "interlaced"),
    "fields.mp4": ([*FIELDS, *X264, "-flags", "+ildct+ilme"], "interlaced"),
    "theora.ogv": (["-c:v", "libtheora", "-g", "20"], "decoding of theora starts"),
}


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """make(name, options): a moving test picture, encoded by FFmpeg."""
    folder = tmp_path_factory.mktemp("made")

    def make(name, options):
        path = folder / name
        moving = ["-f", "lavfi", "-i", f"testsrc2=s=96x64:r=25:d={COUNT / 25}"]
        colours = [] if "-pix_fmt" in options else ["-pix_fmt", "yuv420p"]
        try:
            ffmpeg(*moving, *colours, *options, path)
        except subprocess.CalledProcessError:
            lacking(f"the ffmpeg command cannot make {name}")
        return path

    return make


def check_equal(path, fit="stretch", size=SIZE, streamed=None):
    """All GOPs at once, and some alone, against the whole file re-encoded."""
    whole = coviar.read_index(path, reencode_in_memory(path, size, fit=fit).content)
    index = read_source_index(path, size, fit=fit)
    assert index.gop_lengths == whole.gop_lengths
    assert index.num_frames == whole.num_frames == len(index.seconds)
    assert (index.streamed is None) == (streamed is None) and (streamed or "") in (
        index.streamed or ""
    )
    ends = [(gop, length - 1) for gop, length in enumerate(whole.gop_lengths)]
    middles = [(gop, position // 2) for gop, position in ends]
    for positions in (ends + middles, middles[::-1], ends[-1:], middles[:1]):
        found = coviar.load_clip(path, positions, index=index)
        expected = coviar.load_clip(path, positions, index=whole)
        for array, other in zip(found, expected):
            np.testing.assert_array_equal(array, other)
    return index


@pytest.mark.parametrize("name", SOUGHT)
def test_windows_equal_the_whole(make, name):
    index = check_equal(make(name, SOUGHT[name]))
    assert index.seconds[0] == 0 and np.all(np.diff(index.seconds) > 0)


@pytest.mark.parametrize("name", STREAMED)
def test_files_that_cannot_be_sought_are_decoded_from_their_start(make, name):
    options, reason = STREAMED[name]
    check_equal(make(name, options), streamed=reason)


@pytest.fixture(scope="module")
def plain(make):
    return make("plain.mp4", [*X264, "-g", "20", "-bf", "2"])


@pytest.mark.parametrize("matrix", TURNS)
def test_every_orientation(plain, tmp_path, matrix):
    check_equal(set_matrix(plain, tmp_path / "turned.mp4", matrix))


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_every_fit(plain, fit):
    check_equal(plain, fit=fit, size=(48, 64))


@pytest.mark.parametrize("start", [0.1, 0.84, 1.5])
@pytest.mark.parametrize("name", ["v.mp4", "v.mov"])
def test_edit_lists(plain, tmp_path, start, name):
    ffmpeg("-ss", start, "-i", plain, "-c", "copy", tmp_path / name)
    index = check_equal(tmp_path / name)
    assert index.num_frames < COUNT


def test_an_edit_list_of_two_parts(plain, tmp_path):
    content = plain.read_bytes()
    place = content.index(b"elst") - 4
    with av.open(str(plain)) as container:
        scale = int(1 / container.streams.video[0].time_base)
    entries = [(500, int(0.3 * scale)), (1000, int(1.5 * scale))]
    table = b"".join(part.to_bytes(4, "big") for entry in entries for part in (*entry, 1 << 16))
    box = b"elst" + bytes(4) + len(entries).to_bytes(4, "big") + table
    added = len(entries) * 12 - 12
    content = content[:place] + (len(box) + 4).to_bytes(4, "big") + box + content[place + 28 :]
    for name in (b"moov", b"trak", b"edts"):  # the boxes around it grow; they come after the data
        at = content.index(name) - 4
        size = int.from_bytes(content[at : at + 4], "big") + added
        content = content[:at] + size.to_bytes(4, "big") + content[at + 4 :]
    (tmp_path / "two.mp4").write_bytes(content)
    index = check_equal(tmp_path / "two.mp4")
    assert 30 < index.num_frames < 45


def test_a_capture_that_begins_between_two_keys(make, tmp_path):
    for name in ("pyramid.ts", "mpeg2.ts", "hevc.ts"):
        content = make(name, SOUGHT[name]).read_bytes()
        half = len(content) // 3 // 188 * 188
        (tmp_path / name).write_bytes(content[: 188 * 3] + content[half:])
        check_equal(tmp_path / name)


def test_two_captures_in_one_file(make, tmp_path):
    one = make("mpeg1.mpg", SOUGHT["mpeg1.mpg"]).read_bytes()
    (tmp_path / "two.mpg").write_bytes(one + one)
    check_equal(tmp_path / "two.mpg", streamed="shown at other times")


@pytest.mark.parametrize("codec, streamed", [(MPEG2, "picture size changes"), (X264, None)])
def test_the_picture_size_changes(make, tmp_path, codec, streamed):
    one = make("size_a.ts", [*codec, "-g", "12"])
    scaled = ["-vf", "scale=128:96", *codec, "-g", "12", "-output_ts_offset", "3.2"]
    both = f"concat:{one}|{make('size_b.ts', scaled)}"
    ffmpeg("-i", both, "-c", "copy", tmp_path / "both.mkv")
    index = check_equal(tmp_path / "both.mkv", size=(96, 64), streamed=streamed)
    assert index.num_frames > COUNT


def test_packed_b_frames_and_null_frames(tmp_path, make):
    path = make(
        "b1.avi",
        [*XVID, "-bf", "1", "-b_strategy", "0", "-g", "1000", "-sc_threshold", "1000000000"],
    )
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    chunks = pack_b_frames(packets)
    remux(path, tmp_path / "packed.avi", lambda number, _: chunks[number])
    check_equal(tmp_path / "packed.avi", streamed="several pictures or none")
    remux(make("xvid.avi", SOUGHT["xvid.avi"]), tmp_path / "null.avi", step=3)
    check_equal(tmp_path / "null.avi")


@pytest.mark.parametrize("kind", ["mpeg4", "b_frames", "msmpeg4", "wmv2", "mpeg2"])
def test_keys_that_are_none_are_not_begun_at(make, tmp_path, kind):
    """All packets, or some P- and B-pictures, are marked as keys, as by an AVI's index."""
    options = {
        "mpeg4": [*XVID, "-g", "25"],
        "b_frames": [*XVID, "-g", "25", "-bf", "2"],
        "msmpeg4": ["-c:v", "msmpeg4", "-q:v", "3", "-g", "25"],
        "wmv2": ["-c:v", "wmv2", "-q:v", "3", "-g", "25"],
        "mpeg2": [*MPEG2, "-bf", "2", "-g", "25"],
    }[kind]
    # Of MPEG-4 in Matroska FFmpeg finds the keys itself.
    suffix = {"mpeg4": ".mp4", "b_frames": ".mp4", "wmv2": ".wmv"}.get(kind, ".mkv")
    path = make(f"keys_{kind}{suffix}", options)
    for step in (1, 7):
        marked = tmp_path / f"{step}{suffix}"
        with av.open(str(path)) as container, av.open(str(marked), "w") as output:
            given = container.streams.video[0]
            stream = output.add_stream_from_template(given)
            for number, packet in enumerate(p for p in container.demux(given) if p.size):
                packet.stream = stream
                packet.is_keyframe = packet.is_keyframe or number % step == 0
                output.mux(packet)
        streamed = read_source_index(marked, SIZE).streamed  # b_frames by older FFmpegs
        assert len(check_equal(marked, streamed=streamed).keys) > 3 or streamed


def test_gif(tmp_path):
    write_gif(tmp_path / "v.gif", pictures(30))
    check_equal(tmp_path / "v.gif", streamed="decoding of gif starts")


def test_a_file_of_fewer_pictures_than_a_gop(make):
    path = make("short.mp4", [*X264, "-frames:v", "5"])
    assert check_equal(path).gop_lengths == (5,)
    assert check_equal(make("one.mp4", [*X264, "-frames:v", "1"])).gop_lengths == (1,)


def test_real_clips(shared):
    """H.264 as a data set is published, and files of the study in a size that is not theirs."""
    places = [*(shared / "videos/jhmdb_21").iterdir(), *(shared / "videos/ucf101_6").iterdir()]
    folders = sorted(path for path in places if path.is_dir())
    assert len(folders) == 27
    for folder in folders[::4]:
        path = min(folder.glob("*.mp4"))
        check_equal(path, size=(160, 120))


def test_one_thread_gives_what_many_give(plain):
    index = read_source_index(plain, SIZE)
    positions = [(gop, 5) for gop in range(6)]
    one = coviar.load_clip(plain, positions, index=index, threads=1, encode=True, flip=True)
    many = coviar.load_clip(plain, positions, index=index, threads=4, encode=True, flip=True)
    assert all(np.array_equal(*pair) for pair in zip(one, many))


def test_only_what_is_asked_for_is_decoded(plain, monkeypatch):
    index = read_source_index(plain, SIZE)
    decoded = []
    decode = windows._Reader._decode_packet
    monkeypatch.setattr(
        windows._Reader,
        "_decode_packet",
        lambda self, packet, number, needed: (
            decoded.append(number) or decode(self, packet, number, needed)
        ),
    )
    coviar.load_clip(plain, [(2, 3)], index=index)  # pictures 24 to 27; the key before is 20
    assert min(decoded) == 20 and max(decoded) <= 32


def damage(path, target, picture, names=None):
    """Overwrite most of the bytes of one packet."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    start, size = packets[picture].pos, packets[picture].size
    content[start + size // 3 : start + size] = b"\xaa" * (size - size // 3)
    target.write_bytes(content)
    return target


def test_a_damaged_window_is_named_and_the_others_are_loaded(plain, tmp_path):
    path = damage(plain, tmp_path / "damaged.mp4", 45)  # decoded after the key 40
    index = read_source_index(path, SIZE)
    with pytest.raises(ValueError, match=r"damaged.mp4: .*\(at [12]\.\d\d s\).*--keep-damaged"):
        coviar.load_clip(path, [(4, 5)], index=index)
    whole = coviar.read_index(plain, reencode_in_memory(plain, SIZE).content)
    for gop in (0, 1, 2, 5):
        found = coviar.load_clip(path, [(gop, 5)], index=index)
        expected = coviar.load_clip(plain, [(gop, 5)], index=whole)
        assert all(np.array_equal(*pair) for pair in zip(found, expected))


def test_a_file_that_changes_after_it_was_counted(plain, make, tmp_path):
    path = tmp_path / "v.mp4"
    shutil.copy(plain, path)
    index = read_source_index(path, SIZE)
    shutil.copy(make("no_b.mp4", SOUGHT["no_b.mp4"]), path)
    with pytest.raises(ValueError, match="v.mp4"):
        coviar.load_clip(path, [(5, 2)], index=index)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="v.mp4: the file is empty"):
        coviar.load_clip(path, [(5, 2)], index=index)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        coviar.load_clip(path, [(5, 2)], index=index)


def test_pictures_other_than_those_of_the_packets(plain, monkeypatch):
    index = read_source_index(plain, SIZE)
    wrong = index._replace(pictures=np.where(index.pictures > 30, index.pictures + 1, -1))
    with pytest.raises(CannotSeek, match="not those of its packets"):
        coviar.load_clip(plain, [(2, 8)], index=wrong)
    streamed = read_source_index(plain, SIZE, stream=True)
    assert streamed.streamed and streamed.gop_lengths == index.gop_lengths
    found = coviar.load_clip(plain, [(2, 8)], index=streamed)
    expected = coviar.load_clip(plain, [(2, 8)], index=index)
    assert all(np.array_equal(*pair) for pair in zip(found, expected))
