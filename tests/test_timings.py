"""Times beside GMACs, budgets in ms, and top-1 that is expected in the place of counted."""

import csv

import numpy as np
import pytest

import team_net_wise_all_acc
from early_exit import wise
from early_exit.calibrate import Goal, calibrate
from early_exit.expected import expected_right
from early_exit.policy import decide
from early_exit.promise import Wish
from early_exit.thresholds import sweep
from study.columns import RUN_COLUMNS
from study.policies import make_policy, make_promise
from study.run_tables import RunTables, write_rows
from study.timings import COLUMNS, Times, load_times, network_of
from tests.calls import refused
from tests.synthetic_logits import make_logits_file

POINTS = ["exit1", "exit2", "exit3", "full"]
DECODE, NETWORK = np.array([8.0, 8.0, 8.0, 8.0]), np.array([1.0, 3.0, 2.5, 20.0])
HOW = {"select_on": "heldout", "confidence": "max", "temperature": 1.0, "max_drop": 1}


@pytest.fixture(scope="module")
def logits():
    return make_logits_file()


def tables_of(logits, times=None):
    costs = {point: 1.0 + k for k, point in enumerate(POINTS)}
    betas = wise.vanilla_weights(logits.outputs)
    fitted = {"solver": "exact", "fit_on": "heldout"}
    return RunTables(logits, betas, costs, fitted, "command", times=times)


def write_table(path, logits, changes=(), drop=()):
    """A timings table of the logits' network; changes: {column: value} by row number."""
    network = network_of(logits.meta["model"], logits.meta["crop_size"])
    about = {
        **network,
        "points": " ".join(POINTS),
        "precision": "fp32",
        "threads": 1,
        "clock": "wall",
    }
    rows = [
        {**about, "point": point, "decode_ms": d, "network_ms": n, "machine": "m", "num_videos": 3}
        for point, d, n in zip(POINTS, DECODE, NETWORK)
    ]
    for number, change in dict(changes).items():
        rows[number].update(change)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, [name for name in COLUMNS if name not in drop])
        writer.writeheader()
        writer.writerows({k: v for k, v in row.items() if k not in drop} for row in rows)
    return path


def test_a_table_is_found_by_network_and_points(logits, tmp_path):
    found = load_times(write_table(tmp_path / "times.csv", logits), logits)
    assert found.decode_ms.tolist() == DECODE.tolist()
    assert found.network_ms.tolist() == NETWORK.tolist()
    assert found.total().tolist() == [9, 11, 11, 28]  # the third is noise


@pytest.mark.parametrize(
    ("changes", "drop", "message"),
    [
        ((), ("network_ms",), "no column network_ms"),
        ({k: {"crop_size": 32} for k in range(4)}, (), "no times of .*crop_size 64"),
        ({k: {"arch": "resnet50"} for k in range(4)}, (), "no times of arch resnet18"),
        ({k: {"points": "exit1 full"} for k in range(4)}, (), "points exit1 exit2 exit3 full"),
        ({3: {"machine": "another"}}, (), "several machines .*another"),
        ({3: {"threads": 2}}, (), "several machines"),
        ({1: {"point": "exit9"}}, (), "no row for the point exit2"),
        ({0: {"decode_ms": "-1"}}, (), "line 2: decode_ms is -1, and times are above 0; python"),
        ({2: {"network_ms": "nan"}}, (), "line 4: network_ms is 'nan', no number; python -m bench"),
        ({2: {"network_ms": ""}}, (), "line 4: network_ms is empty; python -m benchmarks.timings"),
    ],
)
def test_a_table_that_says_nothing_of_this_network_is_refused(
    logits, tmp_path, changes, drop, message
):
    path = write_table(tmp_path / "times.csv", logits, changes, drop)
    with pytest.raises(ValueError, match=message):
        load_times(path, logits)


def test_a_table_with_a_cut_row_is_refused_by_its_line(logits, tmp_path):
    path = write_table(tmp_path / "times.csv", logits)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], lines[2].rpartition("3.0")[0] + "\n", *lines[3:]]))
    with pytest.raises(ValueError, match="times.csv, line 3: 9 cells in place of 15; python -m"):
        load_times(path, logits)


def test_outside_logits_have_no_times(logits, tmp_path, capsys):
    rng = np.random.default_rng(0)
    names = np.array([f"v{n}" for n in range(30)])
    scores = rng.standard_normal((30, 4, 3)).astype(np.float32)
    np.savez(tmp_path / "scores.npz", logits=scores, labels=np.arange(30) % 3, names=names)
    words = ["--logits", tmp_path / "scores.npz"]
    words += ["--timings", write_table(tmp_path / "times.csv", logits)]
    message = refused(capsys, team_net_wise_all_acc, *words)
    assert "times.csv has times of this repository's networks" in message


