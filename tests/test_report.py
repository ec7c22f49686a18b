"""The page's numbers against slow arithmetic, its examples, its messages where data is missing."""

import base64
import csv
import io
import json
import re
import shutil
import statistics
import sys
from collections import Counter

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import torch

from study.report import __main__ as report_script
from study.report.data import section_data
from study.report.examples import WIDTH, choose, pictures
from study.summary import read_study
from tests.calls import call
from tests.coviar_videos import pictures as moving_tiles
from tests.coviar_videos import write_video
from tests.synthetic_study import METHODS, make_run
from tests.tools import lacking


def rows_of(path, **where):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if where.items() <= row.items()]


def mean_std(rows, column):
    numbers = [float(row[column]) for row in rows]
    return pytest.approx([statistics.mean(numbers), statistics.stdev(numbers)])


@pytest.fixture(scope="module")
def data(synthetic_study):
    (study,) = read_study(synthetic_study).settings()
    return section_data(study)


def test_curves_and_exits_are_means_over_runs(synthetic_study, data):
    assert data["methods"] == list(METHODS) and data["first_method"] == "prog_kd"
    assert data["points"] == ["exit1", "exit2", "exit3", "full"]
    for method, combination, step in (("team_ce", "vanilla", 7), ("i_frame", "wise", 30)):
        own = {"method": method, "combination": combination, "part": "test"}
        exits = rows_of(synthetic_study / "exits.csv", exit="exit2", **own)
        assert len(exits) == 4 and data["exits"][method][combination][1] == mean_std(
            exits, "top1_pct"
        )
        assert {float(row["gmacs"]) for row in exits} == {data["gmacs"][1]}
        swept = [
            row
            for row in rows_of(synthetic_study / "trade_off.csv", **own)
            if float(row["threshold"]) == data["thresholds"][step]
        ]
        everyone = [row for row in swept if row["exit"] == "all"]
        curve = data["curves"][method][combination]
        assert curve["top1"][step] == mean_std(everyone, "top1_pct")
        assert curve["gmacs"][step] == mean_std(everyone, "gmacs")
        for d, point in enumerate(data["points"]):
            shares = [float(row["share_pct"]) for row in swept if row["exit"] == point]
            assert curve["share"][step][d] == pytest.approx(statistics.mean(shares))
        policies = rows_of(synthetic_study / "policies.csv", rule="common", exit="all", **own)
        policy = data["policies"][method][combination]
        assert policy["top1"] == pytest.approx(mean_std(policies, "top1_pct").expected[0])


def test_weights_confusion_and_mistakes(synthetic_study, data):
    betas = rows_of(
        synthetic_study / "weights.csv", method="team_ce", point="exit3", output="exit2"
    )
    k = data["outputs"].index("exit2")
    assert data["weights"]["team_ce"][2][k] == pytest.approx(mean_std(betas, "beta").expected[0])
    assert data["weights"]["team_ce"][0][k] is None  # exit 2 has not run at exit 1
    left = rows_of(synthetic_study / "decisions.csv", method="prog_kd", left="1")
    counts = Counter((row["class_name"], row["prediction"], row["exit"]) for row in left)
    classes = data["classes"]
    confusion = np.array(data["confusion"]["prog_kd"])
    assert confusion.sum() == len(left)
    for i, true in enumerate(classes):
        for j, taken in enumerate(classes):
            assert confusion[i, j] == sum(counts[true, taken, point] for point in data["points"])
    mistakes = data["mistakes"]["prog_kd"]
    assert {(true, taken) for true, taken, _ in mistakes} == {
        key[:2] for key in counts if key[0] != key[1]
    }
    for true, taken, by_exit in mistakes:
        assert by_exit == [counts[true, taken, point] for point in data["points"]]
    totals = [sum(by_exit) for *_, by_exit in mistakes]
    assert totals == sorted(totals, reverse=True)


