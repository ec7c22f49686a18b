"""The rivals' costs: against thop, against the published numbers, and the script around them."""

import csv
import functools
import json
from pathlib import Path

import pytest
import thop
import torch
from torch import nn

from MACs import coviar_net, cv_c3d, dmc_net, latency, mfcd_net, mimo, team_net, wu
from MACs import main as macs
from MACs.counter import count_macs
from MACs.main import add_times, get_args_parser, main, table_row
from models.team_net import TeamNet
from models.team_net_ic import TeamNetIC
from study import mean_costs
from tests.calls import refused

REPO = Path(__file__).resolve().parent.parent
RIVALS = (coviar_net, wu, mfcd_net, cv_c3d, dmc_net, mimo)


def thop_macs(network, *inputs):
    """thop's count, and how much of it is batch normalisation: four operations a value."""
    values = 0

    def add(norm, _, output):
        nonlocal values
        values += output.numel()

    for module in network.eval().modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            module.register_forward_hook(add)
    macs = thop.profile(network, inputs, verbose=False)[0]
    return macs, 4 * values


def assert_same(ours, theirs, norms):
    """Normalisation is the whole difference, but for thop's average pooling (under 0.1 %)."""
    assert theirs - norms == pytest.approx(ours, rel=1e-3)
    # MFNet normalises much and multiplies little in its grouped convolutions: 2.4 %, others 1.1 %
    assert theirs == pytest.approx(ours, rel=0.025)


@pytest.mark.parametrize("rival", RIVALS, ids=lambda module: module.__name__.split(".")[1])
def test_rivals_against_thop(rival):
    for part in rival.networks(num_classes=101):
        x = torch.empty(part.shape, device="meta")
        assert_same(count_macs(part.network, x), *thop_macs(part.network, x))


def test_team_net_against_thop():
    config = {"num_classes": 101, "num_segments": 8}
    with torch.device("meta"):
        net = TeamNetIC(TeamNet(**config), (1, 2, 3))
        clips = [torch.empty(1, 8, c, 224, 224) for c in (3, 2, 3)]
    ours = sum(team_net.stage_macs(config, (1, 2, 3), 224).values())
    assert_same(ours, *thop_macs(net, *clips))


@functools.cache
def found_methods():
    modules = (team_net, *RIVALS)
    return {method.name: method for module in modules for method in module.rivals(101)}


# MACs / 1024**3 with normalisation, activations and pooling, and the published number.
AS_PUBLISHED = {
    "TEAM-Net, leaving at exit 1": (2.420, 2.458),
    "TEAM-Net, leaving at exit 2": (14.418, 14.495),
    "TEAM-Net, leaving at exit 3": (28.291, 28.393),
    "TEAM-Net": (57.569, 57.69),
    "CoViAR": (48.433, 48.53),
    "Wu et al.": (42.012, 42.09),
    "MFCD-Net": (7.855, 7.903),
    "DMC-Net": (278.801, 278.97),
    "MIMO": (1.916, 1.919),  # what its network measures; the table quotes 15.4
}


def test_published_numbers_that_are_right():
    found = found_methods()
    for name, (ours, published) in AS_PUBLISHED.items():
        row = table_row(found[name], "ucf101")
        assert row["gmacs_1024_as_published"] == ours, name
        # 2 %: ptflops prices some pointwise work twice, which shows at exit 1 (1.5 %)
        assert ours == pytest.approx(published, rel=0.02), name
        assert found[name].published in (published, 15.4)


def test_the_committed_table_is_what_is_counted():
    with open(REPO / "results/macs.csv", newline="") as file:
        committed = {row["method"]: row for row in csv.DictReader(file)}
    assert list(committed) == list(found_methods())
    for name, method in found_methods().items():
        for column, value in table_row(method, "ucf101").items():
            assert committed[name][column] == ("" if value is None else str(value)), (name, column)


def test_published_numbers_that_are_not_right_say_so():
    found = found_methods()
    for name, published in {"CV-C3D": 25.39, "MIMO": 15.4}.items():
        method = found[name]
        assert method.published == published
        assert str(published) in method.note
        assert abs(method.macs / 1024**3 / published - 1) > 0.5


def test_c3d_by_hand():
    """Its convolutions as the paper lists them: (in, out, frames, side)."""
    layers = [(3, 64, 16, 112), (64, 128, 16, 56), (128, 256, 8, 28), (256, 256, 8, 28)]
    layers += [(256, 512, 4, 14), (512, 512, 4, 14), (512, 512, 2, 7), (512, 512, 2, 7)]
    macs = sum(27 * c_in * c_out * t * side**2 for c_in, c_out, t, side in layers)
    macs += 8192 * 4096 + 4096 * 4096 + 4096 * 101
    part = cv_c3d.networks(101)[0]
    assert count_macs(part.network, torch.empty(part.shape, device="meta")) == macs


