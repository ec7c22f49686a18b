"""The predictor and the scripts over time: no more is read than the decision needs."""

import csv
import json
import random
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import predict
import save_logits
import team_net_wise_all_acc
import train_team_ce
import wise_team_net_logit
from benchmarks import over_time as measure
from benchmarks import timings
from coviar import read_index
from coviar.source_index import CannotSeek
from dataset_team.dataset import load_test_view
from dataset_team.records import read_list
from dataset_team.sampling import reading_order
from dataset_team.toy import CLASSES
from dataset_team.transforms import normalise_iframe
from early_exit.logits import LogitsFile
from early_exit.policy import decide, load_policy, save_policy
from early_exit.predictor import Predictor
from early_exit.reading import SegmentReader
from early_exit.route import along, named_route, parse_route, point_names, route_gmacs
from MACs.team_net import segment_gmacs
from models.team_net import TeamNet
from study import over_time as tables
from tests.calls import call, printed, refused
from tests.coviar_videos import pictures, write_video
from tests.over_time import ROUTES, T, policy_of
from training.checkpoint import load_checkpoint, save_checkpoint
from training.probe import features_of, new_stream
from training.trained import load_trained


@pytest.fixture(scope="module")
def study(tmp_path_factory, toy_options, tiny_resnets):
    """A backbone of four segments (untrained), exits on the mean, their logits per segment."""
    folder = tmp_path_factory.mktemp("over_time")
    torch.manual_seed(1)
    net = TeamNet(len(CLASSES), num_segments=T, arch="resnet18", fusion="sum")
    for stream in net.streams:
        torch.nn.init.normal_(stream.classifier.weight, std=0.7)
    content = {"model": net.state_dict(), "config": net.config, "crop_size": 32, "heldout": []}
    content["encoding"] = {"size": [64, 48], "gop": 12}
    save_checkpoint(folder / "toy/team_net/split1_seed1/best.pt", content)
    options = [*toy_options, "--checkpoint_dir", folder]
    exits = ["--exits", 1, 3, "--views", 2, "--epochs", 4, "--lr", 0.05]
    call(train_team_ce, *options, *exits, "--ic-pool", "mean")
    call(save_logits, *options, "--method", "team_ce", "--views", 0, "--per-segment")
    call(save_logits, *options, "--method", "team_net", "--views", 0, "--per-segment")
    return folder, options


def run_of(folder, method):
    return folder / f"toy/{method}/split1_seed1"


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("team_ce", ["depth_then_time"]),
        ("team_ce", ROUTES[2]),
        ("team_net", ["time"]),
        ("team_net", ["streams_then_time"]),
    ],
)
def test_predictions_are_those_of_saved_logits(
    study, toy_data, capsys, tmp_path, method, words, ahead
):
    folder, _ = study
    run = run_of(folder, method)
    logits = LogitsFile.load(run / "logits.pt")
    route = parse_route(words, T, logits.exits)
    costs = segment_gmacs(logits.meta["model"], route, 32)
    saved = along(logits, route, "logits", costs).samples("test")[0]
    sure = torch.from_numpy(saved).softmax(-1).amax(-1).numpy()
    thresholds = [float(np.sort(column)[-7:-5].mean()) for column in sure[:, :-1].T]
    save_policy(tmp_path / "policy.json", policy_of(route, thresholds))
    expected = decide(load_policy(tmp_path / "policy.json"), saved)
    assert len(set(expected.points)) >= 3
    videos = [r.path for r in read_list(toy_data / "test.txt", toy_data, "toy")]
    capsys.readouterr()
    options = ["--policy", tmp_path / "policy.json", "--json", "--read-ahead", ahead]
    assert call(predict, *videos, "--checkpoint", run, *options) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = point_names(route)
    assert [line["exit"] for line in found] == [names[point] for point in expected.points]
    assert [line["top"][0]["index"] for line in found] == expected.labels.tolist()
    gmacs = route_gmacs(route, costs)
    for line, point in zip(found, expected.points):
        count = route[point][0]
        assert line["segments"] == sorted(reading_order(T)[:count])
        assert line["num_segments"] == T and line["gmacs"] == gmacs[point]
        assert line["wasted_segments"] == (ahead if count < T else 0)
        assert line["load_ms"] > 0 and line["network_ms"] > 0


