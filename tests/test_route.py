"""Routes through segments and depths: their names, costs, policies, and logits of any network."""

import json

import numpy as np
import pytest
import torch

import team_net_wise_all_acc
import wise_team_net_logit
from early_exit.outside import load_outside
from early_exit.policy import load_policy, save_policy
from early_exit.route import check_route, named_route, parse_route, point_names, route_gmacs
from MACs.team_net import exit_gmacs, segment_gmacs
from tests.calls import call, refused
from tests.over_time import EXITS, ROUTES, T, policy_of
from training.exits import segment_weights


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
    alone = {"iframe": 1.0, "mv": 2.0, "residual": 4.0}
    costs = {**alone, "iframe+mv": 3.0, "iframe+residual": 5.0, "full": 7.5}
    for words, paid in (
        (["residual@1", "iframe+residual@1", "full@2"], [4, 5, 15, 22.5]),
        (["residual@1", "iframe@2"], [4, 5 + 1, 22.5]),  # the first segment has run both
        (["iframe+mv@1", "residual@2", "iframe@3"], [3, 7 + 4, 7 + 5 + 1, 22.5]),
    ):
        assert route_gmacs(parse_route(words, 3, ()), costs) == pytest.approx(paid)
    config = {"num_classes": 7, "num_segments": 8, "arch": "resnet18"}
    one = segment_gmacs(config, named_route("time", 8, ()), 64)["full"]
    assert 8 * one == pytest.approx(exit_gmacs(config, (), 64)["full"], rel=1e-12)


def test_named_routes():
    assert named_route("time", 3, EXITS) == ((1, "full"), (2, "full"), (3, "full"))
    both = named_route("depth_then_time", 2, EXITS)
    assert point_names(both) == ["exit1@1", "exit3@1", "full@1", "full"]
    streams = point_names(named_route("streams_then_time", 2, ()))
    assert streams == ["residual@1", "iframe+residual@1", "full@1", "full"]
    coarse = named_route("streams_coarse", 8, ())
    assert coarse[2:] == ((1, "full"), (3, "full"), (8, "full"))
    assert named_route("streams_coarse", 1, ())[2:] == ((1, "full"),)
    assert named_route("streams_coarse", 3, ())[2:] == ((1, "full"), (3, "full"))


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
        (["mv@1", "residual@1"], "from mv@1 to residual@1"),
        (["iframe+mv@1", "mv@1"], "from iframe\\+mv@1 to mv@1"),
        (["full@1", "mv@1"], "from full@1 to mv@1"),
        (["residual+iframe@1"], "streams such as iframe\\+residual"),
        (["mv+depth@1"], "streams such as iframe\\+residual"),
        (["exit1@1", "mv@2"], "exits or single streams, not both"),
        (["iframe+mv+residual@1"], "iframe\\+mv\\+residual@1 is full@1"),
        (["mv@1", "iframe+mv+residual@4"], "iframe\\+mv\\+residual@4 is full@4"),
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
    routes = [[[2, "full"], [1, "full"]], [[1, "full"]], [[1, "iframe+mv+residual"], [4, "full"]]]
    routes += [
        [[1, depth], [4, "full"]] for depth in ("iframe+bogus", "residual+mv", "exit", "", 1)
    ]
    for change in ({"route": route} for route in routes):
        (tmp_path / "policy.json").write_text(json.dumps({**content, **change}))
        with pytest.raises(ValueError, match="route"):
            load_policy(tmp_path / "policy.json")
    with pytest.raises(ValueError, match="evidence"):
        policy_of(((1, "full"), (4, "full")), [0.5], evidence="votes")
    with pytest.raises(ValueError):
        check_route([(1.5, "full")])


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


def outside_arrays(segments=3, exits=2, number=60, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(number) % classes
    logits = rng.standard_normal((number, segments, exits, classes)).astype(np.float32)
    logits[np.arange(number), :, :, labels] += np.linspace(1, 2, exits)
    names = np.array([f"a{row}" for row in range(number)])
    return {"logits": logits, "labels": labels, "names": names, "gmacs": np.linspace(1, 5, exits)}


@pytest.mark.parametrize("wish", [[], ["--guarantee", 0.9]])
def test_a_route_with_more_points_than_thresholds_can_be_combined(tmp_path, capsys, wish):
    np.savez(tmp_path / "scores.npz", **outside_arrays(segments=14))
    words = ["--logits", tmp_path / "scores.npz", "--route", "time", "--max-drop", 5, *wish]
    call(team_net_wise_all_acc, *words)
    assert "note: no rule per_exit: 13 exits are too many" in capsys.readouterr().out
    assert len(load_policy(tmp_path / "scores/over_time/policy.json").thresholds) == 13
    message = refused(capsys, team_net_wise_all_acc, *words, "--policy-rule", "per_exit")
    assert "--policy-rule per_exit: 13 exits are too many" in message


@pytest.mark.parametrize("words", [["time"], ["depth_then_time"], ["exit1@1", "exit2@2", "full@3"]])
def test_outside_exits_of_any_name_are_numbered_on_a_route(tmp_path, capsys, words):
    arrays = outside_arrays(segments=4, exits=3)
    own = np.array(["layer3", "layer2", "out"])
    np.savez(tmp_path / "named.npz", **arrays, exit_names=own)
    np.savez(tmp_path / "plain.npz", **arrays)
    made = {}
    for name in ("named", "plain"):
        options = ["--logits", tmp_path / f"{name}.npz", "--route", *words]
        for script in (wise_team_net_logit, team_net_wise_all_acc):
            call(script, *options)
        note = "note: on a route exit1 is layer3, exit2 is layer2, full is out"
        assert (note in capsys.readouterr().out) == (name == "named")
        made[name] = load_policy(tmp_path / name / "over_time/policy.json")
    assert made["named"].thresholds == made["plain"].thresholds
    assert made["named"].route == made["plain"].route
    options = ["--logits", tmp_path / "named.npz", "--route", "layer2@1"]
    message = refused(capsys, team_net_wise_all_acc, *options)
    assert "one of exit1, exit2, full" in message


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
