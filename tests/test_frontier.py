"""The table and figure of all ways to a label, from studies of several backbones."""

import json

import pandas as pd
import pytest

from study import frontier, probes
from study.columns import STUDY_COLUMNS
from tests.calls import call, refused

RUN = {"data": "toy", "seed": 1, "method": "prog_kd", "part": "test"}
METHODS = ["prog_kd", "team_ce"]


def write_study(folder, splits, gain=0.0):
    folder.mkdir()
    exits, points, backbones = [], [], []
    for number, split in enumerate(splits):
        top1 = 50.0 + 10 * number + gain
        for seed in (1, 2):
            row = {**RUN, "split": split, "seed": seed, "combination": "vanilla"}
            exits.append({**row, "exit": "exit1", "top1_pct": top1 + seed, "gmacs": 0.5})
            exits.append({**row, "exit": "full", "top1_pct": 90.0, "gmacs": 3.0})
            exits.append({**row, "exit": "full", "combination": "wise", "top1_pct": 0.0})
            exits.append({**row, "exit": "full", "method": "team_ce", "top1_pct": 0.0})
        row = {**RUN, "split": split, "evidence": "logits"}
        for point, gmacs in (("full@1", 0.4), ("full", 3.0), ("mv@8", 1.0), ("exit1@8", 0.5)):
            points.append({**row, "point": point, "top1_pct": top1, "gmacs": gmacs})
        points.append({**row, "evidence": "probability", "point": "full@1", "top1_pct": 0.0})
        probe = {**RUN, "split": split, "method": "i_frame_probe", "output": "fused"}
        backbones.append({**probe, "top1_pct": top1 - 5, "gmacs": 1.0})
    pd.DataFrame(exits).reindex(columns=STUDY_COLUMNS["exits.csv"]).to_csv(
        folder / "exits.csv", index=False
    )
    runs = [{**RUN, "split": split, "seed": seed} for split in splits for seed in (1, 2)]
    runs = [{**run, "method": name, "protocol": "1 clip"} for run in runs for name in METHODS]
    pd.DataFrame(runs).reindex(columns=STUDY_COLUMNS["runs.csv"]).to_csv(
        folder / "runs.csv", index=False
    )
    pd.DataFrame(points).to_csv(folder / "points.csv", index=False)
    pd.DataFrame(backbones).to_csv(folder / "backbones.csv", index=False)
    return folder


def test_means_are_over_the_backbones_of_all_studies(tmp_path, capsys):
    first = write_study(tmp_path / "a", ["split1", "split2"])
    second = write_study(tmp_path / "b", ["split1"], gain=40.0)
    out, figures = tmp_path / "frontier.csv", tmp_path / "figures"
    call(frontier, first, second, "--out", out, "--figures", figures)
    rows = pd.read_csv(out).set_index(["family", "way"])
    assert sorted(rows.index) == [
        *(("depth", "exit1"), ("depth", "full"), ("probe", "i_frame_probe")),
        *(("segments", "full"), ("segments", "full@1"), ("streams", "mv@8")),
    ]
    exit1 = rows.loc[("depth", "exit1")]  # 51.5, 61.5 and 91.5
    assert (exit1.top1_pct, exit1.backbones, exit1.gmacs) == (pytest.approx(68.166667), 3, 0.5)
    assert exit1.std_over_backbones_pct == pytest.approx(20.816660)
    assert rows.loc[("segments", "full@1")].top1_pct == pytest.approx(200 / 3)
    assert rows.loc[("probe", "i_frame_probe")].top1_pct == pytest.approx(185 / 3)
    assert "68.2 ± 20.8" in capsys.readouterr().out
    assert sorted(path.name for path in figures.iterdir()) == ["frontier.pdf", "frontier.png"]


def write_probe(folder, split, frames, top1):
    run = folder / f"probes/{frames}/toy/i_frame_probe/{split}_seed1"
    run.mkdir(parents=True)
    args = {"data_name": "toy", "split": split, "random_seed": 1, "num_segments": frames}
    result = {"test_top1_pct": top1, "gmacs": 0.1 * frames, "test_videos": 9, "protocol": ""}
    for name, content in {"args": args, "env": {"command": ""}, "result": result}.items():
        (run / f"{name}.json").write_text(json.dumps(content))
    return run


def test_probes_on_fewer_frames_stand_beside(tmp_path, capsys):
    study = write_study(tmp_path / "a", ["split1", "split2"])
    runs = [write_probe(tmp_path, *probe) for probe in (("split1", 1, 30), ("split2", 1, 40))]
    runs.append(write_probe(tmp_path, "split1", 2, 50))
    call(probes, *runs, "--out", study / "probes.csv")
    places = ["--out", tmp_path / "frontier.csv", "--figures", tmp_path / "figures"]
    call(frontier, study, *places)
    rows = pd.read_csv(tmp_path / "frontier.csv").set_index("way")
    rows = rows[rows["family"] == "probe"]
    assert rows["top1_pct"].to_dict() == {
        **{"i_frame_probe": 50, "i_frame_probe@1": 35, "i_frame_probe@2": 50},
    }
    assert rows["backbones"].to_dict() == {
        **{"i_frame_probe": 2, "i_frame_probe@1": 2, "i_frame_probe@2": 1},
    }
    assert rows.loc["i_frame_probe@2"].gmacs == pytest.approx(0.2)
    (runs[0] / "result.json").unlink()
    for bad, words in {runs[0]: "no result.json yet", study: "no run folder of train_i"}.items():
        assert words in refused(capsys, probes, bad, "--out", tmp_path / "none.csv")


def test_what_is_missing_is_named(tmp_path, capsys):
    study = write_study(tmp_path / "a", ["split1"])
    places = ["--out", tmp_path / "x.csv", "--figures", tmp_path / "figures"]

    def message(*words):
        with pytest.raises(SystemExit) as error:
            call(frontier, *words, *places)
        assert error.value.code == 2 and not (tmp_path / "x.csv").exists()
        return capsys.readouterr().err

    assert "exits.csv has no test rows of i_frame" in message(study, "--method", "i_frame")
    (study / "points.csv").unlink()
    assert "points.csv is missing" in message(study)
    other = write_study(tmp_path / "b", ["split1"])
    for name in ("exits.csv", "points.csv", "backbones.csv", "runs.csv"):
        (other / name).write_text((other / name).read_text().replace("toy", "clay"))
    third = write_study(tmp_path / "c", ["split1"])
    assert "several data sets: clay, toy" in message(other, third)
