"""predict.py over time: windows of files and of streams, bad ones, and how it ends."""

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import coviar
import predict
from coviar import live
from coviar.live import (
    Window,
    is_live,
    middle_pictures,
    middle_position,
    pictures_between,
    stream_windows,
)
from coviar.reencode import reencode_in_memory
from dataset_team.sampling import segment_positions
from early_exit import timeline
from early_exit.timeline import Moment, Timeline, merge, time_text
from early_exit.timeline_lines import Tally, write_timeline
from tests.conftest import REPO
from tests.coviar_videos import pictures, write_video
from tests.shell_jobs import heed_interrupts
from tests.test_coviar_whole import remux
from tests.test_coviar_windows import damage

SIZE = (64, 48)
COSTS = {"full": 4.0}


class Judge:
    """Stands in for a Predictor: the label is the brightest quarter of the I-frames' values."""

    def __init__(self):
        names = ["dark", "dim", "light", "bright"]
        self.trained = SimpleNamespace(picture_size=SIZE, gop=12, crop_size=32, class_names=names)
        self.net = SimpleNamespace(backbone=SimpleNamespace(num_segments=3))
        self.points, self.fit = ["full"], "stretch"
        self.clips = []

    def open(self, path):
        return coviar.source_index.read_source_index(path, SIZE, 12), "another codec"

    def decide(self, clip):
        self.clips.append(clip)
        share = clip[0].float().mean() / 255
        return torch.nn.functional.one_hot((share * 4).long().clamp(max=3), 4).float(), 0, None


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """4 s of H.264 with B-frames, dark and bright by turns of a second."""
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    frames = (f // 4 + 190 * (t // 25 % 2) for t, f in enumerate(pictures(100)))
    frames = (frame.clip(0, 255).astype(np.uint8) for frame in frames)
    return write_video(path, frames, "libx264", "matroska", gop=20, bf="2")


def moments(source, every=1.0, seconds=1.0, **options):
    judge = Judge()
    return list(Timeline(judge, str(source), every, seconds, COSTS, **options)), judge


def test_windows_are_those_of_the_reencoded_file(film):
    found, judge = moments(film, 0.5)
    assert [(m.start, m.end) for m in found] == [(k / 2, k / 2 + 1) for k in range(7)]
    assert [m.label for m in found[:3:2]] == ["dark", "light"]  # the later ones share GOPs
    whole = coviar.read_index(film, reencode_in_memory(film, SIZE).content)
    times = coviar.source_index.read_source_index(film, SIZE).seconds
    left, top, width, height = timeline.fixed_boxes(*SIZE, 1)[0]
    for window, clip in zip(found, judge.clips):
        first, last = np.searchsorted(times, (window.start, window.end)).tolist()
        positions = [
            (n // 12, middle_position(whole.gop_lengths[n // 12]))
            for n in middle_pictures(first, last, 3)
        ]
        expected = coviar.load_clip(film, positions, encode=True, index=whole)
        for array, other in zip(clip, expected):
            cropped = np.ascontiguousarray(other[:, top : top + height, left : left + width])
            assert torch.equal(array, timeline.resize(cropped, 32))


@pytest.mark.parametrize(
    ("every", "seconds"), [(1, 1), (0.5, 1.3), (1.7, 0.6), (9, 9), (3, 0.5), (2, 0.5)]
)
def test_a_stream_gives_what_the_file_gives(film, every, seconds):
    index = coviar.source_index.read_source_index(film, SIZE)
    windows = timeline._file_windows(index, index.seconds, every, seconds, 3)
    crop = timeline.fixed_boxes(*SIZE, 1)[0]
    streamed = stream_windows(str(film), every, seconds, 3, SIZE, 12, "stretch", crop)
    count = 0
    for one, other in itertools.zip_longest(windows, streamed):
        assert (one.start, one.problem) == (other.start, other.problem)
        assert one.end == pytest.approx(other.end, abs=0.01)
        assert all(np.array_equal(*pair) for pair in zip(one.clip, other.clip))
        count += 1
    assert count


def test_the_times_of_a_file_that_is_loaded_are_those_of_its_pictures(tmp_path):
    """FFmpeg calls the rate of raw streams 25; null frames of AVI files take time."""
    raw = write_video(tmp_path / "ten.m4v", pictures(40), rate=10)
    write_video(tmp_path / "v.avi", pictures(40), container="avi")
    remux(tmp_path / "v.avi", tmp_path / "null.avi", step=3)
    for path, seconds in ((raw, 0.1), (tmp_path / "v.avi", 0.04), (tmp_path / "null.avi", 0.12)):
        assert timeline._times(coviar.read_index(path)) == pytest.approx(np.arange(40) * seconds)
    found, _ = moments(raw)
    assert [moment.start for moment in found] == [0, 1, 2, 3] and found[-1].end == 4


@pytest.mark.parametrize(("every", "seconds"), [(9, 0.5), (3, 0.5), (3.5, 0.1)])
def test_memory_depends_on_the_window_not_on_the_time_between(film, monkeypatch, every, seconds):
    held, add = [], live._Recent.add

    def counting(recent, *arguments):
        add(recent, *arguments)
        gops = [gop for gop in recent.gops.values() if isinstance(gop, list)]
        held.append((sum(map(len, gops)), len(recent.times)))

    monkeypatch.setattr(live._Recent, "add", counting)
    assert list(stream_windows(str(film), every, seconds, 3, SIZE, 12))
    assert len(held) == 100
    # The window, the GOP it begins in and the one after it; three of 12 where it is 0.5 s or less.
    assert max(pictures for pictures, _ in held) <= 3 * (middle_position(12) + 1)
    assert max(times for _, times in held) <= 3 * 12


@pytest.mark.parametrize("every", [0.2, 0.4, 1.2])
def test_round_off_moves_no_picture_to_another_window(tmp_path, every):
    """10.04 s of 25 pictures per second: edges at pictures, and at the last one."""
    frames = (np.full((16, 16, 3), 40 + 10 * (t % 20), np.uint8) for t in range(251))
    film = write_video(tmp_path / "film.mp4", frames, "libx264", "mp4", gop=20, bf="0")
    index = coviar.source_index.read_source_index(film, (16, 16))
    crop = timeline.fixed_boxes(16, 16, 1)[0]
    read = list(timeline._file_windows(index, index.seconds, every, every, 3))
    streamed = list(stream_windows(str(film), every, every, 3, (16, 16), 12, "stretch", crop))
    frames_in = [range(251)[slice(*pictures_between(index.seconds, w.start, w.end))] for w in read]
    exact = [[t for t in range(251) if t * 10 // round(250 * every) == n] for n in range(len(read))]
    assert [list(pictures) for pictures in frames_in] == exact and sum(map(len, exact)) == 251
    assert len(read) == len(streamed)
    for one, other in zip(read, streamed):
        assert one[:2] == other[:2] and one.problem is other.problem is None
        assert all(np.array_equal(*pair) for pair in zip(one.clip, other.clip))


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001)])
def test_a_clock_that_ran_for_hours_is_exact(rate):
    """Times are those of the file, also after a jump of the source's clock."""
    clock = live._Clock(SimpleNamespace(average_rate=rate))
    for n in range(100_000):
        jump = 90_000_000 if n >= 50_000 else 0
        frame = SimpleNamespace(pts=round(n * 90_000 / rate) + jump, time_base=Fraction(1, 90_000))
        found = clock.tell(frame)
    # The jump counts as one picture; the clock of the source rounds the time of each.
    assert found == pytest.approx(float(n / rate), abs=1 / 90_000)
    assert rate != 25 or found == n / 25


def test_one_window_over_all_is_the_clip_that_is_tested():
    for length in range(1, 200, 7):
        lengths = [12] * (length // 12) + [length % 12] * (length % 12 > 0)
        expected = segment_positions(lengths, 8)
        middles = middle_pictures(0, length, 8)
        assert expected == [(n // 12, middle_position(lengths[n // 12])) for n in middles]


def test_a_damaged_window_is_named_and_the_others_go_on(film, tmp_path, capsys):
    path = damage(film, tmp_path / "damaged.mkv", 40)  # the key at 1.6 s
    found, _ = moments(path)
    assert [m.problem is None for m in found].count(False) in (1, 2)
    assert found[0].problem is None and found[3].problem is None
    assert "cannot be decoded" in "".join(m.problem or "" for m in found)
    tally = Tally()
    write_timeline(Timeline(Judge(), str(path), 1, 1, COSTS), str(path), tally, "json")
    printed = capsys.readouterr()
    lines = list(map(json.loads, printed.out.splitlines()))
    assert [line for line in lines if "error" in line] and tally.failed
    assert f"failed: {path}: 0:00:01.0 to 0:00:02.0" in printed.err


def test_lines_are_merged_and_smoothed():
    given = [Moment(k, k + 1, label, 0.5, "exit1", 2.0) for k, label in enumerate("aab")]
    bad = Moment(3, 4, problem="damaged")
    found = list(merge([*given, bad, Moment(4, 5, "b", 1.0, "full", 4.0)]))
    assert [(m.start, m.end, m.label, m.windows) for m in found] == [
        (0, 2, "a", 2),
        (2, 3, "b", 1),
        (3, 4, None, 1),
        (4, 5, "b", 1),
    ]
    given = [Moment(0, 1, "a", 0.4, "exit1", 2.0), Moment(1, 2, "a", 0.8, "full", 4.0)]
    (one,) = merge(given)
    assert one.point == "several"
    assert (one.probability, one.gmacs) == pytest.approx((0.6, 3.0))


def test_smoothing_is_the_mean_of_the_last_windows(film):
    found, _ = moments(film, smooth=2)
    assert [m.probability for m in found] == [1.0, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("undecided", [False, True])
def test_a_failed_window_counts_as_one_of_those_smoothed(film, undecided):
    """It cannot be decoded, or its output is not finite."""
    windows = list(Timeline(Judge(), str(film), 1, 1, COSTS).windows)
    labels = [moment.label for moment in moments(film)[0]]
    for failed in range(4):
        known = [[labels[k] for k in range(max(n - 2, 0), n + 1) if k != failed] for n in range(4)]
        del known[failed]
        expected = [max(map(own.count, own)) / len(own) for own in known]
        film_in_time = Timeline(Judge(), str(film), 1, 1, COSTS, smooth=3)
        film_in_time.windows = iter(windows)
        decide, judge = film_in_time.predictor.decide, film_in_time.predictor

        def fail(clip, failed=failed, decide=decide, judge=judge):
            if len(judge.clips) == failed:
                judge.clips.append(None)
                raise ValueError("not finite")
            return decide(clip)

        if undecided:
            judge.decide = fail
        else:
            bad = Window(failed, failed + 1, None, "damaged")
            film_in_time.windows = iter([*windows[:failed], bad, *windows[failed + 1 :]])
        found = [m.probability for m in film_in_time if not m.problem]
        assert found == pytest.approx(expected)


def test_csv_and_picture(film, tmp_path, capsys):
    tally, drawn = Tally(), tmp_path / "strip.png"
    write_timeline(Timeline(Judge(), str(film), 1, 1, COSTS), "a, b", tally, "csv", False, drawn)
    (row, *_) = csv.reader(capsys.readouterr().out.splitlines())
    assert row[:4] == ["a, b", "0.0", "1.0", "dark"]
    assert drawn.read_bytes()[:4] == b"\x89PNG"
    assert tally.result["windows"] == 4 and tally.result["video_s"] == pytest.approx(4, abs=0.05)


def test_sources():
    assert is_live("-") and is_live("rtsp://camera/1") and is_live("/dev/zero")
    assert not is_live("film.mp4") and not is_live("C:film.mp4")
    with pytest.raises(ValueError, match="begin with one of http"):
        is_live("concat://a")
    assert time_text(3725.96) == "1:02:06.0"


def test_a_playlist_does_not_open_files(film, tmp_path):
    (tmp_path / "list").write_text(f"#EXTM3U\n#EXTINF:1,\nfile://{film}\n#EXT-X-ENDLIST\n")
    os.mkfifo(tmp_path / "pipe")
    writer = subprocess.Popen(["cp", str(tmp_path / "list"), str(tmp_path / "pipe")])
    try:
        with pytest.raises(ValueError, match="cannot be read as a stream"):
            list(stream_windows(str(tmp_path / "pipe"), 1, 1, 3, SIZE, 12))
        writer.wait(30)
    finally:
        writer.kill()


ENDLESS = """
import sys
from types import SimpleNamespace
import torch, predict
from tests.test_timeline import Judge, COSTS
args = SimpleNamespace(json=True, csv=False, window=1, every=1, smooth=1, merge=False,
                       precision="fp32")
sys.exit(predict.predict_timelines(args, ["-"], {}, Judge(), COSTS))
"""


def test_a_pipe_gives_lines_as_they_come_and_ends_at_ctrl_c(film, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS],
        cwd=REPO,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        preexec_fn=heed_interrupts,
    )
    process.stdin.write(film.read_bytes())
    process.stdin.flush()  # and it stays open
    lines = [json.loads(process.stdout.readline()) for _ in range(2)]
    assert [line["start_s"] for line in lines] == [0, 1]
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert b"stopped" in process.stderr.read()
    process.stdin.close()


def test_a_source_that_ends_in_an_error_keeps_what_was_done(film):
    def windows():
        yield Window(0, 1, None, "damaged")
        raise ValueError("the source ended")

    found = []
    with pytest.raises(ValueError, match="the source ended"):
        found.extend(timeline._ahead(windows()))
    taken = timeline._ahead(windows())
    assert next(taken).problem == "damaged"


def test_windows_are_read_no_further_when_nobody_takes_them():
    def windows():
        for start in itertools.count():
            yield Window(start, start + 1, None, "damaged")

    before = set(threading.enumerate())
    taken = timeline._ahead(windows())
    assert next(taken).start == 0
    (reader,) = set(threading.enumerate()) - before
    taken.close()
    reader.join(30)
    assert not reader.is_alive()


def test_a_strip_that_cannot_be_written_is_named_and_the_lines_stay(film, tmp_path, capsys):
    drawn = tmp_path / "strip.png"
    drawn.mkdir()
    args = SimpleNamespace(json=True, csv=False, window=1, every=1, smooth=1, merge=False)
    assert predict.predict_timelines(args, [film], {film: drawn}, Judge(), COSTS) == 1
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 4 and all("label" in line for line in lines)
    assert f"failed: picture {drawn}: Is a directory" in err and str(film) not in err


def test_usage(capsys):
    parser = predict.get_args_parser()
    for words, message in (
        (["a.mp4", "--merge"], "add --every"),
        (["a.mp4", "--every", "1", "--csv", "--json"], "choose one"),
        (["a.mp4", "--every", "0"], "above 0"),
        (["ftp://a"], "addresses begin with"),
        (["a.mp4", "--every", "1", "--top", "5"], "--top and --read-ahead are for whole videos"),
        (["-", "--read-ahead", "0"], "--top and --read-ahead are for whole videos"),
    ):
        with pytest.raises(SystemExit):
            predict.main(parser.parse_args([*words, "--checkpoint", "x"]), parser)
        assert message in capsys.readouterr().err
