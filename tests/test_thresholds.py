"""Exit rule, sweep and calibration against loops over clips; the script and its tables."""

import csv
import itertools
import json
import math
import sys
import tracemalloc

import numpy as np
import pytest
import torch

from dataset_team.identity import file_digest
from early_exit import calibrate, wise, wise_file
from early_exit.calibrate import Goal
from early_exit.confidence import confidence
from early_exit.logits import LogitsFile
from early_exit.paths import pareto_path
from early_exit.policy import decide, load_policy
from early_exit.thresholds import (
    DEFAULT_THRESHOLDS,
    confidences,
    distinct_thresholds,
    leave_at,
    sweep,
)
from MACs.team_net import exit_gmacs
from study.policies import load_run_tables, make_policy
from study.run_tables import RunTables
from team_net_wise_all_acc import get_args_parser, main
from tests.script_server import run_script
from tests.synthetic_logits import make_logits_file

COSTS = [2.0, 5.0, 11.0]


def random_clips(number=60, points=3, seed=0, ties=True):
    """Confidences with many ties, also with thresholds, and correctness that follows them."""
    rng = np.random.default_rng(seed)
    sure = rng.random((number, points))
    if ties:
        sure = np.round(sure * 8) / 8
    return sure, rng.random((number, points)) < 0.3 + 0.6 * sure


def slow_exit(row, thresholds):
    for d, threshold in enumerate(thresholds):
        if row[d] > threshold:
            return d
    return len(row) - 1


def slow_result(sure, correct, costs, thresholds):
    """top-1 %, mean gmacs, and who leaves where, one clip after the other."""
    right, spent, left = 0, 0.0, [0] * sure.shape[1]
    for row, is_right in zip(sure, correct):
        d = slow_exit(row, thresholds)
        right += bool(is_right[d])
        spent += costs[d]
        left[d] += 1
    return 100 * right / len(sure), spent / len(sure), [100 * n / len(sure) for n in left]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("max", lambda p: max(p)),
        ("margin", lambda p: sorted(p)[-1] - sorted(p)[-2]),
        ("entropy", lambda p: 1 + sum(q * math.log(q) for q in p) / math.log(len(p))),
    ],
)
def test_confidences_against_their_definitions(kind, expected):
    logits = np.random.default_rng(0).standard_normal((4, 3, 5)) * 3
    sure = confidences(logits, kind, temperature=1.7)
    for n, d in itertools.product(range(4), range(3)):
        exps = [math.exp(value / 1.7) for value in logits[n, d]]
        want = expected([value / sum(exps) for value in exps])
        assert sure[n, d] == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("kind", ["max", "margin", "entropy"])
def test_confidence_is_within_0_and_1_at_the_extremes(kind):
    # Round-off of a sum over 5 classes in float64 may leave the interval by a few 1e-16.
    extremes = torch.tensor([[0.0] * 5, [1e4, 0, 0, 0, 0]], dtype=torch.float64)
    low, high = confidence(extremes, kind).tolist()
    assert low == pytest.approx(0.2 if kind == "max" else 0, abs=1e-15)
    assert high == pytest.approx(1, abs=1e-15)


def test_unknown_confidence_is_refused():
    with pytest.raises(ValueError, match="unknown confidence 'sure'; there are max, margin"):
        confidence(torch.zeros(1, 5), "sure")


@pytest.mark.parametrize("thresholds", [(0.5, 0.5), (0.75, 0.25), (0, 1), (1, 1), (1.2, 1.2)])
def test_exit_rule(thresholds):
    sure, _ = random_clips()
    expected = [slow_exit(row, thresholds) for row in sure]
    assert leave_at(sure, thresholds).tolist() == expected