def test_scripts_make_the_policy_that_predict_takes(study, toy_data, capsys, tmp_path):
    folder, _ = study
    run = run_of(folder, "team_ce")
    words = ["--logits", run / "logits.pt", "--route", "depth_then_time"]
    call(wise_team_net_logit, *words)
    call(team_net_wise_all_acc, *words, "--max-drop", 30)
    policy = run / "over_time/policy.json"
    video = next(iter(sorted(toy_data.glob("*/*.mp4"))))
    picture = tmp_path / "clip.png"
    call(predict, video, "--checkpoint", run, "--policy", policy, "--show", picture)
    printed = capsys.readouterr().out
    assert "GMACs" in printed and picture.stat().st_size > 10_000
    rows = (run / "over_time/policies.csv").read_text()
    assert "full@2" in rows
    assert not (run / "policy.json").exists()
    plain = run_of(folder, "team_net") / "logits.pt"
    assert "--route" in refused(capsys, team_net_wise_all_acc, "--logits", plain)


def test_thresholds_are_chosen_on_as_many_views_as_are_reported(
    study, toy_options, toy_data, capsys, tmp_path
):
    """And predict.py, which takes one view, says so."""
    backbone = run_of(study[0], "team_net") / "best.pt"
    words = ["--pretrained", backbone, "--checkpoint_dir", tmp_path, "--method", "team_net"]
    words += ["--per-segment", "--views", 0, "--clips", 2, "--crops", 3]
    call(save_logits, *toy_options, *words)
    run = run_of(tmp_path, "team_net")
    parts = LogitsFile.load(run / "logits.pt").parts
    assert {name: len(part.logits) for name, part in parts.items()} == {
        **{"train": 1, "heldout": 6, "test": 6}
    }
    words = ["--logits", run / "logits.pt", "--route", "time"]
    call(wise_team_net_logit, *words)
    call(team_net_wise_all_acc, *words)
    policy = run / "over_time/policy.json"
    video = next(iter(sorted(toy_data.glob("*/*.mp4"))))
    capsys.readouterr()
    call(predict, video, "--checkpoint", backbone, "--policy", policy)
    assert "note: the policy was made on the mean of 6 views" in capsys.readouterr().err


def test_logits_that_cannot_be_saved_are_refused_by_name(study, toy_options, capsys, tmp_path):
    """Weights and options before the views are computed, what they do not tell afterwards."""
    backbone = run_of(study[0], "team_net") / "best.pt"
    words = ["--method", "team_net", "--per-segment", "--checkpoint_dir", tmp_path]

    def refuse(path, *more):
        return refused(capsys, save_logits, *toy_options, *words, "--pretrained", path, *more)

    message = refuse(backbone, "--views", 0, "--parts", "train_views")
    assert "--parts train_views: there is nothing to save" in message
    content = load_checkpoint(backbone)
    for name, value, expected in (
        ("nan", torch.nan, "nan.pt: the weights mv.classifier.bias are not finite"),
        ("huge", 3e38, "the network of {path}: part 'train': logits of"),
    ):
        content["model"]["mv.classifier.bias"][0] = value
        path = tmp_path / f"{name}.pt"
        save_checkpoint(path, content)
        assert expected.format(path=path) in refuse(path, "--views", 0)
        assert (tmp_path / "toy/views").exists() == (name == "huge")


def test_a_clip_in_memory_is_decided_as_the_file(study, toy_data, tmp_path):
    """What a timeline does with its windows."""
    run = run_of(study[0], "team_net")
    route = named_route("time", T, ())
    logits = LogitsFile.load(run / "logits.pt")
    saved = along(logits, route, "logits", {"full": 1.0}).samples("test")[0][:12]
    sure = torch.from_numpy(saved).softmax(-1).amax(-1)
    policy = policy_of(route, sure[:, :-1].quantile(0.7, dim=0).tolist())
    predictor = Predictor(load_trained(run), policy)
    points = set()
    for record in read_list(toy_data / "test.txt", toy_data, "toy")[:12]:
        prediction = predictor.predict(record.path)
        clip = load_test_view(read_index(record.path), T, 32)
        probabilities, point, _ = predictor.decide(clip)
        assert predictor.points[point] == prediction.point
        assert torch.equal(probabilities, prediction.probabilities)
        points.add(point)
    assert len(points) > 1


