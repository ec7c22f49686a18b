"""The benchmarks of the networks run at a tiny size and report what they promise."""

import csv
import json

import pytest
import torch

from benchmarks import early_exit, forward, policies, vectors
from benchmarks.measuring import interleaved_medians
from dataset_team.dataset import VideoDataset
from dataset_team.identity import file_digest
from dataset_team.records import read_list
from dataset_team.toy import CLASSES
from dataset_team.transforms import normalise
from early_exit import wise, wise_file
from MACs.team_net import exit_gmacs
from models.team_net import TeamNet
from models.team_net_ic import TeamNetIC
from tests.calls import call, printed, refused
from tests.coviar_videos import pictures, write_video
from tests.synthetic_logits import make_logits_file
from training.checkpoint import save_checkpoint
from training.tensor_file import weights_digest

TINY = ["--arch", "resnet18", "--crop-size", "32", "--num_segments", "2", "--repeats", "2"]


def test_cases_take_turns():
    calls = []
    cases = {name: lambda name=name: calls.append(name) for name in "ab"}
    medians = interleaved_medians(cases, repeats=3)
    assert "".join(calls) == "aabb" + "ab" * 3
    assert all(ms >= 0 for ms in medians.values())


def test_forward(capsys):
    result = printed(capsys, forward, *TINY)
    assert result["plain"]["ratio_to_plain"] == 1
    assert result["fp32"]["max_logit_difference"] < 1e-4
    assert result["machine"] and result["cpu_capability"]
    assert ("bf16" in result) == result["bf16_arithmetic"]
    if "bf16" in result:
        assert result["bf16"]["max_logit_difference"] < 0.1
    assert result["gmacs"] == pytest.approx(0.22, rel=0.05)  # resnet18's 1.8 at 224, 6 times, / 49


def test_early_exit(tmp_path, capsys):
    video, table = tmp_path / "video.mp4", tmp_path / "latency.csv"
    write_video(video, pictures(30, (64, 48)))
    options = [*TINY, "--exits", "1", "3", "--batch-sizes", "1", "3"]
    options += ["--videos", str(video), "--out", str(table)]
    result = printed(capsys, early_exit, *options)
    one, three = result["batch_1"], result["batch_3"]
    ratios = [one[name]["macs_ratio"] for name in ("exit1", "exit3", "no_exit_taken")]
    assert ratios == sorted(ratios) and ratios[0] < 0.1 and ratios[-1] == 1
    assert "mixed" not in one
    assert three["mixed"]["macs_ratio"] == pytest.approx(sum(ratios) / 3, abs=1e-3)

    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["exit"] for row in rows] == ["exit1", "exit3", "full", "load"] * 2
    assert {row["motion_arch"] for row in rows} == {"resnet18"}
    assert all(row["machine"] for row in rows)
    # printed to 0.01 ms per batch
    assert float(rows[4]["latency_ms"]) == pytest.approx(three["exit1"]["ms"] / 3, abs=0.005)
    assert float(rows[3]["latency_ms"]) == float(rows[7]["latency_ms"]) == result["load_ms"] > 0
    shares = [float(row["share_of_full"]) for row in rows]
    assert shares[2] == shares[6] == 1
    assert shares[0] == pytest.approx(one["exit1"]["ms"] / one["full"]["ms"], abs=1e-4)
    assert float(rows[2]["gmacs"]) == pytest.approx(0.22, rel=0.05) and rows[3]["gmacs"] == ""


def test_latencies_of_the_same_setting_are_replaced(tmp_path):
    table = tmp_path / "latency.csv"
    row = {**dict.fromkeys(early_exit.COLUMNS, "x"), "batch_size": 1}
    early_exit.write_latencies(table, [{**row, "exit": "exit1"}, {**row, "exit": "full"}])
    early_exit.write_latencies(table, [{**row, "batch_size": 8, "exit": "full"}])
    early_exit.write_latencies(table, [{**row, "exit": "full", "latency_ms": 2}])
    with open(table, newline="") as file:
        found = [(r["batch_size"], r["exit"], r["latency_ms"]) for r in csv.DictReader(file)]
    assert found == [("8", "full", "x"), ("1", "full", "2")]


@pytest.fixture
def study(tmp_path, toy_data):
    """Toy videos, and a run of random exits with made-up logits and WISE weights."""
    (tmp_path / "data").symlink_to(toy_data)
    torch.manual_seed(0)
    net = TeamNetIC(TeamNet(len(CLASSES), 2, arch="resnet18").eval(), (1, 3))
    for stream in net.backbone.streams:  # new ones call all clips the same
        torch.nn.init.normal_(stream.classifier.weight)
    config, model = net.backbone.config, net.backbone.state_dict()
    backbone = tmp_path / "toy/team_net/split1_seed1/best.pt"
    save_checkpoint(backbone, {"config": config, "model": model, "crop_size": 32})
    run = tmp_path / "toy/team_ce/split1_seed1"
    about = {"exits": [1, 3], "backbone": str(backbone), "backbone_digest": weights_digest(model)}
    save_checkpoint(run / "best.pt", {"heads": net.heads.state_dict(), **about})
    logits = make_logits_file(len(CLASSES), exits=(1, 3), model=config, crop_size=32)
    logits.save(run / "logits.pt")
    provenance = {"logits_sha256": file_digest(run / "logits.pt"), "solver": "exact"}
    weights = wise.constant_weights(logits.outputs)
    wise_file.save_weights(
        run / "wise.json", logits.outputs, weights, {**provenance, "fit_on": "heldout"}
    )
    return tmp_path, run, net


