"""study.top1: means over backbones, not over runs, with the baselines beside."""

import pandas as pd
import pytest

from study import (
    compare,
    confusions,
    drops,
    frontier,
    label_gain,
    probes,
    teacher_order,
    top1,
)
from study.columns import STUDY_COLUMNS
from tests.calls import call, refused
from training.provenance import command_line

RUN = {"data": "toy", "seed": 1, "method": "prog_kd", "part": "test", "combination": "vanilla"}
GMACS = {"exit1": 0.25, "exit10": 0.5, "full": 1.0}


def write_study(folder, split, top1_of_seeds):
    """Exits as accurate as said for each seed; the full network has 90 %."""
    folder.mkdir(parents=True)
    exits = []
    for seed, right in enumerate(top1_of_seeds):
        for point, gmacs in GMACS.items():
            row = {**RUN, "split": split, "seed": seed, "exit": point, "gmacs": gmacs}
            exits.append({**row, "top1_pct": 90 if point == "full" else right})
            exits.append({**row, "top1_pct": 0, "combination": "wise"})
            exits.append({**row, "top1_pct": 0, "part": "heldout"})
    run = {**RUN, "split": split, "gmacs": 1.0}
    baselines = [
        {**run, "method": "streams", "output": "fused", "top1_pct": 90},
        {**run, "method": "streams", "output": "mv", "top1_pct": 60},
        {**run, "method": "i_frame_probe", "output": "fused", "top1_pct": 40, "gmacs": 0.3},
    ]
    runs = [{**run, "seed": seed, "protocol": "1 clip"} for seed in range(len(top1_of_seeds))]
    tables = {"exits.csv": exits, "backbones.csv": baselines, "runs.csv": runs}
    for name, rows in tables.items():
        table = pd.DataFrame(rows).reindex(columns=STUDY_COLUMNS[name])
        table.to_csv(folder / name, index=False)
    return folder


def test_seeds_are_averaged_before_backbones(tmp_path, capsys):
    first = write_study(tmp_path / "a", "split1", [10, 20, 60])  # 30 of three seeds
    second = write_study(tmp_path / "b", "split1", [50])
    out = tmp_path / "top1.csv"
    call(top1, first, second, "--out", out)
    rows = pd.read_csv(out).set_index(["method", "exit"])
    exit1 = rows.loc[("prog_kd", "exit1")]
    assert (exit1.top1_pct, exit1.backbones, exit1.gmacs) == (40, 2, 0.25)
    assert exit1.std_over_backbones_pct == pytest.approx(200**0.5)
    assert rows.loc[("i_frame_probe", "full")].gmacs == 0.3
    assert rows.loc[("mv", "full")].top1_pct == 60  # whose cost is not that of the whole network
    assert pd.isna(rows.loc[("mv", "full")].gmacs) and "streams" not in rows.index.levels[0]
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [cell.strip("| ") for cell in lines[0]] == [
        *("method", "exit1", "exit10", "full", "GMACs", "backbones")
    ]
    assert [cell.strip("| ") for cell in lines[-2]] == [
        *("prog_kd", "40.0 ± 14.1", "40.0 ± 14.1", "90.0 ± 0.0", "0.25, 0.50, 1.00", "2")
    ]


def test_streams_of_two_networks_are_kept_apart(tmp_path):
    """Streams alone, and as parts of the network that joins them."""
    folder = write_study(tmp_path / "a", "split1", [10])
    table = pd.read_csv(folder / "backbones.csv")
    joined = table[table["output"] == "mv"].assign(method="team_net", top1_pct=70)
    pd.concat([table, joined]).to_csv(folder / "backbones.csv", index=False)
    call(top1, folder, "--out", tmp_path / "top1.csv")
    rows = pd.read_csv(tmp_path / "top1.csv").set_index("method")
    assert rows.loc["streams mv", "top1_pct"] == 60 and rows.loc["team_net mv", "top1_pct"] == 70


def test_a_table_says_its_command(tmp_path):
    study = write_study(tmp_path / "a", "split1", [50])
    call(top1, study, "--out", tmp_path / "top1.md")
    text = (tmp_path / "top1.md").read_text(encoding="utf-8")
    assert "| prog_kd " in text and f"\n    {command_line()}\n" in text


def test_what_cannot_be_averaged_is_refused(tmp_path, capsys):
    study, out = write_study(tmp_path / "a", "split1", [50]), ["--out", tmp_path / "top1.csv"]
    other = write_study(tmp_path / "b", "split1", [50])
    for name in ("exits.csv", "backbones.csv", "runs.csv"):
        (other / name).write_text((other / name).read_text().replace("toy", "clay"))
    assert "several data sets: toy, clay" in refused(capsys, top1, study, other, *out)
    (other / "exits.csv").unlink()
    assert "exits.csv is missing" in refused(capsys, top1, other, *out)
    assert not (tmp_path / "top1.csv").exists()


@pytest.mark.parametrize("script", [top1, frontier, teacher_order, probes])
def test_a_folder_counts_once(tmp_path, capsys, script):
    study = write_study(tmp_path / "a", "split1", [50])
    figures = ["--figures", tmp_path] if script is frontier else []
    again = tmp_path / "a/../a"
    words = refused(capsys, script, study, again, "--out", tmp_path / "x.csv", *figures)
    assert f"{again} holds what {study} holds" in words


@pytest.mark.parametrize("script", [top1, frontier])
def test_runs_of_another_protocol_are_not_averaged(tmp_path, capsys, script):
    first = write_study(tmp_path / "a", "split1", [50, 60])
    second = write_study(tmp_path / "b", "split2", [50])
    for study, gmacs in ((first, 0.25), (second, 0.5)):
        points = {**RUN, "evidence": "logits", "point": "full@1", "top1_pct": 9, "gmacs": gmacs}
        pd.DataFrame([{**points, "split": study.name}]).to_csv(study / "points.csv", index=False)
    figures = ["--figures", tmp_path] if script is frontier else []
    how = ["--out", tmp_path / "x.csv", *figures]
    text = (second / "exits.csv").read_text()
    (second / "exits.csv").write_text(text.replace("0.25", "0.75"))
    words = refused(capsys, script, first, second, *how)
    assert f"exit1 costs other GMACs in {second} than in {first}" in words
    runs = pd.read_csv(first / "runs.csv")
    runs.loc[0, "protocol"] = "4 clips"
    runs.to_csv(first / "runs.csv", index=False)
    words = refused(capsys, script, first, *how)
    assert f"{first}: the runs of toy prog_kd have other exits, GMACs or protocols" in words


SCRIPTS = [compare, confusions, drops, frontier, label_gain, probes, teacher_order, top1]
OPTIONS = {
    compare: ["--pair", "a/vanilla", "b/vanilla"],
    confusions: ["--first", 2],
    frontier: ["--figures", "new"],
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_table_that_cannot_be_written_is_named_before_the_work(tmp_path, capsys, script):
    (tmp_path / "file").touch()
    (tmp_path / "folder.csv").mkdir()
    for out, named in (("file/a.csv", "file"), ("folder.csv", "folder.csv")):
        options = [*OPTIONS.get(script, []), "--out", tmp_path / out]
        words = refused(capsys, script, tmp_path / "there is nothing", *options)
        assert f"cannot read or write {tmp_path / named}: " in words
