"""Exits over time: what is read, what each point of a route says, who leaves where."""

import csv
import json
import random
import shutil

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
from coviar import read_index
from dataset_team.dataset import load_test_segment, load_test_view
from dataset_team.lists import read_list
from dataset_team.sampling import reading_order
from dataset_team.toy import CLASSES
from early_exit import wise
from early_exit.logits import LogitsError, LogitsFile, Part
from early_exit.outside import load_outside
from early_exit.policy import Policy, decide, load_policy, save_policy
from early_exit.predictor import Predictor
from early_exit.route import along, check_route, named_route, parse_route, point_names, route_gmacs
from MACs.team_net import exit_gmacs, segment_gmacs
from models.over_time import early_exit_over_time, one_segment, whole_clip
from models.team_net import TeamNet
from models.team_net_ic import TeamNetIC
from study import over_time as tables
from tests.coviar_videos import pictures, write_video
from training.checkpoint import save_checkpoint
from training.exits import segment_weights
from training.trained import load_trained

T = 4
EXITS = ("exit1", "exit3")
ROUTES = [
    ["full@1", "full@2", "full@3"],
    ["exit1@1", "exit3@1", "full@1", "full@3"],
    ["exit1@1", "exit1@3", "full@3", "exit1@4"],
    ["exit1@4", "exit3@4"],
    ["full@1", "exit1@2", "exit3@2"],
]
NOBODY = 1.0


def call(script, *words):
    parser = script.get_args_parser()
    return script.main(parser.parse_args([str(word) for word in words]), parser)


def refused(capsys, script, *words):
    with pytest.raises(SystemExit) as stop:
        call(script, *words)
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def net(tiny_resnets):
    torch.manual_seed(3)
    backbone = TeamNet(5, num_segments=T, arch="resnet18").eval()
    net = TeamNetIC(backbone, (1, 3), "mean").eval()
    for module in (*net.heads.values(), *(stream.classifier for stream in backbone.streams)):
        torch.nn.init.normal_(module.weight, std=0.7)
    return net


@pytest.fixture(scope="module")
def clips():
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(9, T, c, 32, 32, generator=generator) for c in (3, 2, 3)]


@pytest.fixture(scope="module")
def logits(net, clips):
    """What save_logits.py keeps of `clips`."""
    output = net(*clips)
    single, order = one_segment(net.backbone), reading_order(T)
    with torch.no_grad():
        whole, streams = whole_clip(single, clips)
        heads = [net.head(k, whole.squeezes[k - 1].unflatten(1, (T, -1))) for k in net.exits]
    segments = torch.stack([*heads, *streams.unbind(2)], 2)[:, order].half()
    own = torch.stack([*output.exits, output.iframe, output.mv, output.residual], 1).detach()
    names = [f"video{number}" for number in range(len(own))]
    labels = torch.arange(len(own)) % 5
    part = Part(names, labels, own[None], None, segments[None].detach())
    meta = {"data": "d", "split": "s", "seed": 1, "method": "m", "protocol": "p", "command": "c"}
    meta = {**meta, "model": net.backbone.config, "crop_size": 32, "exits": [1, 3]}
    outputs = [*EXITS, "iframe", "mv", "residual"]
    return LogitsFile(meta, outputs, list("abcde"), {"test": part})


def policy_of(route, thresholds, evidence="logits", weights=None):
    number = len(route)
    weights = np.eye(number) if weights is None else weights
    rows = tuple(map(tuple, weights.tolist()))
    exits = tuple(range(1, number))
    return Policy(exits, tuple(thresholds), rows, route=route, evidence=evidence)


def reading(clips):
    """A `read` of clips in memory, and the list of what it was asked for."""
    order, asked = reading_order(T), []

    def read(first, last, rows):
        asked.append((first, last, rows.tolist()))
        return [x[rows][:, order[first:last]] for x in clips]

    return read, asked


def test_segments_are_read_coarse_to_fine():
    assert reading_order(8) == [3, 0, 7, 5, 1, 2, 4, 6]
    for total in range(1, 40):
        order = reading_order(total)
        assert sorted(order) == list(range(total)) and order[0] == (total - 1) // 2
        for count in range(3, total + 1):
            read = sorted(order[:count])
            assert read[0] == 0 and read[-1] == total - 1
            gaps = np.diff(read)
            # halving gaps leaves none more than about twice as long as another
            assert gaps.max() <= 2 * gaps.min() + 1