def test_policies_on_real_clips(study, capsys):
    folder, run, net = study
    lines = (folder / "data/test.txt").read_text().splitlines(keepends=True)
    test_list = folder / "some.txt"
    test_list.write_text("".join(lines[::3]))
    options = ["--run", run, "--data-name", "toy", "--data-root", folder / "data"]
    options += ["--test-list", test_list, "--max-drop", 0, 20, "--repeats", 1, "--batch-sizes", 3]
    result = printed(capsys, policies, *options)

    records = read_list(test_list, folder / "data", "toy")
    dataset = VideoDataset(records, train=False, num_segments=2, crop_size=32)
    clips = [torch.stack(x) for x in list(zip(*dataset))[:3]]
    with torch.no_grad():
        found = net.eval()(*normalise(*clips)).fused.argmax(1)
    right = sum(label == record.label for label, record in zip(found.tolist(), records))
    assert result["videos"] == len(records)
    assert result["full"]["top1_pct"] == pytest.approx(100 * right / len(records), abs=0.01)
    costs = exit_gmacs(net.backbone.config, (1, 3), 32)
    strict, loose = result["max_drop_0"], result["max_drop_20"]
    assert strict["thresholds"][0] > loose["thresholds"][0]
    for policy in (strict, loose):
        shares = policy["share_pct"]
        assert list(shares) == ["exit1", "exit3", "full"]
        gmacs = sum(shares[point] / 100 * costs[point] for point in costs)
        assert policy["gmacs"] == pytest.approx(gmacs, abs=2e-3 * costs["full"])  # shares to 0.1 %
        # printed to 0.01 ms
        ratio = result["full"]["batch_3"]["ms"] / policy["batch_3"]["ms"]
        assert policy["batch_3"]["gain"] == pytest.approx(ratio, rel=0.05)
        load = result["load_ms"]
        ratio = (result["full"]["batch_3"]["ms"] + load) / (policy["batch_3"]["ms"] + load)
        assert policy["batch_3"]["gain_with_loading"] == pytest.approx(ratio, rel=0.05)


def test_policies_of_a_run_without_logits_are_refused(study, capsys):
    folder, run, _ = study
    (run / "logits.pt").unlink()
    options = ["--run", run, "--data-root", folder, "--test-list", folder / "data/test.txt"]
    assert "save_logits.py writes them" in refused(capsys, policies, *options)


def test_what_cannot_be_used_is_refused_before_the_measurement(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(early_exit, "interleaved_medians", lambda *_: pytest.fail("measured"))
    (tmp_path / "file").write_text("")
    (tmp_path / "no_video.mp4").write_text("text")
    row = ",".join("x" for _ in early_exit.COLUMNS)
    (tmp_path / "long.csv").write_text(f"{','.join(early_exit.COLUMNS)}\n{row}\n{row},\n")
    for option, place, words in (
        ("--videos", "none.mp4", "none.mp4: No such file"),
        ("--videos", "no_video.mp4", "no_video.mp4: "),
        ("--videos", ".", "Is a directory"),
        ("--out", "long.csv", "long.csv, line 3: 14 cells in place of 13; mend it, or name"),
        ("--out", ".", f"{tmp_path}: Is a directory"),
        ("--out", "file/latency.csv", f"{tmp_path / 'file'}: Not a directory"),
    ):
        assert words in refused(capsys, early_exit, *TINY, option, tmp_path / place)


def test_a_table_that_is_changed_meanwhile_loses_no_measurement(tmp_path, capsys, monkeypatch):
    def time_exits(net, args, batch_size):
        args.out.write_text("id,value\n")
        return {name: {"ms": 1.0} for name in ("full", "exit1", "exit2", "exit3")}

    monkeypatch.setattr(early_exit, "time_exits", time_exits)
    with pytest.raises(SystemExit):
        call(early_exit, *TINY, "--batch-sizes", 1, "--out", tmp_path / "latency.csv")
    shown = capsys.readouterr()
    assert json.loads(shown.out)["batch_1"]["exit2"] == {"ms": 1.0}
    assert "has the columns id,value" in shown.err and "Traceback" not in shown.err


def test_windows(server):
    """At the least size: the windows are those of the whole file."""
    done = server.call("-m", "benchmarks.windows", "--minutes", 1)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["equal"] and result["times_faster"] > 1


def test_vectors_of_videos_of_one_stem(tmp_path, capsys):
    """Both are made into H.264, each in a file of its own."""
    for folder, size in (("a", (64, 48)), ("b", (32, 32))):
        (tmp_path / folder).mkdir()
        write_video(tmp_path / folder / "v.mp4", pictures(6, size))
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        measure = vectors.least_times
        patch.setattr(vectors, "least_times", lambda *a: seen.append(a[0]) or measure(*a))
        videos = tmp_path.glob("*/v.mp4")
        assert printed(capsys, vectors, *videos, "--repeats", 1)["videos"] == 2
    assert len(set(seen)) == 2
    for place, words in (("none.mp4", "none.mp4: No such file"), (".", "Is a directory")):
        assert words in refused(capsys, vectors, tmp_path / place)
