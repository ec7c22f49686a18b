"""MACs against formulas written out by hand and against the published numbers."""

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from MACs.counter import count_macs
from MACs.team_net import exit_gmacs, stage_macs
from models.inference import prepare_for_inference
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


def pointwise_macs(function, *inputs):
    return count_macs(function, *inputs, pointwise=True) - count_macs(function, *inputs)


PRICES = [  # of (2, 4, 6, 6): module, what it costs besides multiplying, what it multiplies
    (nn.BatchNorm2d(4), 2 * 288, 0),
    (nn.LayerNorm(6), 2 * 288, 0),
    (nn.GroupNorm(2, 4), 2 * 288, 0),
    (nn.ReLU(), 288, 0),
    (nn.ReLU(inplace=True), 288, 0),
    (nn.LeakyReLU(0.1, inplace=True), 288, 0),
    (nn.ReLU6(), 288, 0),
    (nn.Sigmoid(), 288, 0),
    (nn.SiLU(), 288, 0),
    (nn.Hardswish(), 288, 0),
    (nn.GELU(), 288, 0),
    (nn.MaxPool2d(2), 8 * 9 * 4, 0),  # 9 windows of 4 in each of 8 maps
    (nn.AvgPool2d(3), 8 * 4 * 9, 0),
    (nn.MaxPool2d(3, 2, 1), 288, 0),  # windows that overlap read each value once, as published
    (nn.AdaptiveAvgPool2d(1), 0, 0),
    (nn.Dropout(), 0, 0),
    (nn.Conv2d(4, 3, 3, padding=1), 0, 2 * 3 * 36 * 4 * 9),
    (nn.Linear(6, 5), 0, 48 * 6 * 5),
    (nn.Sequential(nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3), nn.ReLU()), 3 * 216, 216 * 4),
]


@pytest.mark.parametrize("module, pointwise, multiplied", PRICES, ids=lambda value: str(value))
def test_price_of_one_module(module, pointwise, multiplied):
    x = torch.empty(2, 4, 6, 6, device="meta")
    module.eval().to("meta")
    assert count_macs(module, x) == multiplied
    assert pointwise_macs(module, x) == pointwise


class Calls(nn.Module):
    """A module that calls a function between two others."""

    def __init__(self, function):
        super().__init__()
        self.before, self.after = nn.Identity(), nn.ReLU()
        self.function = function

    def forward(self, x):
        return self.after(self.function(self.before(x)))


@pytest.mark.parametrize(
    "function, macs",
    [
        (F.relu, 288),
        (torch.relu_, 288),
        (lambda x: x.tanh(), 288),
        (lambda x: F.max_pool2d(x, 2), 288),
        (lambda x: F.layer_norm(x, [6]), 2 * 288),
        (lambda x: x + x * 2, 0),
    ],
)
def test_price_of_a_function_outside_of_the_modules(function, macs):
    x = torch.empty(2, 4, 6, 6, device="meta")
    outputs = function(x).numel()  # of which the ReLU behind it takes one each
    assert pointwise_macs(Calls(function), x) == macs + outputs


class Unknown(nn.Module):
    def forward(self, x):
        return x.cumsum(0)


@pytest.mark.parametrize("pointwise", [False, True])
def test_a_module_of_unknown_cost_is_an_error_that_names_it(pointwise):
    x = torch.empty(2, 4)
    network = nn.Sequential(nn.Sequential(nn.ReLU(), Unknown()))
    words = r"Sequential\.0\.1 is a Unknown, whose cost is not known.*MACs/counter.py"
    with pytest.raises(ValueError, match=words):
        count_macs(network, x, pointwise=pointwise)
    with pytest.raises(ValueError, match="Unknown is a Unknown"):
        count_macs(lambda x: Unknown()(x), x, pointwise=pointwise)
    assert count_macs(nn.ReLU(), x, pointwise=True) == 8  # nothing is left of the failed counts


def test_a_network_prepared_for_inference_is_not_free():
    net = prepare_for_inference(TeamNet(5, 2, "resnet18"))
    clips = [torch.zeros(1, 2, c, 32, 32) for c in (3, 2, 3)]
    if any(type(module).__name__ == "FusedConv" for module in net.modules()):
        with pytest.raises(ValueError, match=r"TeamNet\.iframe\.stem\.fused\.conv1 is a FusedConv"):
            count_macs(net, *clips)


@pytest.mark.parametrize(
    "arch, gmacs",  # of torchvision's own documentation (GFLOPS), which counts the same
    [
        ("mobilenet_v2", 0.30),
        ("mobilenet_v3_small", 0.06),
        ("efficientnet_b0", 0.39),
        ("convnext_tiny", 4.46),
        ("regnet_y_400mf", 0.40),
    ],
)
def test_other_families_are_counted(arch, gmacs):
    with torch.device("cpu" if "regnet" in arch else "meta"):  # regnet rounds its widths itself
        network = torchvision.models.get_model(arch).eval().to("meta")
    x = torch.empty(1, 3, 224, 224, device="meta")
    assert count_macs(network, x) / 1e9 == pytest.approx(gmacs, abs=0.005)
    values = sum_of_outputs(network, x, (nn.BatchNorm2d, nn.LayerNorm)) * 2
    values += sum_of_outputs(network, x, ACTIVATIONS)
    assert pointwise_macs(network, x) == values


ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.GELU)


def sum_of_outputs(network, x, kinds):
    """The values that the modules of these kinds give for `x`."""
    values = []
    hooks = [
        module.register_forward_hook(lambda _, x, output: values.append(output.numel()))
        for module in network.modules()
        if isinstance(module, kinds)
    ]
    network(x)
    for hook in hooks:
        hook.remove()
    return sum(values)


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


def test_an_exit_on_the_mean_of_segments_is_as_small_as_it_is():
    """Its head, like that of `clip_head`, reads the squeeze vector of one segment, not of 3."""
    config = {"num_classes": 5, "num_segments": 3, "arch": "resnet18"}
    concat = stage_macs(config, (1, 3), 64)
    mean = stage_macs(config, (1, 3), 64, "mean")
    assert {step for step in concat if mean[step] != concat[step]} == {"exit 1", "exit 3"}
    net = TeamNetIC(TeamNet(**config), (1, 3), "mean")
    for number in net.exits:
        head = mean[f"exit {number}"]
        assert head == net.heads[str(number)].weight.numel() == concat[f"exit {number}"] // 3
    gmacs = exit_gmacs(config, (1, 3), 64, "mean")
    assert gmacs["full"] == pytest.approx(sum(mean.values()) / 1e9, rel=1e-12)


def test_temporal_shift_is_free():
    config = {"num_classes": 5, "num_segments": 4, "arch": "resnet50"}
    shifted = exit_gmacs({**config, "is_shift": True}, (1, 2, 3, 4), 112)
    assert shifted == exit_gmacs(config, (1, 2, 3, 4), 112)