@pytest.mark.parametrize("points", [2, 3, 5])
def test_sweep_against_a_loop_over_clips(points):
    sure, correct = random_clips(points=points, seed=points)
    costs = [3.0**d for d in range(points)]
    thresholds = [0.0, 0.125, 0.5, 0.51, 0.3, 0.875, 0.99, 1.0, 1.2]
    curve = sweep(sure, correct, costs, thresholds)
    for t, threshold in enumerate(thresholds):
        common = [threshold] * (points - 1)
        top1, gmacs, share = slow_result(sure, correct, costs, common)
        assert curve.top1_pct[t] == pytest.approx(top1)
        assert curve.gmacs[t] == pytest.approx(gmacs)
        assert curve.share_pct[t] == pytest.approx(share)
        for d in range(points):
            right = [bool(c[d]) for s, c in zip(sure, correct) if slow_exit(s, common) == d]
            if right:
                assert curve.point_top1_pct[t, d] == pytest.approx(100 * sum(right) / len(right))
            else:
                assert math.isnan(curve.point_top1_pct[t, d])


def test_nobody_leaves_early_at_1_and_everyone_at_0():
    sure, correct = random_clips(ties=False)
    sure[0] = 1.0
    curve = sweep(sure, correct, COSTS, [0.0, 1.0])
    assert curve.gmacs.tolist() == [2.0, 11.0]
    assert curve.top1_pct[0] == pytest.approx(100 * correct[:, 0].mean())
    assert curve.top1_pct[1] == pytest.approx(100 * correct[:, -1].mean())
    assert DEFAULT_THRESHOLDS[0] == 0
    assert DEFAULT_THRESHOLDS[-1] == 1
    assert list(DEFAULT_THRESHOLDS) == sorted(set(DEFAULT_THRESHOLDS))


def test_distinct_thresholds_separate_all_values():
    values = np.array([0.5, 0.25, 0.5, 0.9, 0.9 + 1e-9])
    assert distinct_thresholds(values).tolist() == pytest.approx([0, 0.375, 0.7, 1])


GOALS = [Goal(min_top1_pct=60), Goal(min_top1_pct=70), Goal(max_cost=4.0), Goal(max_cost=8.5)]


def better(goal, this, other):
    """Whether outcome (top-1, gmacs) `this` serves the goal strictly better than `other`."""
    if goal.max_cost is not None:
        return this[1] <= goal.max_cost and (this[0], -this[1]) > (other[0], -other[1])
    return this[0] >= goal.min_top1_pct and (-this[1], this[0]) > (-other[1], other[0])


def rounded(top1, gmacs, _share):
    return round(top1, 9), round(gmacs, 9)


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("seed", range(3))
def test_common_threshold_is_the_best_of_all(goal, seed):
    sure, correct = random_clips(seed=seed, ties=False)
    choice = calibrate.calibrate(sure, correct, COSTS, goal, "common")
    outcomes = [
        rounded(*slow_result(sure, correct, COSTS, [threshold] * 2))
        for threshold in [-1, *sure[:, :2].ravel(), 1]
    ]
    chosen = rounded(*slow_result(sure, correct, COSTS, choice.thresholds))
    assert len(set(choice.thresholds)) == 1
    assert not any(better(goal, outcome, chosen) for outcome in outcomes)
    if choice.reached and goal.max_cost is None:
        assert chosen[0] >= goal.min_top1_pct
    elif choice.reached:
        assert chosen[1] <= goal.max_cost
    else:
        assert chosen[0] == max(top1 for top1, _ in outcomes)


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("points", [2, 3, 4])
def test_per_exit_thresholds_are_the_best_of_their_grid(goal, points, monkeypatch):
    monkeypatch.setattr(calibrate, "GRID_LEVELS", 5)
    sure, correct = random_clips(points=points, seed=points, ties=False)
    costs = [2.0, 5.0, 11.0, 20.0][:points]
    common = calibrate.calibrate(sure, correct, costs, goal, "common")
    choice = calibrate.calibrate(sure, correct, costs, goal, "per_exit")
    levels = []
    for k in range(points - 1):
        all_levels = distinct_thresholds(sure[:, k])
        evenly = [all_levels[round((len(all_levels) - 1) * step / 4)] for step in range(5)]
        levels.append([*evenly, common.thresholds[0]])
    grid = itertools.product(*levels)
    outcomes = [rounded(*slow_result(sure, correct, costs, thresholds)) for thresholds in grid]
    chosen = rounded(*slow_result(sure, correct, costs, choice.thresholds))
    assert chosen in outcomes
    if choice.reached:
        assert not any(better(goal, outcome, chosen) for outcome in outcomes)
    else:
        assert chosen[0] == max(top1 for top1, _ in outcomes)


