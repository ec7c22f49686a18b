"""The report: averages against numbers set by hand, refusals, and a run on synthetic logits."""

import csv
import json
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
from conftest import REPO
from matplotlib.colors import to_rgb
from synthetic_logits import make_logits_file

import team_net_wise_all_acc as sweep_script
import wise_team_net_logit as wise_script
from early_exit import report as report_script
from early_exit.figure import COLOURS, Curve, Panel, draw
from early_exit.report import exit_table, panel, policy_table, read_runs
from early_exit.tables import COLUMNS

POINTS = {"exit1": 2.0, "full": 10.0}
COMBINATIONS = ("vanilla", "constant", "wise")


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS[path.name], restval="")
        writer.writeheader()
        writer.writerows(rows)


def make_run(root, method="team_ce", seed=1, base=50.0, part="test", protocol="p", costs=POINTS):
    """A run folder whose numbers follow from `base`: exits are right base + (0, 1, 2) + 10 if full,
    thresholds give base + 5 at 3 gmacs and base + 10 at 10 gmacs, policies base + 7 at 6 gmacs."""
    folder = root / "toy" / method / f"split1_seed{seed}"
    run = {"data": "toy", "split": "split1", "seed": seed, "method": method, "part": part}
    run.update(num_videos=40, protocol=protocol, command=f"python sweep {method} {seed}")
    exits, trade_off, policies = [], [], []
    for bonus, combination in enumerate(COMBINATIONS):
        row = {**run, "combination": combination}
        for point, cost in costs.items():
            top1 = base + bonus + 10 * (point == "full")
            score = {"exit": point, "top1_pct": top1, "share_pct": 100, "gmacs": cost}
            exits.append({**row, **score})
        for threshold, top1, gmacs in ((0.5, base + 5, 3.0), (1.0, base + 10, 10.0)):
            score = {"exit": "all", "top1_pct": top1 + bonus, "gmacs": gmacs}
            trade_off.append({**row, "threshold": threshold, **score})
        how = {"rule": "common", "goal": "max-drop 1", "reached": seed == 1}
        how.update(select_on="heldout", confidence="max", temperature=1, thresholds="0.7")
        score = {"exit": "all", "top1_pct": base + 7 + bonus, "share_pct": 100, "gmacs": 6.0}
        policies.append({**row, **how, **score})
        for point, share in (("exit1", base / 2), ("full", 100 - base / 2)):
            score = {"exit": point, "top1_pct": "", "share_pct": share, "gmacs": costs[point]}
            policies.append({**row, **how, **score})
    write(folder / "exits.csv", exits)
    write(folder / "trade_off.csv", trade_off)
    write(folder / "policies.csv", policies)
    return folder


def test_tables_average_over_runs(tmp_path):
    make_run(tmp_path, "prog_kd", seed=1, base=50)
    make_run(tmp_path, "prog_kd", seed=2, base=54)
    make_run(tmp_path, "team_ce", seed=1, base=40)
    make_run(tmp_path, "my_own", seed=1, base=30)
    runs = read_runs(tmp_path)["toy"]

    def spread(mean, std="2.83"):  # of two numbers 4 apart: 4 / sqrt(2)
        return f"{mean:.2f} ± {std}"

    assert exit_table(runs)[1:] == [
        ["CE", "exit1", "40.00", "41.00", "42.00", "2.000", "20.00"],
        ["CE", "full", "50.00", "51.00", "52.00", "10.000", "80.00"],
        ["PKD", "exit1", *map(spread, (52, 53, 54)), "2.000", spread(26, "1.41")],
        ["PKD", "full", *map(spread, (62, 63, 64)), "10.000", spread(74, "1.41")],
        ["my_own", "exit1", "30.00", "31.00", "32.00", "2.000", "15.00"],
        ["my_own", "full", "40.00", "41.00", "42.00", "10.000", "85.00"],
    ]
    policies = {(row[0], row[1]): row[2:] for row in policy_table(runs)[1:]}
    assert policies["PKD", "WISE"] == ["common", spread(61), "6.00 ± 0.00", "60.0", "1 of 2"]
    assert policies["CE", "vanilla"] == ["common", "47.00", "6.00", "60.0", "1 of 1"]