def test_a_segment_read_alone_is_that_of_the_clip(toy_data):
    for video in sorted(toy_data.glob("*/*.mp4"))[:3]:
        index = read_index(video)
        whole = load_test_view(index, T, 32)
        for number in range(T):
            alone = load_test_segment(index, T, 32, number)
            assert all(torch.equal(x[0], y[number]) for x, y in zip(alone, whole))


def test_the_network_of_one_segment_says_the_same_to_the_bit(net, clips):
    output = net.backbone(*clips)
    whole, streams = whole_clip(one_segment(net.backbone), clips)
    assert all(torch.equal(x, y) for x, y in zip(output[1:], whole[1:]))
    assert all(torch.equal(x, y) for x, y in zip(output.squeezes, whole.squeezes))
    assert torch.equal(streams.mean(1).sum(1), output.fused) or torch.allclose(
        streams.mean(1).sum(1), output.fused, atol=1e-6
    )
    assert net.backbone.num_segments == T


@pytest.mark.parametrize("evidence", ["logits", "probability"])
@pytest.mark.parametrize("words", ROUTES)
def test_points_are_means_over_the_segments_read(logits, words, evidence):
    route = parse_route(words, T, EXITS)
    costs = segment_gmacs(logits.meta["model"], route, 32)
    found = along(logits, route, evidence, costs)
    assert found.outputs == point_names(route) and found.num_segments is None
    segments = logits.parts["test"].segments[0].astype(np.float64)
    own = logits.parts["test"].logits[0]
    for column, (count, depth) in enumerate(route):
        outputs = [EXITS.index(depth)] if depth in EXITS else [2, 3, 4]
        for clip in range(len(segments)):
            scores = [sum(segments[clip, k, o] for o in outputs) for k in range(count)]
            if evidence == "probability":
                shares = [np.exp(s - s.max()) / np.exp(s - s.max()).sum() for s in scores]
                expected = np.log(sum(shares) / count)
            else:
                expected = sum(scores) / count
            got = found.parts["test"].logits[0, clip, column]
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-3)
            if count < T:  # nothing but float32 sums lies between
                np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-5)
    if evidence == "logits":
        last = found.parts["test"].logits[0, :, -1]
        assert np.array_equal(last, own[:, 2] + own[:, 3] + own[:, 4])


@pytest.mark.parametrize("evidence", ["logits", "probability"])
@pytest.mark.parametrize("words", ROUTES)
def test_a_batch_decides_as_its_saved_logits_say(net, clips, logits, words, evidence):
    route = parse_route(words, T, EXITS)
    saved = along(logits, route, evidence, segment_gmacs(net.backbone.config, route, 32))
    rng = np.random.default_rng(len(words))
    weights = np.tril(rng.uniform(0.2, 1, (len(route), len(route))))
    plain = policy_of(route, [NOBODY] * (len(route) - 1), evidence, weights)
    sure = wise.combine(saved.samples("test")[0], weights)
    sure = torch.from_numpy(sure).softmax(-1).amax(-1).numpy()
    thresholds = [float(np.sort(column)[-3:-1].mean()) for column in sure[:, :-1].T]
    policy = policy_of(route, thresholds, evidence, weights)
    expected = decide(policy, saved.samples("test")[0])
    read, asked = reading(clips)
    decided = early_exit_over_time(net, read, len(clips[0]), policy)
    assert decided.point.tolist() == expected.points.tolist()
    assert decided.label.tolist() == expected.labels.tolist()
    assert len(set(expected.points)) > 1
    # Each segment was read once, and for the clips that were undecided.
    assert [first for first, _, _ in asked] == [0, *(last for _, last, _ in asked[:-1])]
    for first, _, rows in asked:
        point = next(d for d, (count, _) in enumerate(route) if count > first)
        assert rows == [row for row in range(9) if expected.points[row] >= point]
    read, _ = reading(clips)
    stayed = early_exit_over_time(net, read, len(clips[0]), plain)
    assert set(stayed.point.tolist()) == {len(route) - 1}