def clip(video, class_name, left, said, confidence=0.5):
    """A video's rows; said: its predictions at the four points."""
    return [
        {
            **{"video": video, "class_name": class_name, "exit": point, "prediction": word},
            **{"confidence": confidence, "left": int(d == left), "correct": word == class_name},
        }
        for d, (point, word) in enumerate(zip(("exit1", "exit2", "exit3", "full"), said))
    ]


def test_examples_are_of_all_kinds_and_varied():
    decisions = pd.DataFrame(
        clip("a1", "a", 0, "aaaa", 0.9)
        + clip("a2", "a", 0, "aaaa", 0.8)
        + clip("b1", "b", 1, "bbbb", 0.7)
        + clip("b2", "b", 3, "bbbb", 0.9)
        + clip("b3", "b", 3, "aaab", 0.4)
        + clip("a3", "a", 2, "bbbb", 0.6)
        + clip("a4", "a", 0, "bbbb", 0.95)
    )
    chosen = [(e.kind, e.video, e.left) for e in choose(decisions, number=2)]
    # Classes take turns: b1 before the surer a2; a mistake's confidence and a late one's history.
    assert chosen == [
        *(("early", "a1", 0), ("early", "b1", 1)),
        *(("late", "b3", 3), ("late", "b2", 3)),
        *(("wrong", "a4", 0), ("wrong", "a3", 2)),
    ]


def test_pictures_are_those_of_the_video(tmp_path):
    frames = list(moving_tiles(24, speed=(3, 0)))
    uris = pictures(write_video(tmp_path / "v.m4v", frames))
    assert list(uris) == ["I-frame", "motion vectors", "residual"]
    shown = {}
    for what, uri in uris.items():
        kind, data = uri.split(",", 1)
        assert kind == "data:image/jpeg;base64"
        jpeg = matplotlib.image.imread(io.BytesIO(base64.b64decode(data)), format="jpeg")
        shown[what] = torch.from_numpy(jpeg.copy()).permute(2, 0, 1).float()
        height, width = frames[0].shape[:2]
        assert shown[what].shape == (3, round(WIDTH * height / width), WIDTH)
    # The GOP in the middle of 24 pictures begins with picture 12.
    start = torch.from_numpy(frames[12]).permute(2, 0, 1)[None].float()
    start = torch.nn.functional.interpolate(start, shown["I-frame"].shape[1:], mode="bilinear")[0]
    off = (shown["I-frame"] - start).abs().mean()
    # Two lossy codecs stay near; pictures of other tiles are 80 apart on average.
    assert off < 12, off
    # Tiles pan to the right: most of the picture has one hue, red, of motion to the right.
    red, green, blue = shown["motion vectors"].median(dim=2)[0].median(dim=1)[0]
    assert red > 240 and green < 60 and blue < 60
    # What moved as the vectors say leaves no residual but noise: grey.
    assert (shown["residual"] - 128).abs().median() < 12


@pytest.fixture
def runs_with_videos(tmp_path):
    """A run and the videos it was tested on; its args.json says where those are."""
    folder = make_run(tmp_path / "runs", "prog_kd", videos=15)
    clip_file = write_video(tmp_path / "v.m4v", moving_tiles(13))
    videos = tmp_path / "videos"
    for name in {row["video"] for row in rows_of_decisions(folder)}:
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip_file, videos / f"{name}.m4v")
    (folder / "args.json").write_text(json.dumps({"data_root": str(videos)}))
    return tmp_path / "runs"


def rows_of_decisions(folder):
    (study,) = report_script.read_settings(folder)
    return study.decisions.to_dict("records")


def make_page(capsys, *arguments):
    """(result line, the page) of the script."""
    call(report_script, *arguments)
    result = json.loads(capsys.readouterr().out.splitlines()[-1].removeprefix("result: "))
    with open(result["page"], encoding="utf-8") as file:
        return result, file.read()


def test_page_from_runs_shows_their_videos(runs_with_videos, tmp_path, capsys):
    result, page = make_page(capsys, runs_with_videos, "--out", tmp_path / "page.html")
    assert result["data"] == ["toy"] and 0 < result["mb"] < 6
    cards = page.count('<article class="card example">')
    assert result["examples_with_pictures"] == cards > 2
    assert page.count('src="data:image/jpeg;base64,') == 3 * cards
    assert "One run." in page and "Pictures are missing" not in page


