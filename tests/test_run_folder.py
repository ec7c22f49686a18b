"""Run folders: nothing is overwritten without --overwrite, a resumed log has each epoch once."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from early_exit.logits import LOGITS_NAME
from early_exit.policy import POLICY_NAME
from early_exit.wise_file import WISE_NAME
from study.columns import RUN_COLUMNS
from study.policies import ROUTE_FOLDER
from training.provenance import environment
from training.run_folder import MADE_BY_RUN, RunFolder


def run_folder(path, defaults=None, **changes):
    options = {"lr": 0.1, "workers": 2, "resume": False, "overwrite": False}
    return RunFolder(path, {**options, **changes}, defaults or {})


@pytest.fixture
def folder(tmp_path):
    return run_folder(tmp_path / "run")


def open_folder(folder, **changes):
    folder = run_folder(folder.path, **changes)
    folder.check()
    folder.start()
    folder.release()


def test_a_machine_without_git_is_no_error(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert environment()["commit"] is None


def test_first_start_records_arguments_and_environment(folder):
    open_folder(folder)
    assert json.loads((folder.path / "args.json").read_text())["lr"] == 0.1
    assert json.loads((folder.path / "env.json").read_text())["torch"]


def test_second_start_is_refused(folder):
    open_folder(folder)
    with pytest.raises(ValueError, match="already holds a run; --resume"):
        open_folder(folder)


def test_resume_with_other_options_is_refused(folder):
    open_folder(folder)
    with pytest.raises(ValueError, match="--lr: was 0.1, now 0.2"):
        open_folder(folder, lr=0.2, resume=True)


def test_resume_may_change_what_changes_no_result(folder):
    open_folder(folder)
    open_folder(folder, workers=8, resume=True)


def test_a_run_from_before_an_option_was_there_has_its_default(folder):
    open_folder(folder)
    run_folder(folder.path, {"new": 1}, resume=True, new=1).check()
    with pytest.raises(ValueError, match="--new: was 1, now 2"):
        run_folder(folder.path, {"new": 1}, resume=True, new=2).check()


@pytest.mark.parametrize("name", [*MADE_BY_RUN, "result.json last.pt"])
@pytest.mark.parametrize("flags", [{}, {"resume": True}])
def test_files_that_do_not_say_how_they_were_made_are_not_this_run(folder, name, flags):
    folder.path.mkdir()
    for each in name.split():
        (folder.path / each).write_text("{}")
    with pytest.raises(ValueError, match=f"{name.split()[0]}.* and no args.json, .*--overwrite"):
        run_folder(folder.path, **flags).finished()
    open_folder(folder, overwrite=True)
    assert {path.name for path in folder.path.iterdir()} == {"args.json", "env.json", "lock"}


def test_overwriting_leaves_no_files_of_an_unknown_run_when_it_is_killed(folder, monkeypatch):
    """Whatever has gone by then, the folder still says which run the rest was of."""
    open_folder(folder)
    for name in MADE_BY_RUN:
        (folder.path / name).write_text("{}")
    unlink, gone = Path.unlink, []

    def unlink_and_look(path, missing_ok=False):
        unlink(path, missing_ok=missing_ok)
        gone.append(path.name)
        left = [name for name in MADE_BY_RUN if (folder.path / name).is_file()]
        assert not left or (folder.path / "args.json").is_file(), left

    monkeypatch.setattr(Path, "unlink", unlink_and_look)
    open_folder(folder, overwrite=True)
    assert {*MADE_BY_RUN, "args.json"} <= set(gone)


def videos(**digests):
    return SimpleNamespace(digests={"train": "0", "heldout": "1", "test": "2", **digests})


@pytest.mark.parametrize("part", ["train", "heldout", "test", "unlabelled"])
def test_a_resumed_run_has_the_videos_it_began_with(folder, part):
    folder.record_videos(videos())
    folder.start()
    folder.release()
    for changes in ({}, {part: "other"}):
        again = run_folder(folder.path, resume=True)
        again.finished()  # before the videos are known
        again.record_videos(videos(**changes))
        if not changes:
            again.check()
            continue
        with pytest.raises(ValueError, match=f"other {part} videos than then, in --data-root"):
            again.start()
        again.release()


def test_a_run_from_before_videos_were_recorded_goes_on(folder):
    open_folder(folder)
    again = run_folder(folder.path, resume=True)
    again.record_videos(videos())
    again.check()


@pytest.mark.parametrize("name", ["args.json", "result.json"])
@pytest.mark.parametrize("content", [b"", b'{"lr": 0.', b"\xff", b"[1]"])
def test_a_damaged_file_is_named_with_a_remedy(folder, name, content):
    open_folder(folder)
    (folder.path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is damaged, .*; --overwrite starts again"):
        run_folder(folder.path, resume=True).finished()


def test_overwrite_clears_the_run(folder):
    open_folder(folder)
    folder.finish({"top1": 1})
    open_folder(folder, lr=0.2, overwrite=True)
    assert folder.result is None
    assert json.loads((folder.path / "args.json").read_text())["lr"] == 0.2


def test_overwrite_clears_what_was_made_of_the_run_and_nothing_else(folder):
    open_folder(folder)
    names = {LOGITS_NAME, WISE_NAME, POLICY_NAME, *RUN_COLUMNS, "notes.txt"}
    places = (folder.path, folder.path / ROUTE_FOLDER)
    for place in places:
        place.mkdir(exist_ok=True)
        for name in names:
            (place / name).write_text("old")
    open_folder(folder, resume=True)
    assert all((place / name).is_file() for place in places for name in names)
    open_folder(folder, overwrite=True)
    left = {path.relative_to(folder.path).as_posix() for path in folder.path.rglob("*.*")}
    assert left == {"args.json", "env.json", "notes.txt", "over_time/notes.txt"}


def test_leftovers_of_killed_writers_go(folder):
    open_folder(folder)
    for name in (".last.abc.pt", ".log.abc.jsonl", ".args.abc.json"):
        (folder.path / name).write_bytes(b"half")
    (folder.path / ".logits.abc.pt").write_bytes(b"another script's")
    open_folder(folder, resume=True)
    assert [path.name for path in folder.path.glob(".*")] == [".logits.abc.pt"]


def test_tensorboard_has_the_numbers_of_every_exit(folder, monkeypatch):
    written = []
    folder.path.mkdir()
    folder.start_log(0, tensorboard=False)
    writer = SimpleNamespace(add_scalar=lambda *scalar: written.append(scalar))
    monkeypatch.setattr(folder, "_tensorboard", writer)
    folder.log({"epoch": 3, "losses": [1.5, 0.5], "teacher": "mv"})
    assert written == [("epoch", 3, 3), ("losses/1", 1.5, 3), ("losses/2", 0.5, 3)]


def test_log_keeps_only_the_epochs_of_the_checkpoint(folder):
    folder.path.mkdir()
    folder.start_log(0, tensorboard=False)
    for epoch in range(3):
        folder.log({"epoch": epoch, "loss": 1.0})
    folder.start_log(2, tensorboard=False)
    folder.log({"epoch": 2, "loss": 0.5})
    lines = [json.loads(line) for line in (folder.path / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert lines[2]["loss"] == 0.5
