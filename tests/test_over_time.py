"""Exits over time: what is read, what each point of a route says, who leaves where."""

import numpy as np
import pytest
import torch

from coviar import read_index
from dataset_team.dataset import load_test_segment, load_test_view
from dataset_team.sampling import reading_order
from early_exit import wise
from early_exit.logits import LogitsFile
from early_exit.part import LogitsError, Part
from early_exit.policy import decide
from early_exit.route import along, named_route, parse_route, point_names
from MACs.team_net import segment_gmacs
from models import STREAMS, over_time
from models.over_time import early_exit_over_time, one_segment, run_alone, whole_clip
from models.team_net import TeamNet
from models.team_net_ic import TeamNetIC
from tests.over_time import EXITS, ROUTES, STREAM_ROUTES, T, policy_of

NOBODY = 1.0


@pytest.fixture(scope="module")
def net(tiny_resnets):
    torch.manual_seed(3)
    backbone = TeamNet(5, num_segments=T, arch="resnet18").eval()
    net = TeamNetIC(backbone, (1, 3), "mean").eval()
    for module in (*net.heads.values(), *(stream.classifier for stream in backbone.streams)):
        torch.nn.init.normal_(module.weight, std=0.7)
    return net


@pytest.fixture(scope="module")
def summed(tiny_resnets):
    """Streams that do not see each other."""
    torch.manual_seed(4)
    backbone = TeamNet(5, num_segments=T, arch="resnet18", fusion="sum").eval()
    for stream in backbone.streams:
        torch.nn.init.normal_(stream.classifier.weight, std=0.7)
    return TeamNetIC(backbone, ()).eval()


@pytest.fixture(scope="module")
def clips():
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(9, T, c, 32, 32, generator=generator) for c in (3, 2, 3)]


@pytest.fixture(scope="module")
def logits(net, clips):
    return logits_of(net, clips)


def logits_of(net, clips):
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
    meta = {**meta, "model": net.backbone.config, "crop_size": 32, "exits": list(net.exits)}
    outputs = [*(f"exit{k}" for k in net.exits), "iframe", "mv", "residual"]
    return LogitsFile(meta, outputs, list("abcde"), {"test": part})


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


@pytest.mark.parametrize("words", STREAM_ROUTES)
def test_points_of_streams_are_sums_of_those_read(summed, clips, words):
    logits = logits_of(summed, clips)
    route = parse_route(words, T, ())
    costs = segment_gmacs(summed.backbone.config, route, 32)
    found = along(logits, route, "logits", costs)
    segments = logits.parts["test"].segments[0].astype(np.float64)
    for column, (count, depth) in enumerate(route[:-1]):
        columns = [k for k, name in enumerate(STREAMS) if depth == "full" or name in depth]
        expected = segments[:, :count][:, :, columns].mean(1).sum(1)
        got = found.parts["test"].logits[0, :, column]
        # At the end they are the network's own, not rounded to float16.
        np.testing.assert_allclose(got, expected, atol=2e-3 if count == T else 2e-5)
    alone = [costs[name] for name in STREAMS if name in costs]
    assert all(0 < cost < costs["full"] for cost in alone)
    if "iframe+residual" in costs and len(alone) == 2:
        assert costs["iframe+residual"] == pytest.approx(sum(alone))


def test_streams_alone_cost_together_what_the_network_costs():
    config = {"num_classes": 5, "num_segments": T, "arch": "resnet18", "fusion": "sum"}
    costs = segment_gmacs(config, [(1, name) for name in (*STREAMS, "full")], 64)
    assert costs["full"] == pytest.approx(sum(costs[name] for name in STREAMS), rel=1e-12)


@pytest.mark.parametrize("words", STREAM_ROUTES)
def test_no_stream_runs_that_no_clip_needs(summed, clips, words, monkeypatch):
    route = parse_route(words, T, ())
    runs = []

    def run(stream, features):
        runs.append((stream, len(features)))
        return run_alone(stream, features)

    monkeypatch.setattr(over_time, "run_alone", run)
    read, asked = reading(clips)
    early_exit_over_time(summed, read, 9, policy_of(route, [-1.0] + [1.0] * (len(route) - 2)))
    segments, depth = route[0]
    names = STREAMS if depth == "full" else depth.split("+")
    assert runs == [(getattr(summed.backbone, name), 9 * segments) for name in names]
    assert asked == [(0, segments, list(range(9)))]


@pytest.mark.parametrize("evidence", ["logits", "probability"])
@pytest.mark.parametrize("words", STREAM_ROUTES)
def test_a_batch_decides_by_streams_as_its_saved_logits_say(summed, clips, words, evidence):
    check_decisions(summed, clips, logits_of(summed, clips), parse_route(words, T, ()), evidence)


@pytest.mark.parametrize("evidence", ["logits", "probability"])
@pytest.mark.parametrize("words", ROUTES)
def test_a_batch_decides_as_its_saved_logits_say(net, clips, logits, words, evidence):
    check_decisions(net, clips, logits, parse_route(words, T, EXITS), evidence)


def check_decisions(net, clips, logits, route, evidence):
    saved = along(logits, route, evidence, segment_gmacs(net.backbone.config, route, 32))
    rng = np.random.default_rng(len(route))
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
        (net, policy_of(((1, "residual"), (T, "full")), [NOBODY]), "--fusion sum"),
        (TeamNetIC(net.backbone, (1,), "mean"), policy_of(((1, "exit3"), (T, "full")), [1]), "3"),
    ):
        with pytest.raises(ValueError, match=reason):
            early_exit_over_time(network, read, 9, policy)
    assert not asked
    with pytest.raises(ValueError, match="segment by segment"):
        net.early_exit(*clips, time)
    early_exit_over_time(concat, read, 9, time)  # its exits have no part in this


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
