"""Which order flatness says, and how good the exits of that order are among the six."""

import csv
import itertools
import shutil

import pandas as pd
import pytest

from study import flatness, teacher_order
from study.columns import RUN, STUDY_COLUMNS
from study.run_tables import write_rows
from tests.calls import call, refused

# Top-1 of exits 1 and 2 with seeds 1 and 2, by the first letters of the teachers in turn.
TOP1 = {
    "mri": [(50, 60), (52, 62)],
    "mir": [(44, 70), (44, 70)],
    "rmi": [(46, 50), (46, 50)],
    "rim": [(47, 64), (47, 64)],
    "imr": [(41, 40), (41, 40)],
    "irm": [(51, 55), (51, 55)],
}
FLAT = {
    ("top1_pct", ""): {"iframe": 90, "mv": 70, "residual": 80},
    ("loss", ""): {"iframe": 0.1, "mv": 0.3, "residual": 0.2},
    ("random", "0.1"): {"iframe": 0.2, "mv": 9, "residual": 0.7},
    ("random", "0.01"): {"iframe": -0.02, "mv": -0.01, "residual": -0.03},
    ("hessian_trace", ""): {"iframe": 100, "mv": 30, "residual": 30},
}
NAMES = {"m": "mv", "r": "residual", "i": "iframe"}


def make_exits(shift=0.0, split="split1"):
    for letters, seeds in TOP1.items():
        for seed, exits in enumerate(seeds, 1):
            for number, top1 in enumerate((*exits, 80), 1):
                yield {
                    **dict.fromkeys(STUDY_COLUMNS["exits.csv"], "0"),
                    **{"data": "toy", "split": split, "seed": seed, "part": "test"},
                    **{"method": "_".join(NAMES[x] for x in letters), "combination": "vanilla"},
                    "exit": "full" if number == 3 else f"exit{number}",
                    "top1_pct": top1 + shift * (letters == "irm"),
                }


def make_flat(split="split1", flat=FLAT):
    for (measure, radius), values in flat.items():
        for stream, value in values.items():
            yield {
                **dict.fromkeys(flatness.COLUMNS, "x"),
                **{"data": "toy", "split": split, "part": "train", "stream": stream},
                **{"measure": measure, "radius": radius, "value": value},
                "backbone_digest": f"digest of {split}",
            }


def write_runs(folder, protocol_of=lambda run: "1 clip"):
    """runs.csv of the exits that are there."""
    runs = pd.read_csv(folder / "exits.csv")[RUN].drop_duplicates()
    runs = runs.assign(protocol=runs.apply(protocol_of, axis=1))
    runs.reindex(columns=STUDY_COLUMNS["runs.csv"]).to_csv(folder / "runs.csv", index=False)


@pytest.fixture
def study(tmp_path):
    """Two backbones; the second's exits gain 8 points in the order irm. Rows that do not count."""
    folder = tmp_path / "study"
    exits = [*make_exits(), *make_exits(8, "split2")]
    others = [
        {**row, **change, "top1_pct": 99}
        for row in exits
        for change in ({"part": "heldout"}, {"combination": "wise"}, {"method": "team_ce"})
    ]
    write_rows(folder / "exits.csv", STUDY_COLUMNS["exits.csv"], [*others, *exits])
    write_runs(folder)
    write_rows(folder / "flatness_a.csv", flatness.COLUMNS, list(make_flat()))
    write_rows(folder / "flatness_b.csv", flatness.COLUMNS, list(make_flat("split2")))
    return folder


def test_weakest_first_is_read_from_heldout_videos(study, tmp_path, capsys):
    """points.csv of study.over_time has streams on one segment and on all."""
    top1 = {"iframe@1": 10, "mv@1": 90, "iframe@4": 60, "mv@4": 80, "residual@4": 70, "full": 95}
    columns = ["data", "split", "part", "evidence", "point", "top1_pct"]
    rows = [
        dict(zip(columns, ("toy", "split1", part, evidence, point, value + shift)))
        for part, evidence, shift in (("heldout", "logits", 0), ("test", "logits", 5))
        for point, value in top1.items()
    ]
    rows += [{**row, "evidence": "probability", "top1_pct": 1} for row in rows]
    write_rows(study / "points.csv", columns, rows)
    call(teacher_order, study, "--out", tmp_path / "out.csv")
    with open(tmp_path / "out.csv", newline="") as file:
        found = [row for row in csv.DictReader(file) if row["part"] == "heldout"]
    assert {(row["split"], row["measure"], row["order"]) for row in found} == {
        ("split1", "top1_pct", "iframe_residual_mv")
    }


