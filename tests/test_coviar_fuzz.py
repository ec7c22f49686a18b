"""The fuzz run at small scale, that it can fail, and the loader benchmark's line."""

import json
import subprocess
import sys

import pytest

from tests import fuzz_loader
from tests.conftest import REPO
from tests.coviar_videos import pictures, write_video


def run(*arguments):
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True)


def test_mutated_videos_give_arrays_or_documented_errors():
    done = run("tests.fuzz_loader", "--cases", 400, "--seed", 1)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1].removeprefix("result: "))
    assert result["failures"] == 0
    assert min(result[key] for key in ("arrays", "arrays, warned", "ValueError")) > 20
    assert result["arrays"] + result["arrays, warned"] + result["ValueError"] == 400


def test_cases_are_a_function_of_their_number(tmp_path):
    videos = fuzz_loader.make_seeds(tmp_path)
    cases = [fuzz_loader.mutate(case, 3, videos) for case in range(200)]
    assert cases == [fuzz_loader.mutate(case, 3, videos) for case in range(200)]
    assert {name for name, _ in cases} == {m.__name__ for m in fuzz_loader.MUTATIONS}


def test_wrong_arrays_are_noticed(tmp_path, monkeypatch):
    path = write_video(tmp_path / "v.mp4", pictures(3))
    assert fuzz_loader.load_everything(path) == "arrays"
    load_clip = fuzz_loader.coviar.load_clip
    monkeypatch.setattr(
        fuzz_loader.coviar, "load_clip", lambda path, places, **more: load_clip(path, places)
    )
    with pytest.raises(AssertionError):  # int16 where uint8 was asked for
        fuzz_loader.load_everything(path)


def test_a_child_that_dies_is_noticed(tmp_path):
    child = fuzz_loader.Child(0, fuzz_loader.make_seeds(tmp_path), str(tmp_path))
    assert child.run(0, 120) is not None
    child.process.kill()
    child.process.join()
    with pytest.raises((BrokenPipeError, AssertionError)):
        assert child.run(1, 1) is not None


def test_benchmark_prints_its_line(tmp_path):
    path = write_video(tmp_path / "v.mp4", pictures(20))
    done = run("benchmarks.loader", path, "--repeats", 2, "--clips", 4)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert min(line["decode_ms"], line["load_clip_ms"], line["sample_ms"]) > 0
    for name in ("load_clip_ratio", "sample_ratio"):
        assert line[f"{name}_worst"] == line[f"{name}_median"] > 0  # there is one video
    assert line["machine"] and line["cpu_capability"]
    assert 1 <= line["frames"] <= 20 and line["private_mb"] < line["rss_mb"]
    assert line["clips_per_s_1"] > 0 and line["workers_ratio"] > 0