def test_at_the_last_segment_the_answer_is_the_networks(net, clips):
    fused = net.backbone(*clips).fused
    for words in (["full@1", "full@2", "full@3"], ["full@1"], ["exit1@1"], ["exit1@4"]):
        route = parse_route(words, T, EXITS)
        read, _ = reading(clips)
        policy = policy_of(route, [NOBODY] * (len(route) - 1))
        decided = early_exit_over_time(net, read, len(clips[0]), policy)
        assert torch.equal(decided.label, fused.argmax(1))
        if words == ["exit1@4"]:  # all segments at once, as the network reads them
            assert torch.equal(decided.logits, fused)
        # A product of matrices of other sizes may sum in another order: float32 has 7 digits.
        torch.testing.assert_close(decided.logits, fused, rtol=1e-5, atol=1e-6)


def test_costs_of_a_route():
    per_segment = {"exit1": 1.0, "exit3": 3.0, "full": 10.0}
    for words in ROUTES:
        route = parse_route(words, T, EXITS)
        costs = route_gmacs(route, per_segment)
        for point, cost in enumerate(costs):
            paid = [
                max((per_segment[d] for k, d in route[: point + 1] if k > segment), default=0)
                for segment in range(T)
            ]
            assert cost == sum(paid)
        assert costs[-1] == T * 10
    config = {"num_classes": 7, "num_segments": 8, "arch": "resnet18"}
    one = segment_gmacs(config, named_route("time", 8, ()), 64)["full"]
    assert 8 * one == pytest.approx(exit_gmacs(config, (), 64)["full"], rel=1e-12)


def test_named_routes():
    assert named_route("time", 3, EXITS) == ((1, "full"), (2, "full"), (3, "full"))
    both = named_route("depth_then_time", 2, EXITS)
    assert point_names(both) == ["exit1@1", "exit3@1", "full@1", "full"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["full@5"], "1 to 4 segments"),
        (["full@0"], "1 to 4 segments"),
        (["exit2@1"], "one of exit1, exit3, full"),
        (["time", "full@1"], "no point"),
        (["full@2", "full@1"], "from full@2 to full@1"),
        (["full@2", "exit1@2"], "from full@2 to exit1@2"),
        (["full@2", "full@2"], "from full@2 to full@2"),
        (["exit3@4", "exit1@4"], "from exit3@4 to exit1@4"),
    ],
)
def test_routes_that_lead_nowhere(words, message):
    with pytest.raises(ValueError, match=message):
        parse_route(words, T, EXITS)


def test_policies_check_their_route(tmp_path):
    good = policy_of(((1, "full"), (4, "full")), [0.5])
    save_policy(tmp_path / "policy.json", good)
    assert load_policy(tmp_path / "policy.json") == good
    content = json.loads((tmp_path / "policy.json").read_text())
    for change in ({"route": [[2, "full"], [1, "full"]]}, {"route": [[1, "full"]]}):
        (tmp_path / "policy.json").write_text(json.dumps({**content, **change}))
        with pytest.raises(ValueError, match="route"):
            load_policy(tmp_path / "policy.json")
    with pytest.raises(ValueError, match="evidence"):
        policy_of(((1, "full"), (4, "full")), [0.5], evidence="votes")
    with pytest.raises(ValueError):
        check_route([(1.5, "full")])


def test_networks_that_cannot_leave_early_say_why(net, clips, tiny_resnets):
    shifted = TeamNetIC(TeamNet(5, num_segments=T, arch="resnet18", is_shift=True), ())
    concat = TeamNetIC(net.backbone, (1, 3))
    time = policy_of(named_route("time", T, ()), [NOBODY] * (T - 1))
    depth = policy_of(parse_route(["exit1@1"], T, EXITS), [NOBODY])
    longer = policy_of(named_route("time", T + 1, ()), [NOBODY] * T)
    read, asked = reading(clips)
    for network, policy, reason in (
        (shifted, time, "temporal shift"),
        (concat, depth, "--ic-pool mean"),
        (net, longer, "full of 4"),
        (TeamNetIC(net.backbone, (1,), "mean"), policy_of(((1, "exit3"), (T, "full")), [1]), "3"),
    ):
        with pytest.raises(ValueError, match=reason):
            early_exit_over_time(network, read, 9, policy)
    assert not asked
    with pytest.raises(ValueError, match="segment by segment"):
        net.early_exit(*clips, time)
    early_exit_over_time(concat, read, 9, time)  # its exits have no part in this