def report_plotly():
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        lacking("no plotly: pip install plotly")
    return get_plotlyjs()


def test_page_without_videos_says_so(synthetic_study, tmp_path, capsys):
    result, page = make_page(capsys, synthetic_study, "--out", tmp_path / "page.html")
    assert result["examples_with_pictures"] == 0
    assert "--data-root" in page and "data:image" not in page.replace(report_plotly(), "")
    exits = rows_of(
        synthetic_study / "exits.csv", method="team_ce", combination="wise", exit="exit1"
    )
    exits = [float(row["top1_pct"]) for row in exits if row["part"] == "test"]
    assert f"<td>{statistics.mean(exits):.2f} ± {statistics.stdev(exits):.2f}</td>" in page


def test_names_cannot_break_the_page(synthetic_study, tmp_path, capsys):
    study = shutil.copytree(synthetic_study, tmp_path / "study")
    bad = "</script><b>&amp;"
    for path in study.iterdir():
        text = path.read_text()
        path.write_text(text.replace("class1", bad).replace("toy", "<i>toy"))
    _, page = make_page(capsys, study, "--out", tmp_path / "page.html")
    ours = page.replace(report_plotly(), "")
    assert bad not in ours and "<i>toy" not in ours
    payload = re.search(r'<script type="application/json".*?>(.*?)</script>', ours, re.S)[1]
    assert json.loads(payload)[0]["classes"][0] == bad


def no_plotly(monkeypatch, tmp_path, study):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    return [study]


def no_runs(monkeypatch, tmp_path, study):
    return [tmp_path]


def no_such_videos(monkeypatch, tmp_path, study):
    return [study, "--data-root", tmp_path / "none"]


def broken_video(monkeypatch, tmp_path, study):
    for name in {row["video"] for row in rows_of(study / "decisions.csv")}:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.mp4").write_bytes(b"no video")
    return [study, "--data-root", tmp_path]


def too_many_methods(monkeypatch, tmp_path, study):
    study = shutil.copytree(study, tmp_path / "study")
    for path in study.iterdir():
        header, *lines = path.read_text().splitlines()
        more = [
            line.replace("team_ce", f"own{n}")
            for line in lines
            if "team_ce" in line
            for n in range(3)
        ]
        path.write_text("\n".join([header, *lines, *more]) + "\n")
    return [study]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_plotly, "pip install plotly"),
        (no_runs, "no run below"),
        (no_such_videos, "--data-root .*none: no such folder"),
        (broken_video, r"class\d/v_3_\d+.mp4"),
        (too_many_methods, "colours for 6 methods, not 7"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    make, message, monkeypatch, tmp_path, synthetic_study, capsys
):
    arguments = make(monkeypatch, tmp_path, synthetic_study)
    with pytest.raises(SystemExit) as stop:
        call(report_script, *arguments, "--out", tmp_path / "page.html")
    assert stop.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "page.html").exists()


def test_sources(synthetic_runs, synthetic_study, tmp_path, capsys):
    """A study, the folder it is in, and the tree it was made from give the same numbers."""
    tree = shutil.copytree(synthetic_runs, tmp_path / "runs")
    (tree / "toy" / "i_frame" / "split1_seed1" / "wise.json").unlink()
    shutil.copytree(synthetic_study, tree / "results")  # as the demo has it: the runs count
    (from_tree,) = report_script.read_settings(tree)
    assert "left out" in capsys.readouterr().out
    assert len(from_tree.runs) == 15
    (study,) = report_script.read_settings(synthetic_study)
    (below,) = report_script.read_settings(synthetic_study.parent)
    assert len(study.runs) == 16
    shown, of_tree = section_data(study), section_data(from_tree)
    assert shown == section_data(below)
    for method in ("team_ce", "prog_kd"):
        for what in ("exits", "curves", "policies", "confusion", "mistakes"):
            assert shown[what][method] == of_tree[what][method]
