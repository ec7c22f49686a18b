"""The benchmarks of the networks run at a tiny size and report what they promise."""

import csv
import subprocess
import sys

import pytest

from benchmarks import early_exit, forward
from benchmarks.timing import interleaved_medians
from early_exit.tables import COLUMNS

TINY = ["--arch", "resnet18", "--crop-size", "32", "--num_segments", "2", "--repeats", "2"]


def test_cases_take_turns():
    calls = []
    cases = {name: lambda name=name: calls.append(name) for name in "ab"}
    medians = interleaved_medians(cases, repeats=3)
    assert "".join(calls) == "aabb" + "ab" * 3
    assert all(ms >= 0 for ms in medians.values())


def test_forward():
    result = forward.main(forward.get_args_parser().parse_args(TINY))
    assert result["plain"]["ratio_to_plain"] == 1
    assert result["fp32"]["max_logit_difference"] < 1e-4
    assert result["bf16"]["max_logit_difference"] < 0.1
    assert result["gmacs"] == pytest.approx(0.22, rel=0.05)  # resnet18's 1.8 at 224, 6 times, / 49


def write_policies(path, shares):
    row = dict.fromkeys(COLUMNS["policies.csv"], "x")
    rows = [{**row, "part": "test", "exit": "all", "top1_pct": 90, "share_pct": 100}]
    for point, share in shares.items():
        rows.append({**row, "part": "test", "exit": point, "top1_pct": 80, "share_pct": share})
    rows.append({**row, "part": "heldout", "exit": "full", "share_pct": 100})
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS["policies.csv"])
        writer.writeheader()
        writer.writerows(rows)


def test_early_exit(tmp_path):
    path = tmp_path / "policies.csv"
    write_policies(path, {"exit1": 50, "exit3": 20, "full": 30})
    options = [*TINY, "--exits", "1", "3", "--batch-sizes", "1", "3", "--policies", str(path)]
    result = early_exit.main(early_exit.get_args_parser().parse_args(options))
    one, three = result["batch_1"], result["batch_3"]
    ratios = [one[name]["macs_ratio"] for name in ("exit1", "exit3", "no_exit_taken")]
    assert ratios == sorted(ratios) and ratios[0] < 0.1 and ratios[-1] == 1
    assert "mixed" not in one
    assert three["mixed"]["macs_ratio"] == pytest.approx(sum(ratios) / 3, abs=1e-3)
    (policy,) = result["policies"]
    ms = 0.5 * one["exit1"]["ms"] + 0.2 * one["exit3"]["ms"] + 0.3 * one["no_exit_taken"]["ms"]
    assert policy["top1_pct"] == 90
    assert policy["ms"] == pytest.approx(ms, abs=0.06)  # printed to 0.1


def test_policies_need_batches_of_one():
    command = [sys.executable, "-m", "benchmarks.early_exit"]
    command += ["--batch-sizes", "2", "--policies", "policies.csv"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    assert "--policies needs 1 among --batch-sizes" in run.stderr