@pytest.mark.parametrize("exits", [5, 7, 9, 12])
def test_many_exits_have_a_coarser_grid_that_fits_into_memory(exits):
    sure, correct = random_clips(points=exits + 1, seed=exits, ties=False)
    costs = np.arange(1.0, exits + 2)
    goal = Goal(min_top1_pct=100 * correct[:, -1].mean() - 2)
    chosen = {}
    tracemalloc.start()
    for rule in calibrate.RULES:
        thresholds = calibrate.calibrate(sure, correct, costs, goal, rule).thresholds
        chosen[rule] = slow_result(sure, correct, costs, thresholds)
    path = pareto_path(sure, correct, costs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not better(goal, rounded(*chosen["common"]), rounded(*chosen["per_exit"]))
    assert path.shape[1] == exits and len(path) > 1
    # Some ten tables of MOST_CELLS floats live at once.
    assert peak < 10 * 8 * calibrate.MOST_CELLS
    assert calibrate.levels_of(5, 20) == 20 and calibrate.levels_of(12, 20) == 2
    with pytest.raises(ValueError, match="13 exits are too many for a threshold each"):
        calibrate.levels_of(13, 20)


def test_goals_out_of_reach():
    sure, correct = random_clips()
    with pytest.raises(ValueError, match="budget of 1.5 gmacs is below the cheapest, 2"):
        calibrate.calibrate(sure, correct, COSTS, Goal(max_cost=1.5), "common")
    for rule in calibrate.RULES:
        choice = calibrate.calibrate(sure, correct, COSTS, Goal(min_top1_pct=101), rule)
        assert not choice.reached
    with pytest.raises(ValueError, match="unknown rule 'best'"):
        calibrate.calibrate(sure, correct, COSTS, GOALS[0], "best")


def test_fitted_temperature_undoes_a_scale():
    rows, labels = make_logits_file(videos=300).samples("heldout")
    combined = wise.combine(rows, wise.vanilla_weights(make_logits_file().outputs))
    fitted = wise.fit_temperature(combined, labels)
    # The search stops at 1e-5 of log T.
    assert wise.fit_temperature(7 * combined, labels) == pytest.approx(7 * fitted, rel=1e-4)
    losses = [
        wise.cross_entropy(combined / (fitted * factor), labels).mean()
        for factor in (0.9, 0.99, 1.0, 1.01, 1.1)
    ]
    assert min(losses) == losses[2]


def save_run(folder, **meta):
    """Logits of two test views and WISE weights that fit them."""
    logits = make_logits_file(seed=1, exits=(1, 3), **meta)
    logits.save(folder / "logits.pt")
    fit = wise.fit(*logits.samples("heldout"), logits.outputs)
    digest = file_digest(folder / "logits.pt")
    provenance = {"logits_sha256": digest, "solver": "exact", "fit_on": "heldout"}
    wise_file.save_weights(folder / "wise.json", logits.outputs, fit.weights, provenance)
    return folder


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("runs") / "toy" / "team_ce" / "split1_seed1")


def test_exits_on_the_mean_of_segments_are_priced_as_such(tmp_path):
    costs = {}
    for ic_pool in ("concat", "mean"):
        path = save_run(tmp_path / ic_pool, ic_pool=ic_pool) / "logits.pt"
        logits = LogitsFile.load(path)
        costs[ic_pool] = load_run_tables(path, logits).costs("test")
        one_view = exit_gmacs(logits.meta["model"], (1, 3), 64, ic_pool)
        assert costs[ic_pool] == pytest.approx(2 * np.array([*one_view.values()]))
    assert (costs["mean"] < costs["concat"]).all()


