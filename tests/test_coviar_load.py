"""Every kind of input against FFmpeg's demuxer and the slow reference; errors by their words."""

import pickle
import threading
import time
import warnings

import av
import numpy as np
import pytest

import coviar
from coviar import check, motion
from coviar.decode import decode
from coviar.reencode import reencode_in_memory
from coviar.threads import in_threads
from tests.coviar_videos import SIZE, ffmpeg, load_slowly, pictures, write_video
from tests.test_coviar_whole import remux

CONTAINERS = {"m4v": "m4v", "avi": "avi", "mp4": "mp4", "mkv": "matroska"}


def assert_loads_exactly(path):
    """Every array of every position of the file, against load_slowly; returns the latter."""
    slow = load_slowly(path)
    positions = list(slow)
    index = coviar.read_index(path)
    assert positions == [(g, p) for g, n in enumerate(index.gop_lengths) for p in range(n)]
    whole = coviar.load_clip(path, positions, index=index)
    own = coviar.load_clip(path, positions, accumulate=False, index=index)
    for row, place in enumerate(positions):
        expected = slow[place]
        np.testing.assert_array_equal(coviar.load(path, *place, 0, True), expected.frame)
        np.testing.assert_array_equal(whole.iframe[row], expected.iframe)
        np.testing.assert_array_equal(whole.mv[row], expected.mv)
        np.testing.assert_array_equal(whole.residual[row], expected.residual)
        np.testing.assert_array_equal(own.mv[row], expected.own_mv)
        np.testing.assert_array_equal(own.residual[row], expected.own_residual)
    return slow


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A raw stream of two GOPs, of 12 and 5 pictures."""
    return write_video(tmp_path_factory.mktemp("video") / "video.mp4", pictures(17))


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_containers(tmp_path, suffix):
    path = tmp_path / f"video.{suffix}"
    slow = assert_loads_exactly(write_video(path, pictures(8), container=CONTAINERS[suffix], gop=5))
    assert any(picture.blocks for picture in slow.values())


def test_container_gives_what_the_raw_stream_of_its_bytes_gives(tmp_path):
    path = write_video(tmp_path / "video.avi", pictures(8), container="avi", gop=5)
    with av.open(str(path)) as container:
        stream = b"".join(bytes(packet) for packet in container.demux(video=0))
    raw = tmp_path / "raw.mp4"
    raw.write_bytes(stream)
    positions = [(0, 4), (1, 2)]
    for one, other in zip(coviar.load_clip(path, positions), coviar.load_clip(raw, positions)):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("size", [(96, 64), (34, 18), (90, 51), (33, 47)])
def test_picture_sizes_that_are_no_multiple_of_a_block(tmp_path, size):
    assert_loads_exactly(write_video(tmp_path / "v.mp4", pictures(5, size=size)))


@pytest.mark.parametrize("count, gop", [(1, 12), (3, 1), (7, 3), (30, 300)])
def test_gop_lengths(tmp_path, count, gop):
    path = write_video(tmp_path / "v.mp4", pictures(count, size=(48, 32)), gop=gop)
    assert_loads_exactly(path)
    assert coviar.get_num_frames(path) == count
    assert coviar.get_num_gops(path) == -(-count // gop)


def test_four_vectors_per_macroblock(tmp_path):
    path = write_video(tmp_path / "v.mp4", pictures(6), flags="+mv4", mbd="rd")
    slow = assert_loads_exactly(path)
    assert any(block[:2] == (8, 8) for picture in slow.values() for block in picture.blocks)


def test_intra_blocks_and_p_frames_without_vectors(tmp_path):
    frames = pictures(6, cut_at=3)
    path = write_video(tmp_path / "v.mp4", frames, sc_threshold="1000000000")
    slow = assert_loads_exactly(path)
    assert set(slow) == {(0, position) for position in range(6)}
    per_picture = [len(slow[0, position].blocks) for position in range(6)]
    assert per_picture[3] < max(per_picture)  # the cut is coded without prediction


def test_vectors_that_point_outside(tmp_path):
    path = write_video(tmp_path / "v.mp4", pictures(8, speed=(9, -7)))
    slow = assert_loads_exactly(path)
    sources = np.array([block for picture in slow.values() for block in picture.blocks])
    assert (sources[:, 2] < 8).any() or (sources[:, 3] > 64 - 8).any()


def test_identity_of_map_and_residual(video):
    slow = load_slowly(video)
    y, x = np.mgrid[:64, :96]
    clip = coviar.load_clip(video, list(slow))
    for iframe, mv, residual, picture in zip(*clip, slow.values()):
        rebuilt = iframe[y - mv[..., 1], x - mv[..., 0]] + residual
        np.testing.assert_array_equal(rebuilt, picture.frame)


def test_crop_flip_and_encoding(video):
    positions = [(1, 4), (0, 0), (0, 11)]
    whole = coviar.load_clip(video, positions)
    window = (13, 7, 50, 41)
    area = (slice(None), slice(7, 7 + 41), slice(13, 13 + 50))
    part = coviar.load_clip(video, positions, crop=window)
    for one, other in zip(part, whole):
        np.testing.assert_array_equal(one, other[area])
    mirrored = coviar.load_clip(video, positions, crop=window, flip=True)
    np.testing.assert_array_equal(mirrored.iframe, part.iframe[:, :, ::-1])
    np.testing.assert_array_equal(mirrored.mv, part.mv[:, :, ::-1] * [-1, 1])
    np.testing.assert_array_equal(mirrored.residual, part.residual[:, :, ::-1])
    for flip, plain in ((False, part), (True, mirrored)):
        encoded = coviar.load_clip(video, positions, crop=window, flip=flip, encode=True)
        np.testing.assert_array_equal(encoded.iframe, plain.iframe[..., ::-1])
        np.testing.assert_array_equal(encoded.mv, motion.encode_mv(plain.mv))
        np.testing.assert_array_equal(encoded.residual, motion.encode_residual(plain.residual))
        assert {array.dtype for array in encoded} == {np.dtype(np.uint8)}
    assert part.mv.any() and (part.mv[1] == 0).all() and (part.residual[1] == 0).all()


def test_any_order_repeats_and_out(video):
    positions = [(1, 2), (0, 7), (1, 2), (0, 3), (0, 0), (0, 0)]
    for accumulate in (True, False):
        clip = coviar.load_clip(video, positions, accumulate=accumulate)
        for row, place in enumerate(positions):
            alone = coviar.load_clip(video, [place], accumulate=accumulate)
            for one, other in zip(clip, alone):
                np.testing.assert_array_equal(one[row], other[0])
        reused = coviar.Clip(*(np.full_like(array, 99) for array in clip))
        assert coviar.load_clip(video, positions, accumulate=accumulate, out=reused) is reused
        for one, other in zip(clip, reused):
            np.testing.assert_array_equal(one, other)


def test_index_travels_and_spares_the_scan(video, monkeypatch):
    index = pickle.loads(pickle.dumps(coviar.read_index(video)))
    assert (index.width, index.height, index.gop_lengths) == (96, 64, (12, 5))
    assert (index.num_frames, index.num_gops, index.gop_starts) == (17, 2, [0, 12])
    expected = coviar.load_clip(video, [(1, 3)])
    monkeypatch.setattr("coviar.clip.read_index", None)
    found = coviar.load_clip(video, [(1, 3)], index=index)
    np.testing.assert_array_equal(found.residual, expected.residual)


def test_several_threads_load_what_one_loads(tmp_path):
    path = write_video(tmp_path / "video.mp4", pictures(23), gop=5)
    index = coviar.read_index(path)
    positions = [(gop, last - 1) for gop, last in enumerate(index.gop_lengths)]
    assert len(positions) == 5
    whole = coviar.load_clip(path, positions, index=index, threads=1)
    for threads in (2, 3, 8, None):
        for found, expected in zip(coviar.load_clip(path, positions, threads=threads), whole):
            np.testing.assert_array_equal(found, expected)


def test_after_an_error_no_thread_works_on():
    numbers, done = iter(range(40)), []

    def work():
        for number in numbers:
            if threading.current_thread() is threading.main_thread():
                raise ValueError("stop")
            time.sleep(0.005)
            done.append(number)

    for _ in range(2):  # the pool outlives an error
        with pytest.raises(ValueError, match="stop"):
            in_threads(work, 3)
        count = len(done)
        time.sleep(0.05)
        assert len(done) == count == 39
        numbers, done = iter(range(40)), []


@pytest.mark.parametrize("threads", [1, 2])
def test_a_damaged_gop_does_not_depend_on_the_others(tmp_path, threads):
    path = write_video(tmp_path / "video.mp4", pictures(15, seed=3), gop=5)
    index = coviar.read_index(path)
    content = bytearray(path.read_bytes())
    first = index.offsets[5]  # the I-picture of GOP 1
    content[first + index.sizes[5] // 3 : first + index.sizes[5]] = b"\xff" * (
        index.sizes[5] - index.sizes[5] // 3
    )
    path.write_bytes(content)
    with pytest.warns(coviar.CorruptVideoWarning, match="GOP 1 is damaged"):
        alone = coviar.load_clip(path, [(1, 2)], index=index)
    with pytest.warns(coviar.CorruptVideoWarning, match="GOP 1 is damaged"):
        among = coviar.load_clip(path, [(0, 4), (1, 2), (2, 1)], index=index, threads=threads)
    for found, expected in zip(among, alone):
        np.testing.assert_array_equal(found[1], expected[0])


def test_threads_get_what_one_thread_gets(video, tmp_path):
    other = write_video(tmp_path / "other.mp4", pictures(14, seed=5))
    jobs = [(path, [(g, p) for g in (0, 1) for p in (1, 0)]) for path in (video, other, video)]
    expected = [coviar.load_clip(*job) for job in jobs]
    wrong = []

    def work():
        for _ in range(10):
            for job, clip in zip(jobs, expected):
                found = coviar.load_clip(*job)
                if not all((a == b).all() for a, b in zip(found, clip)):
                    wrong.append(job)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_missing_empty_and_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        coviar.load(tmp_path / "nowhere.mp4", 0, 0, 0, True)
    path = tmp_path / "file.mp4"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="file.mp4: the file is empty"):
        coviar.get_num_frames(path)
    path.write_bytes(b"Class/video.avi Class 0\n" * 100)
    with pytest.raises(ValueError, match="file.mp4: this is a text file, not a video$"):
        coviar.get_num_gops(path)
    header_only = write_video(tmp_path / "v.mp4", pictures(1)).read_bytes()[:50]
    path.write_bytes(header_only)
    with pytest.raises(ValueError, match="file.mp4: there is no I-frame"):
        coviar.read_index(path)


@pytest.mark.parametrize(
    "codec, container, words",
    [("libx264", "mp4", "h264"), ("libx265", "mp4", "hevc"), ("mpeg2video", "avi", "mpeg2video")],
)
def test_other_codecs_are_named(tmp_path, codec, container, words):
    path = write_video(tmp_path / "v.mp4", pictures(4), codec=codec, container=container)
    with pytest.raises(ValueError, match=f"codec is {words}, not MPEG-4 Part 2.*coviar.reencode"):
        coviar.load(path, 0, 0, 0, True)


@pytest.mark.parametrize("container", ["m4v", "avi", "mp4"])
@pytest.mark.parametrize(
    "options, words", [({"bf": "2"}, "B-frames"), ({"flags": "+qpel"}, "quarter-pixel")]
)
def test_streams_whose_motion_cannot_be_followed(tmp_path, container, options, words):
    path = write_video(tmp_path / "v.mp4", pictures(8), container=container, **options)
    with pytest.raises(ValueError, match=f"v.mp4: the stream has {words}.*coviar.reencode"):
        coviar.read_index(path)


@pytest.mark.parametrize("container", ["m4v", "avi"])
@pytest.mark.parametrize("rates", [(25, 50), (50, 25), (25, 30, 50)])
def test_a_time_resolution_that_changes_is_named(tmp_path, container, rates):
    parts = [write_video(tmp_path / f"{rate}.m4v", pictures(8), rate=rate) for rate in rates]
    path = tmp_path / "v.m4v"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    if container == "avi":
        remux(path, tmp_path / "v.avi")
        path = tmp_path / "v.avi"
    with pytest.raises(ValueError, match="the time resolution changes .*coviar.reencode"):
        coviar.read_index(path)
    found = check.check(path)
    assert (found.state, found.frames) == ("convert", 8 * len(rates))
    assert reencode_in_memory(path, SIZE).count == 8 * len(rates)


def test_rates_of_one_width_are_one_stream(tmp_path):
    parts = [write_video(tmp_path / f"{rate}.m4v", pictures(8), rate=rate) for rate in (25, 30)]
    path = tmp_path / "both.m4v"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert coviar.read_index(path).gop_lengths == (8, 8)
    assert_loads_exactly(path)


def test_global_motion_is_named(video, tmp_path):
    data = bytearray(video.read_bytes())
    second_vop = data.index(b"\0\0\1\xb6", data.index(b"\0\0\1\xb6") + 4)
    data[second_vop + 4] |= 0xC0  # picture type S
    path = tmp_path / "gmc.mp4"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="gmc.mp4: the stream has global motion.*coviar.reencode"):
        coviar.read_index(path)


@pytest.mark.parametrize(
    "place, words",
    [((2, 0), "GOP 2 is not in 0..1"), ((-1, 0), "GOP -1"), ((1, 5), "position 5 is not in 0..4")],
)
def test_positions_outside(video, place, words):
    for representation in (0, 1, 2):
        with pytest.raises(IndexError, match=f"video.mp4: .*{words}"):
            coviar.load(video, *place, representation, True)
    with pytest.raises(IndexError, match=words):
        coviar.load_clip(video, [(0, 0), place])


def test_arguments_that_do_not_fit(video):
    with pytest.raises(ValueError, match="representation is 3, expected 0"):
        coviar.load(video, 0, 0, 3, True)
    with pytest.raises(ValueError, match="at least one"):
        coviar.load_clip(video, [])
    for crop in [(0, 0, 97, 64), (-1, 0, 5, 5), (90, 0, 7, 5), (0, 0, 0, 5)]:
        with pytest.raises(ValueError, match="not inside the 96x64 picture"):
            coviar.load_clip(video, [(0, 1)], crop=crop)
    out = coviar.load_clip(video, [(0, 1)])
    with pytest.raises(ValueError, match="out must be"):
        coviar.load_clip(video, [(0, 1), (0, 2)], out=out)
    with pytest.raises(ValueError, match="out must be"):
        coviar.load_clip(video, [(0, 1)], encode=True, out=out)
    for wrong in ([1, 2, 3], out[:2], out._replace(mv=out.mv[..., ::-1])):
        with pytest.raises(ValueError, match="out must be"):
            coviar.load_clip(video, [(0, 1)], out=wrong)
    out.residual.setflags(write=False)
    with pytest.raises(ValueError, match="out must be writable"):
        coviar.load_clip(video, [(0, 1)], out=out)


def damage(video, path, gop):
    """A copy of the video with noise in the second half of the GOP's second picture."""
    index = coviar.read_index(video)
    data = bytearray(video.read_bytes())
    number = index.gop_starts[gop] + 1
    start, size = index.offsets[number], index.sizes[number]
    noise = np.random.default_rng(0).integers(2, 256, size // 2, dtype=np.uint8)
    data[start + size - len(noise) : start + size] = noise.tobytes()
    path.write_bytes(data)
    return path


def test_damage_is_concealed_and_reported(video, tmp_path):
    path = damage(video, tmp_path / "damaged.mp4", gop=1)
    with pytest.warns(coviar.CorruptVideoWarning, match="damaged.mp4: GOP 1 is damaged"):
        clip = coviar.load_clip(path, [(0, 5), (1, 3)])
    y, x = np.mgrid[:64, :96]
    mv = clip.mv[1]
    rebuilt = clip.iframe[1][y - mv[..., 1], x - mv[..., 0]] + clip.residual[1]
    with pytest.warns(coviar.CorruptVideoWarning):
        np.testing.assert_array_equal(rebuilt, coviar.load(path, 1, 3, 0, True))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        coviar.load_clip(path, [(0, 5)])


def test_a_lost_picture_is_an_error_never_zeros(video, tmp_path):
    index = coviar.read_index(video)
    data = bytearray(video.read_bytes())
    start, size = index.offsets[12], index.sizes[12]  # the second I-frame
    vop = data.index(b"\0\0\1\xb6", start)
    data[vop + 4 : start + size] = b"\x3f" + b"\xff" * (start + size - vop - 5)
    path = tmp_path / "lost.mp4"
    path.write_bytes(data)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match="lost.mp4: GOP 1 position . is damaged beyond"):
            coviar.load_clip(path, [(0, 2), (1, 2), (1, 0)])
        coviar.load_clip(path, [(0, 2)])