def test_heads_see_every_number_of_segments():
    weights = segment_weights(6000, T, torch.Generator().manual_seed(0))
    torch.testing.assert_close(weights.sum(1), torch.ones(6000))
    counts = (weights > 0).sum(1)
    shares = torch.bincount(counts, minlength=T + 1)[1:] / 6000
    assert (shares - 1 / T).abs().max() < 0.03  # five standard deviations
    used = (weights > 0).float().mean(0)
    assert (used - used.mean()).abs().max() < 0.03
    used = weights > 0
    torch.testing.assert_close(weights[used], (1 / counts)[:, None].expand(-1, T)[used])


def test_files_keep_segments_as_float16(logits, tmp_path):
    logits.save(tmp_path / "logits.pt")
    again = LogitsFile.load(tmp_path / "logits.pt")
    assert again.num_segments == T and again.parts["test"].segments.dtype == np.float16
    some = again.part("test").select(["video3", "video1"])
    assert np.array_equal(some.segments, logits.parts["test"].segments[:, [3, 1]])
    part = logits.parts["test"]
    for bad, message in (
        (part.segments[:, :-1], "shape"),
        (part.segments[0], "shape"),
        (part.segments * np.float16(np.nan), "'video0' are not finite"),
    ):
        with pytest.raises(LogitsError, match=message):
            LogitsFile(
                logits.meta,
                logits.outputs,
                logits.class_names,
                {"test": part._replace(segments=bad)},
            )


