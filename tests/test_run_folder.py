"""Run folders: nothing is overwritten without --overwrite, a resumed log has each epoch once."""

import json

import pytest

from early_exit.logits import LOGITS_NAME
from early_exit.policy import POLICY_NAME
from early_exit.wise_file import WISE_NAME
from study.columns import RUN_COLUMNS
from study.policies import ROUTE_FOLDER
from training.provenance import environment
from training.run_folder import RunFolder


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