def test_orders_ranks_and_gains(study, tmp_path, capsys):
    call(teacher_order, study, "--out", tmp_path / "out.csv")
    with open(tmp_path / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 5 * 3
    found = {(r["split"], r["measure"], r["radius"], r["exit"]): r for r in rows}
    order = {key[1:3]: row["order"] for key, row in found.items()}
    assert order == {
        ("published", ""): "mv_residual_iframe",
        ("top1_pct", ""): "mv_residual_iframe",
        ("random", "0.1"): "iframe_residual_mv",
        ("random", "0.01"): "residual_iframe_mv",
        ("hessian_trace", ""): "mv_residual_iframe",
    }, "rising; equal ones in the published order"
    # mri at exit 1 is 51, the mean of its seeds, as is irm; the others: 44, 46, 47, 41.
    row = found["split1", "top1_pct", "", "exit1"]
    assert float(row["top1_pct"]) == 51 and float(row["rank"]) == 1.5 and row["seeds"] == "2"
    assert float(row["gain_pct"]) == pytest.approx(51 - (44 + 46 + 47 + 41 + 51) / 5)
    # Exit 2: 61, 70, 50, 64, 40, 55. Means of the exits: 56, 57, 48, 55.5, 40.5, 53.
    assert float(found["split1", "top1_pct", "", "exit2"]["rank"]) == 3
    row = found["split1", "random", "0.1", "mean"]
    assert float(row["top1_pct"]) == 53 and float(row["rank"]) == 4
    assert float(row["gain_pct"]) == pytest.approx(53 - (56 + 57 + 48 + 55.5 + 40.5) / 5)
    row = found["split2", "random", "0.1", "mean"]
    assert float(row["top1_pct"]) == 61 and float(row["rank"]) == 1
    assert row["backbone_digest"] == "digest of split2"

    table = teacher_order.summary_table(teacher_order.study_rows(study))
    line = {row[0] + row[2]: row[3:] for row in table[1:]}["random0.1"]
    first = 53 - 257 / 5
    assert line == ["2", *line[1:3], f"{first + 4:.2f} ± {8 / 2**0.5:.2f}", "2.50 ± 2.12", "1 of 2"]
    assert "| random" in capsys.readouterr().out


def test_an_order_that_foretells_nothing_gains_nothing(tmp_path):
    """Over the six ways in which three streams can be flat, ranks and gains are those of chance."""
    flat = []
    for number, order in enumerate(itertools.permutations(teacher_order.PUBLISHED_ORDER)):
        flat += make_flat(f"split{number}", {("random", "0.1"): dict(zip(order, (1, 2, 3)))})
    exits = [row for number in range(6) for row in make_exits(split=f"split{number}")]
    write_rows(tmp_path / "exits.csv", STUDY_COLUMNS["exits.csv"], exits)
    write_runs(tmp_path)
    write_rows(tmp_path / "flatness.csv", flatness.COLUMNS, flat)
    line = teacher_order.summary_table(teacher_order.study_rows(tmp_path))[-1]
    assert line[:4] == ["random", "train", "0.1", "6"]
    assert {abs(float(gain.split(" ± ")[0])) for gain in line[4:7]} == {0}
    assert line[7].startswith("3.50 ±") and line[8] == "1 of 6"


def rewrite(folder, name, change):
    with open(folder / name, newline="") as file:
        reader = csv.DictReader(file)
        rows, columns = list(change(list(reader))), reader.fieldnames
    write_rows(folder / name, columns, rows)


@pytest.mark.parametrize(
    "name, change, words",
    [
        (
            "exits.csv",
            lambda rows: [row for row in rows if row["method"][:2] != "if"],
            "split1: exits.csv lacks the orders iframe_mv_residual, iframe_residual_mv",
        ),
        (
            "exits.csv",
            lambda rows: [r for r in rows if (r["method"][0], r["seed"]) != ("r", "2")],
            "exits of different seeds",
        ),
        (
            "exits.csv",
            lambda rows: [r for r in rows if (r["method"][0], r["exit"]) != ("r", "exit2")],
            "split1: the orders have other exits, GMACs or protocols",
        ),
        (
            "exits.csv",
            lambda rows: [
                {**row, "gmacs": row["seed"] if row["method"][0] == "r" else "1"} for row in rows
            ],
            "the runs of toy residual_mv_iframe have other exits, GMACs or protocols",
        ),
        (
            "exits.csv",
            lambda rows: [{**row, "method": "team_ce"} for row in rows if row["part"] != "test"],
            "exits.csv has no test rows",
        ),
        (
            "runs.csv",
            lambda rows: [{**row, "protocol": f"{row['seed']} clips"} for row in rows],
            "have other exits, GMACs or protocols",
        ),
        (
            "flatness_b.csv",
            lambda rows: [*rows, *({**row, "split": "split1", "seed": "2"} for row in rows)],
            "toy split1: flatness of several backbones; a study has one of each split",
        ),
        (
            "flatness_b.csv",
            lambda rows: [*rows, *({**row, "part": "heldout"} for row in rows[:2])],
            "toy split2: flatness of some streams only",
        ),
        ("flatness_b.csv", lambda rows: [], "flatness_b.csv has no rows; study.flatness writes"),
        ("flatness_b.csv", None, "toy split2: no flatness"),
        ("flatness_b.csv", lambda rows: [*rows, *make_flat("split3")], "split3: exits.csv lacks"),
        (
            "exits.csv flatness_b.csv",
            lambda rows: [],
            "exits.csv has no rows; study.collect writes",
        ),
        ("exits.csv", None, "exits.csv is missing"),
        ("runs.csv", None, "runs.csv is missing"),
        ("flatness_a.csv flatness_b.csv", None, "has no flatness"),
    ],
)
def test_what_cannot_be_compared_is_refused(name, change, words, study, tmp_path, capsys):
    for file in name.split():
        (study / file).unlink() if change is None else rewrite(study, file, change)
    with pytest.raises(SystemExit) as stopped:
        call(teacher_order, study, "--out", tmp_path / "out.csv")
    assert stopped.value.code == 2 and words in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


def test_a_backbone_counts_once_though_its_exits_were_trained_again(study, tmp_path, capsys):
    other = tmp_path / "other/study"
    shutil.copytree(study, other)
    out = ["--out", tmp_path / "out.csv"]
    words = refused(capsys, teacher_order, study, other, *out)
    assert f"{other} holds what {study} holds" in words
    rewrite(other, "exits.csv", lambda rows: [{**row, "top1_pct": "7"} for row in rows])
    words = refused(capsys, teacher_order, study, other, *out)
    assert f"toy split1 digest of split1 is in {study} and in {other}" in words
    assert not (tmp_path / "out.csv").exists()
