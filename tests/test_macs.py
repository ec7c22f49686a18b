"""MACs against formulas written out by hand and against the published numbers."""

import math

import pytest
import torch
from torch import nn

from MACs.counter import count_macs
from MACs.team_net import exit_gmacs, stage_macs
from models.team_net import TeamNet
from models.team_net_ic import TeamNetIC

PUBLISHED_NETWORK = {"num_classes": 101, "num_segments": 8, "arch": "resnet50"}


def macs_by_formula(net, *inputs):
    """Output elements times the multiplications in each, for every conv and linear that runs."""
    total = 0

    def add(layer, _, output):
        nonlocal total
        total += output.numel() * math.prod(layer.weight.shape[1:])

    kinds = (nn.Conv2d, nn.Conv3d, nn.Linear)
    hooks = [m.register_forward_hook(add) for m in net.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        net(*inputs)
    for hook in hooks:
        hook.remove()
    return total


def test_macs_of_layers_by_hand():
    with torch.device("meta"):
        conv = nn.Conv2d(6, 8, kernel_size=3, stride=2, padding=1, groups=2)
        assert count_macs(conv, torch.empty(2, 6, 9, 9)) == 2 * 8 * 5 * 5 * 3 * 3 * 3
        conv = nn.Conv3d(2, 3, kernel_size=(1, 3, 3))
        assert count_macs(conv, torch.empty(1, 2, 4, 5, 5)) == 3 * 4 * 3 * 3 * 2 * 9
        assert count_macs(nn.Linear(7, 5), torch.empty(4, 7)) == 4 * 7 * 5
        assert count_macs(lambda a, b: a @ b, torch.empty(2, 3), torch.empty(3, 4)) == 24


def test_inference_mode_changes_no_count():
    with torch.inference_mode(), torch.device("meta"):
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 5))
        assert (
            count_macs(net, torch.empty(2, 3, 8, 8))
            == 2 * 6 * 6 * 4 * 3 * 3 * 3 + 2 * 4 * 6 * 6 * 5
        )


@pytest.mark.parametrize("is_shift", [False, True])
def test_full_network_is_the_sum_of_its_convolutions(is_shift):
    config = {"num_classes": 5, "num_segments": 3, "arch": "resnet18", "is_shift": is_shift}
    net = TeamNetIC(TeamNet(**config), (1, 3))
    clips = [torch.randn(1, 3, c, 64, 64) for c in (3, 2, 3)]
    expected = macs_by_formula(net, *clips)
    assert sum(stage_macs(config, (1, 3), 64).values()) == expected
    assert exit_gmacs(config, (1, 3), 64)["full"] == pytest.approx(expected / 1e9, rel=1e-12)


def test_published_costs():
    gmacs = exit_gmacs(PUBLISHED_NETWORK, (1, 2, 3), 224)
    expected = {"exit1": 2.520, "exit2": 15.265, "exit3": 30.065, "full": 61.42}
    assert list(gmacs) == list(expected)
    # 0.1 %: the published exits include scaling by the TEAM block, which a clip that leaves skips
    assert gmacs == pytest.approx(expected, rel=1e-3)


def test_an_exit_pays_for_the_exits_before_it_and_nothing_after_it():
    alone = exit_gmacs(PUBLISHED_NETWORK, (3,), 224)
    both = exit_gmacs(PUBLISHED_NETWORK, (1, 3), 224)
    assert list(both) == ["exit1", "exit3", "full"]
    head = 8 * 48 * 101 / 1e9
    assert both["exit3"] - alone["exit3"] == pytest.approx(head, rel=1e-6)
    assert both["full"] - alone["full"] == pytest.approx(head, rel=1e-6)
    steps = stage_macs(PUBLISHED_NETWORK, (3,), 224)
    run = list(steps)[: list(steps).index("exit 3") + 1]
    assert run == ["stem", "layer1", "layer2", "exit 3"]
    assert alone["exit3"] == pytest.approx(sum(steps[name] for name in run) / 1e9)


def test_temporal_shift_is_free():
    config = {"num_classes": 5, "num_segments": 4, "arch": "resnet50"}
    shifted = exit_gmacs({**config, "is_shift": True}, (1, 2, 3, 4), 112)
    assert shifted == exit_gmacs(config, (1, 2, 3, 4), 112)
