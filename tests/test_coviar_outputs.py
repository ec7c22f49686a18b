"""What a second run of the re-encoder keeps, makes anew and refuses: an output is of one input."""

import json
import os
import shutil
from functools import partial

import pytest

import coviar
import coviar.reencode
from tests.calls import call
from tests.coviar_videos import pictures, write_video

run = partial(call, coviar.reencode)
SMALL = ("--size", "64x48", "--workers", "1")


def result_of(capsys):
    printed = capsys.readouterr()
    return json.loads(printed.out.split("result: ")[1]), printed.err


def make_inputs(folder, counts):
    """Videos whose numbers of pictures tell them apart."""
    for name, count in counts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(folder / name, pictures(count), container="avi")
    return folder


def lengths(folder):
    return {
        path.relative_to(folder).as_posix(): coviar.get_num_frames(path)
        for path in sorted(folder.rglob("*.mp4"))
    }


@pytest.mark.parametrize("way", ["folders", "one name in two places", "files"])
def test_another_input_of_the_same_name_is_an_error(tmp_path, capsys, monkeypatch, way):
    first = make_inputs(tmp_path / "1/in", {"Jump/a.avi": 3})
    second = make_inputs(tmp_path / "2/in", {"Jump/a.avi": 4, "Jump/b.avi": 5})
    out, name = tmp_path / "out", "Jump/a"
    if way == "files":
        first, second, name = first / "Jump/a.avi", second / "Jump/a.avi", "a"
    for source, code in ((first, 0), (second, 1), (second, 1), (first, 0)):
        if way == "one name in two places":
            monkeypatch.chdir(source.parent)
            source = source.name
        assert run(source, out, *SMALL) == code
        result, error = result_of(capsys)
        assert lengths(out)[f"{name}.mp4"] == 3 and result["failed"] == code
        if code:
            assert (
                f"{out / name}.mp4 was made of another video, {tmp_path}/1/in/Jump/a.avi" in error
            )
            assert "in/Jump/a.avi: " in error and "use another OUT" in error
    assert way == "files" or lengths(out)["Jump/b.mp4"] == 5


def test_what_is_salvaged_is_told_and_is_made_anew_of_a_whole_file(tmp_path, capsys):
    source = make_inputs(tmp_path / "in", {"cut.avi": 40, "whole.avi": 3})
    out, whole = tmp_path / "out", (source / "cut.avi").read_bytes()
    (source / "cut.avi").write_bytes(whole[: len(whole) // 3])
    for encoded, kept in ((2, 0), (0, 2)):
        assert run(source, out, *SMALL, "--keep-damaged") == 0
        result, error = result_of(capsys)
        assert (result["encoded"], result["kept"], result["salvaged"]) == (encoded, kept, 1)
        assert f"salvaged: 1 video(s) in part: first {source / 'cut.avi'}: the file is cut" in error
        outputs = json.loads((out / "reencode.json").read_text())["outputs"]
        assert (
            "cut off" in outputs["cut.mp4"]["salvaged"] and "salvaged" not in outputs["whole.mp4"]
        )
        assert outputs["cut.mp4"]["input"] == str(source / "cut.avi")
    in_part = lengths(out)["cut.mp4"]
    assert 0 < in_part < 40
    assert run(source, out, *SMALL) == 1
    result, error = result_of(capsys)
    assert (result["kept"], result["failed"], lengths(out)["cut.mp4"]) == (1, 1, in_part)
    shutil.copytree(out, tmp_path / "out2")
    (source / "cut.avi").write_bytes(whole)
    for target, options in ((out, ()), (tmp_path / "out2", ("--keep-damaged",))):
        assert run(source, target, *SMALL, *options) == 0
        result, error = result_of(capsys)
        assert lengths(target) == {"cut.mp4": 40, "whole.mp4": 3} and result["salvaged"] == 0
        assert f"changed: 1 video(s), encoded anew: first {source / 'cut.avi'}" in error
        assert run(source, target, *SMALL) == 0
        assert result_of(capsys)[0]["kept"] == 2


def test_a_copied_or_moved_data_set_is_kept(tmp_path, capsys):
    source = make_inputs(tmp_path / "in", {"A/a.avi": 3, "A/b.avi": 4})
    out = tmp_path / "out"
    assert run(source, out, *SMALL) == 0
    capsys.readouterr()
    os.utime(source / "A/a.avi", (1, 1))
    assert run(source, out, *SMALL) == 0
    assert result_of(capsys)[0]["kept"] == 2
    shutil.copytree(source, tmp_path / "copy", copy_function=shutil.copyfile)
    assert run(tmp_path / "copy", out, *SMALL) == 0
    assert result_of(capsys)[0]["kept"] == 2
    source.rename(tmp_path / "moved")
    assert run(tmp_path / "moved", out, *SMALL) == 0
    assert result_of(capsys)[0]["kept"] == 2


def test_what_an_older_version_made_is_kept(tmp_path, capsys):
    source = make_inputs(tmp_path / "in", {"a.avi": 3})
    out = tmp_path / "out"
    assert run(source, out, *SMALL) == 0
    report = json.loads((out / "reencode.json").read_text())
    del report["outputs"]
    (out / "reencode.json").write_text(json.dumps(report))
    make_inputs(source, {"a.avi": 5, "b.avi": 4})
    capsys.readouterr()
    assert run(source, out, *SMALL) == 0
    assert result_of(capsys)[0]["kept"] == 1 and lengths(out) == {"a.mp4": 3, "b.mp4": 4}


def test_a_run_that_is_stopped_has_told_its_inputs(tmp_path, capsys, monkeypatch):
    source = make_inputs(tmp_path / "1", {"a.avi": 3, "b.avi": 4, "c.avi": 5})
    other = make_inputs(tmp_path / "2", {"z.avi": 3, "a.avi": 6})
    (source / "a.avi").write_bytes((source / "a.avi").read_bytes()[:-200])
    whole = coviar.reencode.reencode

    def stop(path, *rest):
        if path.name == "c.avi":
            run(other / "z.avi", tmp_path / "out", *SMALL)  # another run, meanwhile
            raise KeyboardInterrupt
        return whole(path, *rest)

    monkeypatch.setattr(coviar.reencode, "reencode", stop)
    assert run(source, tmp_path / "out", *SMALL, "--keep-damaged") == 130
    monkeypatch.undo()
    outputs = json.loads((tmp_path / "out/reencode.json").read_text())["outputs"]
    assert set(outputs) == {"a.mp4", "b.mp4", "c.mp4", "z.mp4"} and outputs["a.mp4"]["salvaged"]
    capsys.readouterr()
    assert run(other, tmp_path / "out", *SMALL) == 1
    assert "was made of another video" in result_of(capsys)[1]


@pytest.mark.parametrize("outputs", [3, [], {"a.mp4": 3}, None])
def test_a_report_whose_outputs_are_no_outputs_is_named(tmp_path, capsys, outputs):
    source = make_inputs(tmp_path / "in", {"a.avi": 3})
    assert run(source, tmp_path / "out", *SMALL) == 0
    report = json.loads((tmp_path / "out/reencode.json").read_text())
    (tmp_path / "out/reencode.json").write_text(json.dumps({**report, "outputs": outputs}))
    with pytest.raises(SystemExit):
        run(source, tmp_path / "out", *SMALL)
    assert "reencode.json is not as this script writes it" in capsys.readouterr().err