def test_figure_shows_means_at_equal_thresholds(tmp_path):
    make_run(tmp_path, seed=1, base=50)
    make_run(tmp_path, seed=2, base=54)
    shown = panel("toy", read_runs(tmp_path)["toy"])
    assert [curve.combination for curve in shown.curves] == list(COMBINATIONS)
    assert shown.curves[2] == Curve("CE", "wise", (3.0, 10.0), (59.0, 64.0), (6.0, 61.0))
    assert (shown.costs, shown.full_top1_pct) == (POINTS, 62.0)
    assert shown.title == "toy (40 test videos)"


def no_runs(root):
    pass


def missing_table(root):
    (make_run(root) / "policies.csv").unlink()


def no_test_rows(root):
    make_run(root, part="heldout")


def other_columns(root):
    (make_run(root) / "exits.csv").write_text("data,part\ntoy,test\n")


def other_protocol(root):
    make_run(root, seed=1)
    make_run(root, seed=2, protocol="10 crops")


def other_costs(root):
    make_run(root, seed=1)
    make_run(root, seed=2, costs={"exit1": 2.0, "full": 11.0})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_runs, "no exits.csv below .*team_net_wise_all_acc.py writes them"),
        (missing_table, "policies.csv is missing: run team_net_wise_all_acc.py"),
        (no_test_rows, "exits.csv holds no test results"),
        (other_columns, "exits.csv: expected the columns data,split,seed"),
        (other_protocol, "split1_seed2 and .*split1_seed1 differ in protocol"),
        (other_costs, "differ in gmacs"),
    ],
)
def test_what_cannot_be_reported_is_refused(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(ValueError, match=message):
        read_runs(tmp_path)


def test_too_many_methods_for_the_palette(tmp_path):
    curves = [Curve(str(n), "wise", (1.0,), (1.0,), (1.0, 1.0)) for n in range(7)]
    with pytest.raises(ValueError, match="colours for 6 methods, not 7"):
        draw(tmp_path / "figure.png", [Panel("toy", curves, POINTS, 50.0)])


def run_main(script, *arguments):
    parser = script.get_args_parser()
    script.main(parser.parse_args([*map(str, arguments)]), parser)


def test_from_logits_to_the_page(tmp_path):
    for method, quality in (("team_ce", 0.8), ("prog_kd", 1.1)):
        path = tmp_path / "toy" / method / "split1_seed1" / "logits.pt"
        make_logits_file(method=method, quality=quality).save(path)
        run_main(wise_script, "--logits", path)
        run_main(sweep_script, "--logits", path)
    command = [sys.executable, "-m", "early_exit.report", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPO)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1].removeprefix("result: "))
    assert result == {"runs": {"toy": 2}, "page": str(tmp_path / "report.md")}
    page = (tmp_path / "report.md").read_text()
    table = "\n".join(line for line in done.stdout.splitlines() if line.startswith("|"))
    assert len(table.splitlines()) == (2 + 2 * 4) + (2 + 2 * 3 * 2)
    for expected in (*table.splitlines(), "trade_off.png", "max-drop 1", "120", "one run"):
        assert expected in page
    picture = matplotlib.image.imread(tmp_path / "trade_off.png")
    for colour in map(to_rgb, COLOURS[:2]):  # each method's curves are on it
        assert (np.abs(picture[..., :3] - colour).max(axis=2) < 0.02).sum() > 500


def test_nothing_to_report_ends_in_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run_main(report_script, tmp_path)
    assert stop.value.code == 2
    assert "no exits.csv below" in capsys.readouterr().err