def outside_arrays(segments=3, exits=2, number=60, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(number) % classes
    logits = rng.standard_normal((number, segments, exits, classes)).astype(np.float32)
    logits[np.arange(number), :, :, labels] += np.linspace(1, 2, exits)
    names = np.array([f"a{row}" for row in range(number)])
    return {"logits": logits, "labels": labels, "names": names, "gmacs": np.linspace(1, 5, exits)}


def test_outside_logits_may_have_segments(tmp_path, capsys):
    arrays = outside_arrays()
    np.savez(tmp_path / "scores.npz", **arrays)
    found = load_outside(tmp_path / "scores.npz")
    assert found.num_segments == 3 and found.gmacs == (3.0, 15.0)
    np.testing.assert_allclose(
        found.parts["heldout"].logits[0], arrays["logits"].mean(1), rtol=1e-6, atol=1e-6
    )
    words = ["--logits", tmp_path / "scores.npz", "--route", "exit1@1", "full@1", "full@2"]
    call(team_net_wise_all_acc, *words, "--max-drop", 3)
    policy = load_policy(tmp_path / "scores/over_time/policy.json")
    assert policy.route == ((1, "exit1"), (1, "full"), (2, "full"), (3, "full"))
    # The same by hand: a file of four exits.
    logits = arrays["logits"]
    by_hand = [logits[:, 0, 0], logits[:, 0, 1], logits[:, :2, 1].mean(1), logits[:, :, 1].mean(1)]
    flat = {**arrays, "logits": np.stack(by_hand, 1), "gmacs": np.array([1, 5, 10, 15.0])}
    np.savez(tmp_path / "flat.npz", **flat)
    call(team_net_wise_all_acc, "--logits", tmp_path / "flat.npz", "--max-drop", 3)
    same = load_policy(tmp_path / "flat/policy.json")
    np.testing.assert_allclose(policy.thresholds, same.thresholds, atol=1e-5)
    call(team_net_wise_all_acc, *words, "--max-drop", 20, "--guarantee", 0.8)
    assert load_policy(tmp_path / "scores/over_time/policy.json").promise["num_videos"] > 0
    # WISE weights of another route or evidence are not taken.
    for change in (["--evidence", "probability"], ["--route", "full@1"]):
        assert "wise_team_net_logit.py again" in refused(
            capsys, team_net_wise_all_acc, *words, *change
        )
    call(wise_team_net_logit, *words, "--evidence", "probability")
    call(team_net_wise_all_acc, *words, "--evidence", "probability", "--max-drop", 3)
    np.savez(tmp_path / "plain.npz", **{**flat, "logits": flat["logits"]})
    message = refused(
        capsys, team_net_wise_all_acc, "--logits", tmp_path / "plain.npz", "--route", "time"
    )
    assert "--route needs logits per segment" in message


@pytest.fixture(scope="module")
def study(tmp_path_factory, toy_options, tiny_resnets):
    """A backbone of four segments (untrained), exits on the mean, their logits per segment."""
    folder = tmp_path_factory.mktemp("over_time")
    torch.manual_seed(1)
    net = TeamNet(len(CLASSES), num_segments=T, arch="resnet18")
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
    [("team_ce", ["depth_then_time"]), ("team_ce", ROUTES[2]), ("team_net", ["time"])],
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


def broken(path, pictures_of_gop=range(36, 48)):
    """A file of four GOPs of H.264 whose last GOP is noise."""
    write_video(path, pictures(48, (64, 48)), "libx264", "mp4", x264_params="scenecut=0:bframes=0")
    with av.open(str(path)) as file:
        packets = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    rng = random.Random(0)
    for number in pictures_of_gop:
        start, size = packets[number]
        content[start + 5 : start + size] = rng.randbytes(size - 5)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_broken_file_is_answered_if_the_decision_was_made(study, capsys, tmp_path, ahead):
    folder, _ = study
    path = broken(tmp_path / "broken.mp4")
    # The segments are the GOPs, the last is the third to be read.
    assert reading_order(T)[2] == T - 1
    route = named_route("time", T, ())
    for leaves_after, thresholds in enumerate(([-1, 1, 1], [1, -1, 1], [1, 1, -1], [1, 1, 1]), 1):
        save_policy(tmp_path / "policy.json", policy_of(route, thresholds))
        options = ["--policy", tmp_path / "policy.json", "--json", "--read-ahead", ahead]
        capsys.readouterr()
        code = call(predict, path, "--checkpoint", run_of(folder, "team_net"), *options)
        line = json.loads(capsys.readouterr().out)
        if leaves_after <= 2:
            assert code == 0 and line["exit"] == f"full@{leaves_after}"
            assert line["segments"] == sorted(reading_order(T)[:leaves_after])
            said = [note for note in line["notes"] if "segment 4 of 4" in note]
            assert bool(said) == (ahead == 1 and leaves_after == 2)
        else:
            assert code == 1
            assert "segment 4 of 4, the 3. to be read" in line["error"]
            assert "nothing was decided before" in line["error"]


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


def test_ways_are_measured_and_drawn(study, toy_data, tmp_path):
    run = run_of(study[0], "team_ce")
    words = ["--run", run, "--data-root", toy_data, "--test-list", toy_data / "test.txt"]
    words += ["--fixed-segments", 1, 2, "--every", 4, "--out", tmp_path / "ways.csv"]
    for _ in range(2):  # the second takes the place of the first
        args = measure.get_args_parser().parse_args(list(map(str, words)))
        measured = measure.main(args)
    with open(tmp_path / "ways.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["way"] for row in rows if not row["exits"]] == ["T = 1", "T = 2", "T = 4"]
    assert {row["exits"] for row in rows} == {"", "time", "depth", "depth_then_time"}
    assert len(rows) == len(measured) - 3  # benchmark, threads, machine
    full = next(row for row in rows if row["way"] == "T = 4")
    for row in rows:
        assert float(row["gmacs"]) <= float(full["gmacs"]) * 1.001
        total = float(row["load_ms"]) + float(row["network_ms"])
        assert float(row["latency_ms"]) == pytest.approx(total, abs=0.002)
    words = [run, "--out", tmp_path, "--figures", tmp_path / "figures"]
    written = tables.main(tables.get_args_parser().parse_args(list(map(str, words))))
    assert len(written) == 6 and all(path.stat().st_size > 500 for path in written)
    with open(tmp_path / "points.csv", newline="") as file:
        points = [row for row in csv.DictReader(file) if row["part"] == "test"]
    logits = LogitsFile.load(run / "logits.pt").parts["test"]
    right = logits.logits[0, :, 2:].sum(1).argmax(1) == logits.labels
    last = next(row for row in points if row["point"] == "full" and row["evidence"] == "logits")
    assert float(last["top1_pct"]) == pytest.approx(100 * right.mean(), abs=1e-4)