def write_policies(path, *runs):
    """A policies.csv with one policy for each of the runs, {exit: (share_pct, gmacs)}."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        names = ("split", "seed", *mean_costs.POLICY_COLUMNS)
        writer.writerow([*names, "exit", "top1_pct", "share_pct", "gmacs"])
        for seed, shares in enumerate(runs):
            run = ["split1", seed, *("x" * len(mean_costs.POLICY_COLUMNS))]
            writer.writerow([*run, "all", 81.5 + seed, 100, ""])
            writer.writerows([*run, point, 80, *score] for point, score in shares.items())


def test_main_prints_and_writes_the_table(server, tmp_path):
    """From inside its folder."""
    out = tmp_path / "macs.csv"
    policies = tmp_path / "policies.csv"
    write_policies(policies, {"exit1": (25, 2.0), "full": (75, 10.0)})
    options = ["--data", "hmdb51", "--detail", "--out", str(out), "--early-exit", str(policies)]
    run = server.call("main.py", *options, cwd=REPO / "MACs")
    assert run.returncode == 0, run.stderr
    assert "layer4 and classifiers" in run.stdout
    with open(out, newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(found_methods())
    wu_row = rows["Wu et al."]
    assert float(wu_row["gmacs_per_video"]) == pytest.approx(10 * float(wu_row["gmacs"]), abs=0.01)
    total = float(wu_row["gmacs_per_video"]) * 4590 / 1e3
    assert float(wu_row["tmacs_three_test_splits"]) == pytest.approx(total, abs=0.1)
    assert wu_row["command"].startswith("python MACs/main.py --data hmdb51")


def test_main_prints_json(tmp_path, capsys):
    policies = tmp_path / "policies.csv"
    write_policies(policies, {"exit1": (25, 2.0), "full": (75, 10.0)})
    times = write_times(tmp_path / "latency.csv")
    parser = get_args_parser()
    options = ["--json", "--early-exit", str(policies), "--times", str(times)]
    main(parser.parse_args(options), parser)
    content = json.loads(capsys.readouterr().out)
    rivals = {row["method"]: row for row in content["methods"]}
    assert list(rivals) == list(found_methods())
    assert rivals["TEAM-Net"]["network_ms"] == 400
    assert rivals["TEAM-Net"]["load_ms_share_pct"] == 12.5
    (mean,) = content["early_exit"]
    assert mean["gmacs"] == 8.0 and mean["top1_pct"] == 81.5
    assert mean["gmacs_1024"] == pytest.approx(8e9 / 1024**3, abs=1e-3)


def write_times(path, scale=1.0, precision="fp32", load=50, **changes):
    """Rows of benchmarks.early_exit --out, appended: 20, 100, 200 and 400 ms, and loading."""
    about = {**latency.PUBLISHED, "precision": precision, "threads": 2, "machine": "m"}
    ms = dict(zip(latency.POINTS, (20, 100, 200, 400)))
    new = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, [*about, "exit", "latency_ms"])
        if new:
            writer.writeheader()
        for point, value in {**ms, "load": load}.items():
            timed = value if point == "load" else scale * value
            writer.writerow({**about, **changes, "exit": point, "latency_ms": timed})
    return path


def test_measured_times_become_columns(tmp_path):
    rows = [{"method": "TEAM-Net, leaving at exit 2"}, {"method": "CoViAR"}]
    path = write_times(tmp_path / "latency.csv")
    write_times(path, scale=0.01, crop_size=112)  # another network
    write_times(path, scale=0.5, precision="bf16")  # the same, faster
    add_times(rows, latency.columns(path))
    assert rows[0] == {
        "method": "TEAM-Net, leaving at exit 2",
        "network_ms": 50,
        "network_ms_share_pct": 25,
        "load_ms": 50,
        "load_ms_share_pct": 25,
        "timed": "bf16, 2 threads, m",
    }
    assert set(rows[1]) == set(rows[0]) and rows[1]["load_ms"] is None


def test_times_of_another_network_or_table_are_refused(tmp_path):
    path = write_times(tmp_path / "latency.csv", crop_size=112)
    with pytest.raises(ValueError, match="no times of the published network .arch resnet50, "):
        latency.columns(path)
    path.write_text("exit,latency_ms\nfull,3\n")
    words = r"latency.csv is no file of python -m benchmarks.early_exit --out .* \(no column arch\)"
    with pytest.raises(ValueError, match=words):
        latency.columns(path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (",m,full,400.0", ",m,full,", ", line 5: latency_ms is empty;"),
        (",m,full,400.0", ",m,full", ", line 5: 9 cells in place of 10;"),
        (",m,full,400.0", ",m,full,400.0,", ", line 5: 11 cells in place of 10;"),
        (",m,full,400.0", ",m,full,nan", ", line 5: latency_ms is 'nan', no number;"),
        (",m,full,400.0", ",m,full,0", ", line 5: latency_ms is 0, and times are above 0;"),
        (",m,exit2,100.0", ",m,exit2,-1", ", line 3: latency_ms is -1, and times are above 0;"),
        (",m,exit2,", ",,exit2,", ", line 3: machine is empty;"),
        (",m,exit2,", ",\xe9,exit2,", ":3: is not UTF-8 text (byte 0xe9);"),
    ],
)
def test_damaged_times_are_refused_by_their_line(tmp_path, capsys, old, new, words):
    path = write_times(tmp_path / "latency.csv")
    path.write_text(path.read_text().replace(old, new), encoding="latin-1")
    again = f" python -m benchmarks.early_exit --out {path} writes it again\n"
    assert refused(capsys, macs, "--times", path).endswith(f"{path}{words}{again}")


def test_a_place_that_cannot_be_written_is_refused_before_the_counting(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(macs, "COUNTED", ())
    (tmp_path / "file").write_text("")
    for out, words in ((".", "Is a directory"), ("file/new/macs.csv", "file: Not a directory")):
        assert words in refused(capsys, macs, "--out", tmp_path / out)


def test_main_refuses_what_it_cannot_read(tmp_path, capsys):
    parser = get_args_parser()
    with pytest.raises(SystemExit):
        main(parser.parse_args(["--times", str(tmp_path / "none.csv")]), parser)
    assert "none.csv" in capsys.readouterr().err


def test_costs_are_averaged_over_the_runs_of_a_study(tmp_path):
    path = tmp_path / "policies.csv"
    write_policies(
        path,
        {"exit1": (25, 2.0), "full": (75, 10.0)},  # 8 gmacs
        {"exit1": (75, 2.0), "full": (25, 10.0)},  # 4 gmacs
    )
    assert [row["gmacs"] for row in mean_costs.read_policies(path)] == [8, 4]
    (row,) = mean_costs.over_runs(mean_costs.read_policies(path))
    assert (row["runs"], row["gmacs"], row["top1_pct"]) == (2, 6, 82)
    assert row["gmacs_std"] == pytest.approx(8**0.5, abs=1e-3)  # three decimals
    assert row["gmacs_1024"] == pytest.approx(6e9 / 1024**3, abs=1e-3)


def test_costs_of_a_collected_study_are_those_of_its_rows(synthetic_study):
    """Shares times costs, summed here, against the mean over videos the sweep wrote."""
    with open(synthetic_study / "policies.csv", newline="") as file:
        written = [row for row in csv.DictReader(file) if row["exit"] == "all"]
    policies = mean_costs.read_policies(synthetic_study / "policies.csv")
    wise = {policy["protocol"] for policy in policies if policy["combination"] == "wise"}
    assert wise == {"8 segments, selected on heldout; WISE (exact) fitted on heldout"}
    assert len(policies) == len(written)
    for policy, row in zip(policies, written):
        assert policy["gmacs"] == pytest.approx(float(row["gmacs"]), abs=6e-4)  # three decimals
    assert {row["runs"] for row in mean_costs.over_runs(policies)} == {4}


def test_shares_that_do_not_add_up_are_refused(tmp_path):
    path = tmp_path / "policies.csv"
    write_policies(path, {"exit1": (25, 2.0), "full": (70, 10.0)})
    with pytest.raises(ValueError, match="hold 95.00 % of the videos"):
        mean_costs.read_policies(path)


def test_other_tables_are_refused_with_the_line(tmp_path):
    path = tmp_path / "trade_off.csv"
    path.write_text("data,split\nucf101,split1\n")
    with pytest.raises(ValueError, match="trade_off.csv, line 2: not a row of a policies.csv"):
        mean_costs.read_policies(path)
    write_policies(path, {"exit1": (25, 2.0), "full": (75, 10.0)})
    whole = path.read_text()
    for text, words in {
        "": "trade_off.csv is empty; team_net_wise_all_acc.py writes it again",
        whole.splitlines()[0] + "\n": "trade_off.csv has no rows; team_net",
        whole.rpartition(",")[0] + "\n": "trade_off.csv, line 4: .* cells in place of",
    }.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            mean_costs.read_policies(path)