def read_rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def slow_decisions(logits, part, weights, thresholds):
    """(exit taken, right?) per video by loops over float sums of view means."""
    part = logits.part(part)
    for n in range(len(part.names)):
        mean = part.logits[:, n].astype(float).sum(axis=0) / len(part.logits)  # (K, C)
        for d, row in enumerate(weights):
            combined = sum(weight * output for weight, output in zip(row, mean))
            p = np.exp(combined - combined.max())
            if d == len(weights) - 1 or p.max() / p.sum() > thresholds[d]:
                yield d, int(np.argmax(combined)) == part.labels[n]
                break


def test_script_writes_what_loops_over_videos_give(run_folder, monkeypatch, capsys):
    arguments = ["--checkpoint_dir", run_folder.parents[2], "--data-name", "toy"]
    arguments += ["--thresholds", "0.4", "0.7", "1.2", "--policy-rule", "per_exit"]
    monkeypatch.setattr(sys, "argv", [])
    assert run_script("team_net_wise_all_acc.py", *map(str, arguments)) == 0
    printed = capsys.readouterr().out
    assert "at thresholds of 1 or more no clip leaves early" in printed

    logits = LogitsFile.load(run_folder / "logits.pt")
    one_view = exit_gmacs(logits.meta["model"], (1, 3), 64)
    points = ["exit1", "exit3", "full"]
    weights = {
        "vanilla": wise.vanilla_weights(logits.outputs),
        "constant": wise.constant_weights(logits.outputs),
        "wise": wise_file.load_weights(run_folder / "wise.json", logits.outputs)[0],
    }

    def check(rows, part, combination, thresholds):
        decisions = list(slow_decisions(logits, part, weights[combination], thresholds))
        assert [row["exit"] for row in rows] == ["all", *points]
        # Two views are two passes.
        spent = sum(2 * one_view[points[d]] for d, _ in decisions) / len(decisions)
        right = sum(right for _, right in decisions)
        # Tables hold six decimals.
        assert float(rows[0]["gmacs"]) == pytest.approx(spent, abs=1e-6)
        assert float(rows[0]["top1_pct"]) == pytest.approx(100 * right / len(decisions), abs=1e-6)
        for d, row in enumerate(rows[1:]):
            here = [right for point, right in decisions if point == d]
            share = 100 * len(here) / len(decisions)
            assert float(row["share_pct"]) == pytest.approx(share, abs=1e-6)
            assert float(row["gmacs"]) == pytest.approx(2 * one_view[points[d]], abs=1e-6)
            if here:
                top1 = 100 * sum(here) / len(here)
                assert float(row["top1_pct"]) == pytest.approx(top1, abs=1e-6)
            else:
                assert row["top1_pct"] == ""

    swept, policies = (read_rows(run_folder / name) for name in ("trade_off.csv", "policies.csv"))
    assert len(swept) == 2 * 3 * 3 * 4
    for part, combination in itertools.product(("heldout", "test"), weights):
        own = [r for r in swept if (r["part"], r["combination"]) == (part, combination)]
        for threshold in (0.4, 0.7, 1.2):
            rows = [row for row in own if float(row["threshold"]) == threshold]
            check(rows, part, combination, [threshold] * 2)
        for rule in calibrate.RULES:
            rows = [
                row
                for row in policies
                if (row["part"], row["combination"], row["rule"]) == (part, combination, rule)
            ]
            check(rows, part, combination, [float(t) for t in rows[0]["thresholds"].split()])
            assert {row["select_on"] for row in rows} == {"heldout"}

    exits = read_rows(run_folder / "exits.csv")
    assert len(exits) == 2 * 3 * 3
    for row in exits:
        d = points.index(row["exit"])
        only_here = [2.0] * d + [-1.0] * (2 - d)
        decisions = slow_decisions(logits, row["part"], weights[row["combination"]], only_here)
        assert float(row["top1_pct"]) == pytest.approx(
            100 * np.mean([right for _, right in decisions]), abs=1e-6
        )
    assert {row["seed"] for row in exits} == {"1"}
    assert all("team_net_wise_all_acc.py" in row["command"] for row in exits)
    assert all(("WISE" in row["protocol"]) == (row["combination"] == "wise") for row in exits)

    policy = load_policy(run_folder / "policy.json")
    rows, labels = logits.samples("test")
    top1 = 100 * np.mean(decide(policy, rows).labels == labels)
    result = json.loads(printed.splitlines()[-1].removeprefix("result: "))
    assert result["top1_pct"]["test"] == pytest.approx(top1, abs=1e-4)  # printed with 4 decimals
    assert (policy.provenance["combination"], policy.provenance["rule"]) == ("wise", "per_exit")