def test_tables_hold_the_mean_times_of_where_clips_leave(logits, tmp_path):
    tables = tables_of(logits, Times(DECODE, NETWORK))
    policy = make_policy(tables, "vanilla", "common", **HOW)
    samples = logits.samples("test")[0]
    expected = np.mean([NETWORK[point] for point in decide(policy, samples).points])
    views = len(logits.part("test").logits)
    whole = [r for r in tables.policy_rows(policy) if (r["part"], r["exit"]) == ("test", "all")]
    assert whole[0]["network_ms"] == pytest.approx(views * expected)
    assert whole[0]["decode_ms"] == pytest.approx(views * 8)
    rows = tables.sweep_rows([0.3, 0.6], "max", dict.fromkeys(wise.COMBINATIONS, 1.0))
    for row in rows:
        if row["exit"] != "all":
            assert row["network_ms"] == views * NETWORK[POINTS.index(row["exit"])]
    for row in (row for row in rows if row["exit"] == "all"):
        key = ("part", "combination", "threshold")
        parts = [r for r in rows if r["exit"] != "all" and all(r[k] == row[k] for k in key)]
        mean = sum(r["share_pct"] * r["network_ms"] for r in parts) / 100
        assert row["network_ms"] == pytest.approx(mean)


def test_without_times_the_cells_are_empty(logits, tmp_path):
    write_rows(tmp_path / "exits.csv", RUN_COLUMNS["exits.csv"], tables_of(logits).exit_rows())
    with open(tmp_path / "exits.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["decode_ms"], row["network_ms"]) for row in rows} == {("", "")}
    assert all(float(row["gmacs"]) > 0 for row in rows)


@pytest.mark.parametrize("rule", ["common", "per_exit"])
def test_a_budget_of_ms_is_kept_where_it_was_chosen(logits, rule):
    tables = tables_of(logits, Times(DECODE, NETWORK))
    views = len(logits.part("heldout").logits)
    spent = []
    for budget in (9.5, 14.0, 28.0):
        how = {**HOW, "budget": views * budget, "unit": "ms"}
        policy = make_policy(tables, "vanilla", rule, **how)
        points = decide(policy, logits.samples("heldout")[0]).points
        spent.append((DECODE + NETWORK)[points].mean())
        assert spent[-1] <= budget + 1e-9
        assert policy.provenance["goal"] == f"budget-ms {views * budget:g}"
    assert spent[0] < spent[1]
    with pytest.raises(ValueError, match="a budget of 2 ms is below the cheapest"):
        make_policy(tables, "vanilla", rule, **{**HOW, "budget": 2.0, "unit": "ms"})
    with pytest.raises(ValueError, match="needs measured times"):
        make_policy(tables_of(logits), "vanilla", rule, **{**HOW, "budget": 9.0, "unit": "ms"})


def test_a_budget_of_ms_can_be_promised(logits):
    tables = tables_of(logits, Times(DECODE, NETWORK))
    views = len(logits.part("heldout").logits)
    how = {"select_on": "heldout", "confidence": "max", "temperature": 1.0}
    policy = make_promise(
        tables, "vanilla", "common", wish=Wish("budget_ms", 20.0 * views, 0.9), **how
    )
    assert "at most 40 ms" in policy.promise["words"] and policy.promise["kept_by"] == "thresholds"
    points = decide(policy, logits.samples("heldout")[0]).points
    assert 9 < (DECODE + NETWORK)[points].mean() < 20


def clips(number, seed):
    """Confidences that are the chance to be right; the full network is right in 9 of 10 clips."""
    rng = np.random.default_rng(seed)
    sure = rng.uniform(0.2, 1, (number, 3))
    sure[:, -1] = 0.9
    return sure, rng.random(sure.shape) < sure


def test_expected_changes_are_those_that_come():
    sure, correct = clips(20_000, 0)
    expected = expected_right(sure, correct)
    top1 = correct[:, -1].mean()
    assert np.all(expected[:, -1] == top1)
    np.testing.assert_allclose(expected[:, :-1] - top1, sure[:, :-1] - 0.9, atol=0.05)


def test_a_threshold_of_few_clips_is_steadier_expected_than_counted():
    costs, goal_drop = [1.0, 2.0, 9.0], 1.0
    truth_sure, _ = clips(20_000, 1)
    lost = {"counted": [], "expected": []}
    for seed in range(30):
        sure, correct = clips(60, 100 + seed)
        goal = Goal(min_top1_pct=100 * correct[:, -1].mean() - goal_drop)
        for name, right in (("counted", correct), ("expected", expected_right(sure, correct))):
            threshold = calibrate(sure, right, costs, goal, "common").thresholds[0]
            # top-1 of leaving so, where the chance to be right is the confidence
            lost[name].append(90 - sweep(truth_sure, truth_sure, costs, [threshold]).top1_pct[0])
    fails = {name: np.mean(np.array(values) > goal_drop) for name, values in lost.items()}
    assert fails["expected"] < 0.8 * fails["counted"]
    assert np.std(lost["expected"]) < np.std(lost["counted"])
