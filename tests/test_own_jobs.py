"""Scripts in multirunner that run the jobs they make (own_jobs.sh)."""

import pytest

from tests.printed_jobs import MULTIRUNNER, parse
from tests.shell_jobs import calls, run, stub_of_python

RUN_THEMSELVES = [
    ("demo.sh",),
    ("ucf101_7.sh",),
    ("ucf101_7_mobilenet.sh",),
    ("ucf101_7_mobilenet.sh", "--all"),
    ("ucf101_7_tuning.sh",),
    ("second_edition.sh",),
    ("second_edition.sh", "--pools"),
]

own_jobs = pytest.mark.parametrize(
    "command", [*RUN_THEMSELVES, ("ucf101_7_questions.sh",)], ids=" ".join
)


def places_of(folder):
    names = ("VIDEOS", "DATA", "RUNS", "RESULTS")
    return {**stub_of_python(folder), **{name: folder / name for name in names}}


@own_jobs
def test_a_dry_run_does_nothing_in_any_order_of_the_options(command, tmp_path):
    python = places_of(tmp_path)
    out = run(MULTIRUNNER / command[0], *command[1:], "--keep-going", "--dry-run", **python)
    assert "\n+ " in f"\n{out}"
    assert calls(python) == [] and [path.name for path in tmp_path.iterdir()] == ["python_stub"]


@pytest.mark.parametrize("script", ["ucf101_7.sh", "second_edition.sh"])
@pytest.mark.parametrize("words", [("--prepare", "--dry-run"), ("--dry-run", "--prepare")])
def test_a_preparation_has_no_dry_run(script, words, tmp_path):
    python = places_of(tmp_path)
    run(MULTIRUNNER / script, *words, fails=True, **python)
    assert calls(python) == []


@own_jobs
def test_no_job_runs_where_not_all_can_be_made(command, tmp_path):
    python = places_of(tmp_path)
    wrong = {"SPLITS": "split1 ../x"}
    if command[0] == "ucf101_7_mobilenet.sh":  # one job file a split
        wrong = {"SPLITS": "../x"}
    elif command[0] == "demo.sh":
        wrong = {"RUNS": "a\nb"}
    elif command[0] == "second_edition.sh":
        wrong = {"SETS": "jhmdb_21 ../x"}
    said = run(MULTIRUNNER / command[0], *command[1:], fails=True, **{**python, **wrong})
    assert "create_all_jobs.sh: " in said and calls(python) == []
    if command in RUN_THEMSELVES:
        run(MULTIRUNNER / command[0], "--jobs", fails=True, **{**python, **wrong})


@own_jobs
def test_paths_with_blanks_are_refused_or_reach_the_scripts(command, tmp_path):
    """In RUNS, DATA and RESULTS; as a dry run shows them."""
    python = places_of(tmp_path)
    for name in ("RUNS", "DATA", "RESULTS"):
        places = {**python, name: tmp_path / "a b"}
        words = [MULTIRUNNER / command[0], *command[1:], "--dry-run"]
        if command[0] in ("demo.sh", "ucf101_7.sh"):
            out = run(*words, **places)
            assert str(places[name]) in out or (command[0], name) == ("demo.sh", "RESULTS")
        elif command[0] != "ucf101_7_questions.sh" or name == "RUNS":
            said = run(*words, fails=True, **places)
            assert f"{name}='{places[name]}'" in said and "symbolic link" in said


@pytest.mark.parametrize(
    "command", [("ucf101_7_mobilenet.sh",), ("ucf101_7_questions.sh",)], ids=" ".join
)
def test_keep_going_passes_a_group_of_jobs_with_a_failure(command, tmp_path):
    """To all that come after it; without --keep-going they do not run."""
    python = places_of(tmp_path)  # it leaves no results, so each job has failed
    script = MULTIRUNNER / command[0]
    run(script, fails=True, **python)
    first = len(calls(python))
    assert first <= 4  # banks, which say nothing of a result, and one more
    run(script, "--keep-going", fails=True, **python)
    asked = [parse(words) for words in calls(python)[first:]]
    if command[0] == "ucf101_7_mobilenet.sh":
        splits = {args.split for module, args in asked if module == "train_prog_kd"}
        assert splits == {"split1", "split2", "split3"}
    else:
        compared = {args.out.stem for module, args in asked if module == "study.compare"}
        assert {"published", "fp32", "mixup_to_longer"} <= compared
        groups = {args.checkpoint_dir.name for module, args in asked if module == "train_prog_kd"}
        assert groups == {"equal", "chosen", "independent-crops", "longer", "mixup"}
    assert asked[-1][0] in ("study.collect", "benchmarks.recipes")