def test_a_file_cut_off_since_it_was_indexed(video, tmp_path):
    path = tmp_path / "cut.mp4"
    path.write_bytes(video.read_bytes())
    index = coviar.read_index(path)
    path.write_bytes(video.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut.mp4: the file is shorter than"):
        coviar.load_clip(path, [(1, 4)], index=index)


@pytest.mark.parametrize("tag", ["FMP4", "XVID", "xvid", "DIVX", "DX50", "UMP4"])
def test_pictures_are_those_that_ffmpeg_shows_whatever_the_tag(tmp_path, tag):
    """FFmpeg takes another inverse transform for XVID, where no user data names the encoder."""
    path, cache = tmp_path / "v.avi", tmp_path / "index.npz"
    options = ("-c:v", "mpeg4", "-flags", "+bitexact", "-bf", 0, "-q:v", 8, "-vtag", tag)
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=1", *options, path)
    with av.open(str(path)) as container:
        shown = [planes_of(frame) for frame in container.decode(video=0)]
    for _ in range(2):  # an index that is read, and one that is kept
        (index,) = coviar.read_indexes([path], cache)
        assert index.tag == tag
        found = decode(index, {gop: n - 1 for gop, n in enumerate(index.gop_lengths)})
        assert [planes_of(frame) for _, _, frame in found] == shown


def planes_of(frame):
    return frame.to_ndarray().tobytes()