def run_main(folder, *arguments):
    parser = get_args_parser()
    main(parser.parse_args(["--logits", str(folder / "logits.pt"), *arguments]), parser)


def test_calibration_keeps_its_promise_on_the_part_it_saw(run_folder, capsys):
    for select_on in ("heldout", "test"):
        run_main(run_folder, "--max-drop", "2", "--select-on", select_on, "--temperature", "fit")
        full = [
            float(row["top1_pct"])
            for row in read_rows(run_folder / "exits.csv")
            if (row["part"], row["combination"], row["exit"]) == (select_on, "vanilla", "full")
        ]
        for row in read_rows(run_folder / "policies.csv"):
            if row["part"] == select_on and row["exit"] == "all" and row["reached"] == "True":
                assert float(row["top1_pct"]) >= full[0] - 2 - 1e-6
                assert float(row["temperature"]) != 1
    run_main(run_folder, "--budget-gmacs", "1.5", "--confidence", "entropy")
    for row in read_rows(run_folder / "policies.csv"):
        if row["part"] == "heldout" and row["exit"] == "all":
            assert float(row["gmacs"]) <= 1.5
            assert row["goal"] == "budget-gmacs 1.5"
    assert load_policy(run_folder / "policy.json").confidence == "entropy"
    assert "calibrated on heldout for budget-gmacs 1.5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-drop", "1", "--budget-gmacs", "3"], "not allowed with argument --max-drop"),
        (["--budget-gmacs", "0.001"], "a budget of 0.001 gmacs is below the cheapest"),
    ],
)
def test_script_refuses_goals_without_sense(run_folder, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        run_main(run_folder, *arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_script_refuses_missing_or_stale_inputs(run_folder, tmp_path, capsys):
    logits = make_logits_file(seed=2, exits=(1, 3))
    logits.save(tmp_path / "logits.pt")
    with pytest.raises(SystemExit):
        run_main(tmp_path)
    assert "no such file of WISE weights; wise_team_net_logit.py" in capsys.readouterr().err
    (tmp_path / "wise.json").write_bytes((run_folder / "wise.json").read_bytes())
    with pytest.raises(SystemExit):
        run_main(tmp_path)
    assert "was fitted on other logits" in capsys.readouterr().err
    del logits.parts["heldout"]
    logits.save(tmp_path / "logits.pt")
    with pytest.raises(SystemExit):
        run_main(tmp_path)
    assert "no part 'heldout' to choose thresholds on, only train" in capsys.readouterr().err


@pytest.mark.parametrize("quality, reached", [(1.0, True), (None, False)])
def test_a_goal_relative_to_chance_is_not_reached(quality, reached):
    logits = make_logits_file(quality=quality or 1.0)
    if quality is None:  # every output names one class, whatever the video
        for part in logits.parts.values():
            part.logits[:] = np.eye(part.logits.shape[-1])[0]
    costs = {point: 1.0 + k for k, point in enumerate(wise.decision_points(logits.outputs))}
    betas = wise.vanilla_weights(logits.outputs)
    tables = RunTables(logits, betas, costs, {}, "command")
    goal = {"select_on": "heldout", "confidence": "max", "temperature": 1.0, "max_drop": 1}
    made = make_policy(tables, "vanilla", "common", **goal).provenance
    assert made["reached"] is reached
    assert ("does not beat naming the largest class" in made["goal"]) is not reached