def test_times_are_measured_and_budgets_kept(study, toy_data, capsys, tmp_path):
    run = run_of(study[0], "team_net")
    table = tmp_path / "timings.csv"
    words = ["--run", run, "--data-root", toy_data, "--test-list", toy_data / "test.txt"]
    words += ["--data-name", "toy", "--every", 8, "--out", table]
    for more in (["--route", "streams_then_time"], ["--route", "full@2"]):
        measured = printed(capsys, timings, *words, *more)
    assert set(measured) > {"full@2", "full"} and measured["full"]["decode_ms"] > 0
    assert "exits" not in measured  # a backbone has none
    words = ["--logits", run / "logits.pt", "--route", "streams_then_time"]
    call(wise_team_net_logit, *words)
    call(team_net_wise_all_acc, *words, "--timings", table)
    with open(table, newline="") as file:
        times = {row["point"]: row for row in csv.DictReader(file) if "mv" not in row["points"]}
    with open(run / "over_time/policies.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["exit"] == "residual@1"]
    assert rows
    for row in rows:  # one test view, so one clip's time is a video's
        for key in ("decode_ms", "network_ms"):
            assert float(row[key]) == pytest.approx(float(times["residual@1"][key]), abs=1e-6)
    assert "decode ms" in capsys.readouterr().out
    message = refused(capsys, team_net_wise_all_acc, *words, "--budget-ms", 5)
    assert "add --timings" in message
    route = ["--logits", run / "logits.pt", "--route", "full@3"]
    call(wise_team_net_logit, *route)
    message = refused(capsys, team_net_wise_all_acc, *route, "--timings", table)
    assert "no times of" in message and "points full@3 full" in message


def test_depth_and_time_are_measured_in_turns(study, toy_data, tmp_path, capsys):
    table = tmp_path / "timings.csv"
    words = ["--run", run_of(study[0], "team_ce"), "--data-root", toy_data, "--data-name", "toy"]
    words += ["--test-list", toy_data / "test.txt", "--every", 12, "--out", table]
    measured = printed(capsys, timings, *words, "--route", "full@1")
    assert list(measured["exits"]) == ["exit1", "exit3", "full"]
    with open(table, newline="") as file:
        lines = list(csv.DictReader(file))
    rows = [(line["points"], line["point"], float(line["network_ms"])) for line in lines]
    both = ("full@1 full", ["full@1", "full"]), ("exit1 exit3 full", ["exit1", "exit3", "full"])
    assert [row[:2] for row in rows] == [(points, name) for points, names in both for name in names]
    assert rows[2][2] == measured["exits"]["exit1"]["network_ms"] > 0


def test_save_logits_refuses_what_has_no_answer_before_the_end(study, capsys, tmp_path):
    folder, options = study
    shutil.copytree(run_of(folder, "team_net"), tmp_path / "toy/team_net/split1_seed1")
    here = [*options[:-1], tmp_path]
    message = refused(capsys, save_logits, *here, "--method", "team_net", "--views", 0)
    assert "add --per-segment" in message
    exits = ["--exits", 1, "--views", 1, "--epochs", 1]
    call(train_team_ce, *here, *exits)
    words = ["--method", "team_ce", "--views", 0, "--per-segment"]
    assert "--ic-pool mean" in refused(capsys, save_logits, *here, *words)
    torch.manual_seed(0)
    net = TeamNet(len(CLASSES), num_segments=2, arch="resnet18", is_shift=True)
    content = {"model": net.state_dict(), "config": net.config, "crop_size": 32, "heldout": []}
    save_checkpoint(tmp_path / "toy/team_net/split1_seed1/best.pt", content)
    words = ["--method", "team_net", "--views", 0, "--per-segment"]
    assert "temporal shift" in refused(capsys, save_logits, *here, *words)


def noise(packet, rng):
    return packet[:5] + rng.randbytes(len(packet) - 5)


def ones(packet, rng):
    return packet[:5] + b"\xff" * (len(packet) - 5)


def zeros(packet, rng):
    return bytes(len(packet))


# Codec and container, the pictures of the last GOP that break, and how.
BREAKAGES = {
    "noise in H.264": ("libx264", "mp4", range(36, 48), noise),
    "ones in H.264": ("libx264", "mp4", range(36, 48), ones),
    "noise in an I-frame of H.264": ("libx264", "matroska", range(36, 37), noise),
    "noise in VP9": ("libvpx-vp9", "matroska", range(36, 48), noise),
}
CUT_OFF = {
    "zeros in H.264": ("libx264", "mp4", range(36, 48), zeros),
    "zeros in MPEG-4, from an I-frame on": ("mpeg4", "avi", range(36, 48), zeros),
    "zeros in MPEG-4, from another picture on": ("mpeg4", "avi", range(40, 48), zeros),
}


def broken(path, codec, container, numbers, damage):
    """A file of four GOPs whose last one is damaged."""
    options = {"x264_params": "scenecut=0:bframes=0"} if codec == "libx264" else {}
    write_video(path, pictures(48, (64, 48)), codec, container, **options)
    with av.open(str(path)) as file:
        packets = [(packet.pos, bytes(packet)) for packet in file.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    rng = random.Random(0)
    for number in numbers:
        start, packet = packets[number]
        start = content.index(packet, start)  # behind the container's own header
        content[start : start + len(packet)] = damage(packet, rng)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", BREAKAGES)
def test_a_broken_file_is_answered_if_the_decision_was_made(study, capsys, tmp_path, kind):
    path = broken(tmp_path / "broken.video", *BREAKAGES[kind])
    # The segments are the GOPs, the last is the third to be read.
    assert reading_order(T)[2] == T - 1
    predictor = Predictor(load_trained(run_of(study[0], "team_net")), None)
    route = named_route("time", T, ())
    for ahead in (0, 1):
        for count in (1, 2):  # segments read when it leaves
            thresholds = [-1 if k == count else 1 for k in (1, 2, 3)]
            found = predictor.with_policy(policy_of(route, thresholds), ahead).predict(path)
            assert found.point == f"full@{count}"
            assert found.segments == sorted(reading_order(T)[:count])
            said = [note for note in found.notes if "segment 4 of 4" in note]
            assert bool(said) == (ahead == 1 and count == 2)
            assert all("the answer was there before" in note for note in said)
        for thresholds in ([1, 1, -1], [1, 1, 1]):
            with pytest.raises(ValueError, match="nothing was decided before") as error:
                predictor.with_policy(policy_of(route, thresholds), ahead).predict(path)
            assert "segment 4 of 4, the 3. to be read" in str(error.value)
            assert "broken.video" in str(error.value)


@pytest.mark.parametrize("kind", CUT_OFF)
def test_a_file_that_is_cut_off_is_refused_before_anything_is_read(study, capsys, tmp_path, kind):
    path = broken(tmp_path / "broken.video", *CUT_OFF[kind])
    save_policy(tmp_path / "policy.json", policy_of(named_route("time", T, ()), [-1, 1, 1]))
    options = ["--policy", tmp_path / "policy.json", "--json"]
    assert call(predict, path, "--checkpoint", run_of(study[0], "team_net"), *options) == 1
    assert "cut off" in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize("error", [ValueError, OSError, CannotSeek])
@pytest.mark.parametrize("ahead", [0, 1])
def test_whatever_a_segment_breaks_with_is_told(error, ahead):
    def load(number):
        if number == 2:
            raise error("a.avi: gone")
        return number

    with SegmentReader(load, [1, 3, 2, 0], ahead) as reader:
        assert reader.read(2) == [1, 3] and reader.numbers() == [1, 3]
    assert bool(reader.note) == bool(ahead)
    if ahead:
        assert "segment 3 of 4, the 3. to be read was read ahead" in reader.note
        assert "a.avi: gone" in reader.note and reader.wasted == 0
    message = "a.avi: gone .*nothing was decided before"
    with pytest.raises(error, match=message), SegmentReader(load, [1, 3, 2, 0], ahead) as reader:
        reader.read(3)


def test_heads_of_one_run_are_the_same_again(study, tmp_path):
    folder, options = study
    shutil.copytree(run_of(folder, "team_net"), tmp_path / "toy/team_net/split1_seed1")
    exits = ["--exits", 1, 3, "--views", 2, "--epochs", 4, "--lr", 0.05, "--ic-pool", "mean"]
    call(train_team_ce, *options[:-1], tmp_path, *exits)
    first, second = (
        torch.load(run_of(place, "team_ce") / "best.pt")["heads"] for place in (folder, tmp_path)
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_ways_are_measured_and_drawn(study, toy_data, capsys, tmp_path):
    run = run_of(study[0], "team_ce")
    lines = (toy_data / "test.txt").read_text().splitlines(keepends=True)
    (tmp_path / "some.txt").write_text("".join(lines[::3]))
    words = ["--run", run, "--data-root", toy_data, "--test-list", tmp_path / "some.txt"]
    words += ["--fixed-segments", 1, 2, "--every", 4, "--out", tmp_path / "ways.csv"]
    torch.manual_seed(0)
    stream = new_stream("resnet18", len(CLASSES), T, None)
    about = {"arch": "resnet18", "crop_size": 32, "class_names": list(CLASSES)}
    save_checkpoint(tmp_path / "probe/best.pt", {"stream": stream.state_dict(), **about})
    words += ["--probe", tmp_path / "probe", "--clock", "cpu"]
    for _ in range(2):  # the second takes the place of the first
        measured = printed(capsys, measure, *words)
    with open(tmp_path / "ways.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["way"] for row in rows if not row["exits"]] == ["T = 1", "T = 2", "T = 4"]
    routes = {"time", "depth", "depth_then_time", "streams_then_time", "streams_coarse"}
    assert {row["exits"] for row in rows} == {"", "probe", *routes}
    assert [row["segments"] for row in rows if row["exits"] == "probe"] == ["1", "2", "4"]
    videos = read_list(tmp_path / "some.txt", toy_data, "toy")
    right = []
    for record in videos:
        frames = load_test_view(read_index(record.path), 2, 32)[0]
        with torch.no_grad():
            features = features_of(stream.eval(), normalise_iframe(frames)).mean(0)
            right.append(int(stream.classifier(features).argmax()) == record.label)
    probe = next(row for row in rows if row["way"] == "I-frame probe, T = 2")
    assert float(probe["top1_pct"]) == pytest.approx(100 * np.mean(right), abs=1e-3)
    promised = next(row for row in rows if row["way"] == "max-drop 1, promised")
    assert promised["mean_segments"] == "4.0"  # few videos promise nothing
    assert len(rows) == len(measured) - 3  # benchmark, threads, machine
    full = next(row for row in rows if row["way"] == "T = 4")
    assert {row["num_videos"] for row in rows} == {str(len(videos))}
    assert {row["num_timed"] for row in rows} == {str(-(-len(videos) // 4))}
    for row in rows:
        assert float(row["gmacs"]) <= float(full["gmacs"]) * 1.001
        total = float(row["load_ms"]) + float(row["network_ms"])
        assert float(row["latency_ms"]) == pytest.approx(total, abs=0.002)
    words = [run, "--out", tmp_path, "--figures", tmp_path / "figures"]
    parser = tables.get_args_parser()
    capsys.readouterr()
    tables.main(parser.parse_args(list(map(str, words))), parser)
    written = list(map(Path, capsys.readouterr().out.split()))
    assert len(written) == 7 and all(path.stat().st_size > 500 for path in written)
    with open(tmp_path / "points.csv", newline="") as file:
        points = [row for row in csv.DictReader(file) if row["part"] == "test"]
    logits = LogitsFile.load(run / "logits.pt").parts["test"]
    right = logits.logits[0, :, 2:].sum(1).argmax(1) == logits.labels
    last = next(row for row in points if row["point"] == "full" and row["evidence"] == "logits")
    assert float(last["top1_pct"]) == pytest.approx(100 * right.mean(), abs=1e-4)
