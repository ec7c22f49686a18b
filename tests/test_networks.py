"""Every network that the README lists as a stream, held to the same demands."""

import copy
import itertools
import math

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from early_exit.policy import Policy
from MACs.counter import count_macs
from MACs.team_net import exit_gmacs
from models.graphs import make_graphs
from models.inference import _fold_batch_norms, prepare_for_inference
from models.networks import build_network, cut
from models.team_net import Stream, TeamNet
from models.team_net_ic import TeamNetIC
from models.temporal_shift import TemporalShift, shift_segments
from training.checkpoint import load_backbone, save_checkpoint

# The channels after the stem and the four layers, and the temporal shifts of a stream.
LISTED = {
    "resnet50": ((64, 256, 512, 1024, 2048), 16),
    "mobilenet_v2": ((24, 24, 32, 96, 1280), 10),
    "mobilenet_v3_small": ((16, 16, 24, 48, 576), 6),
    "mobilenet_v3_large": ((24, 24, 40, 112, 960), 9),
    "efficientnet_b0": ((24, 24, 40, 112, 1280), 9),
    "efficientnet_b1": ((24, 24, 40, 112, 1280), 15),
    "efficientnet_b2": ((24, 24, 48, 120, 1408), 15),
    "convnext_tiny": ((96, 96, 192, 384, 768), 18),
    "regnet_y_400mf": ((48, 48, 104, 208, 440), 15),
    "regnet_y_800mf": ((64, 64, 144, 320, 784), 13),
}
CLASSES, SEGMENTS, BATCH, SIZE = 4, 2, 2, 64
EXITS = (1, 2, 3, 4)
ROUNDING = 1e-3  # to 24 bits over up to 120 layers, which random weights amplify


@torch.no_grad()
def settle(network, *inputs):
    """As after training: features of ordinary size, and each BatchNorm with its own statistics."""
    for name, parameter in network.named_parameters():
        if name.endswith("layer_scale"):  # ConvNeXt's, which starts near zero
            parameter.fill_(0.5)
        if name.endswith("bias"):
            parameter.normal_(0, 0.1)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    network.train()(*inputs)
    return network.eval()


@pytest.fixture(scope="module", params=LISTED)
def untrained(request):
    """Three streams of one network."""
    torch.manual_seed(0)
    return TeamNet(CLASSES, SEGMENTS, request.param, request.param, dropout=0.0)


@pytest.fixture(scope="module")
def net(untrained, clips):
    """With exits, and answers that differ from clip to clip."""
    torch.manual_seed(0)
    net = TeamNetIC(settle(copy.deepcopy(untrained), *clips), EXITS)
    for name, linear in net.named_modules():
        if "heads." in name or name.endswith(".classifier"):
            nn.init.normal_(linear.weight)
    return net.eval()


@pytest.fixture(scope="module")
def clips():
    generator = torch.Generator().manual_seed(1)
    size = (SIZE, SIZE)
    return [torch.randn(BATCH, SEGMENTS, c, *size, generator=generator) for c in (3, 2, 3)]


def arch_of(net):
    return net.backbone.config["arch"]


@torch.no_grad()
def test_stages_are_those_of_torchvisions_network(net):
    """Stage by stage as torchvision's own forward, with strides that streams share."""
    channels, _ = LISTED[arch_of(net)]
    x = pictures = torch.randn(2, 3, SIZE, SIZE)
    network = settle(build_network(arch_of(net), 3), pictures)
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.normal_(last.weight)
    parts = cut(network)
    for stage, stride, expected in zip(parts.stages, (4, 4, 8, 16, 32), channels):
        x = stage(x)
        assert x.shape == (2, expected, SIZE // stride, SIZE // stride)
    want = network(pictures)
    torch.testing.assert_close(last(parts.pre_classifier(x.mean((2, 3)))), want)
    assert want.std() > 0.01  # two pictures, a thousand classes


@torch.no_grad()
def test_shapes(net, clips):
    channels, _ = LISTED[arch_of(net)]
    output = net.backbone(*clips)
    sizes = [SEGMENTS * (3 * channels[k] // 4) for k in range(4)]
    assert [x.shape for x in output.squeezes] == [(BATCH, size) for size in sizes]
    assert {x.shape for x in (*output[1:], *net(*clips).exits)} == {(BATCH, CLASSES)}
    assert all(x.isfinite().all() for x in itertools.chain(*net(*clips)[:1], output[1:]))


@torch.no_grad()
def test_an_early_exit_gives_the_logits_of_the_full_pass(net, clips):
    net = prepare_for_inference(net)
    output = net(*clips)
    for point in range(5):
        rows = [[float(k == j) for j in range(7)] for k in range(4)] + [[0.0] * 4 + [1.0] * 3]
        thresholds = [-1.0 if k == point else 2.0 for k in range(4)]
        decisions = net.early_exit(
            *clips, Policy(EXITS, tuple(thresholds), tuple(map(tuple, rows)))
        )
        assert decisions.point.tolist() == [point] * BATCH
        want = (*output.exits, output.fused)[point]
        # On a CPU clips go alone, for which oneDNN may sum in another order.
        assert (decisions.logits - want).norm() < ROUNDING * want.norm()


@torch.no_grad()
@pytest.mark.parametrize("often", [0, math.inf], ids=["graphs", "no graphs"])
def test_prepared_network_gives_the_same_outputs(net, clips, often):
    want, outputs = net(*clips), {}
    for precision in ("fp32", "bf16"):
        fast = prepare_for_inference(net, precision)
        make_graphs(fast, often)
        outputs[precision] = fast(*clips)
    for output in outputs.values():
        both = list(zip((*output.exits, *output[1:]), (*want.exits, *want[1:])))
        assert all(a.dtype == torch.float32 and a.isfinite().all() for a, _ in both)
        if output is outputs["fp32"]:
            assert all((a - b).norm() < ROUNDING * b.norm() for a, b in both)
    # To 8 bits over the few layers before exit 1. Random weights amplify that up to 5 %, so the
    # error is held to that of rounding: a third is the most that fewer roundings, of activations
    # computed with their convolution, change.
    rounded = round_values(net)(*clips)
    error, error_of_rounding = (
        (output.exits[0] - want.exits[0]).norm() for output in (outputs["bf16"], rounded)
    )
    assert error < 1.34 * error_of_rounding < 0.1 * want.exits[0].norm()


def round_values(net):
    """A copy in fp32 that rounds to bf16 the weights of what bf16 is for, and what goes in and out.
    Its batch normalisations are folded into the weights, as those of a prepared network."""

    def rounded(values):
        return tuple(x.bfloat16().float() if torch.is_tensor(x) else x for x in values)

    net = copy.deepcopy(net)
    _fold_batch_norms(net)
    stages = [stage for stream in net.backbone.streams for stage in stream.stages]
    for module in (*stages, *(block.conv_spatial for block in net.backbone.team)):
        for parameter in module.parameters():
            (parameter.data,) = rounded([parameter.data])
        for leaf in module.modules():
            if not list(leaf.children()):
                leaf.register_forward_pre_hook(lambda _, inputs: rounded(inputs))
                leaf.register_forward_hook(lambda _, inputs, output: rounded([output])[0])
    return net


@torch.no_grad()
def test_checkpoint_round_trip(net, clips, tmp_path):
    content = {"model": net.backbone.state_dict(), "config": net.backbone.config}
    save_checkpoint(tmp_path / "best.pt", content)
    again = load_backbone(tmp_path / "best.pt").eval()
    assert again.config == net.backbone.config
    for got, want in zip(again(*clips)[1:], net.backbone(*clips)[1:]):
        assert torch.equal(got, want)


def test_macs(net):
    """One picture as torchvision states it, and exits that cost more and more."""
    config, weights = net.backbone.config, torchvision.models.get_model_weights(arch_of(net))
    with torch.device("meta"):
        network = build_network(config["arch"], 3).eval()
    stated = weights["IMAGENET1K_V1"]
    size = stated.transforms.keywords["crop_size"]
    gmacs = count_macs(network, torch.empty(1, 3, size, size, device="meta")) / 1e9
    assert gmacs == pytest.approx(stated.meta["_ops"], rel=0.02)
    features = nn.Sequential(*cut(network).stages)
    picture = count_macs(features, torch.empty(1, 3, 224, 224, device="meta")) / 1e9
    costs = exit_gmacs(config, EXITS, 224)
    assert list(costs) == ["exit1", "exit2", "exit3", "exit4", "full"]
    assert sorted(costs.values()) == list(costs.values())
    # TEAM blocks and a first convolution of two channels make little difference.
    assert costs["full"] == pytest.approx(3 * SEGMENTS * picture, rel=0.05)


def test_a_training_step_lowers_the_loss(untrained, clips):
    model = copy.deepcopy(untrained).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    labels, losses = torch.arange(BATCH), []
    for _ in range(2):
        torch.manual_seed(1)  # stochastic depth
        loss = F.cross_entropy(model(*clips).fused, labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert losses[0] == pytest.approx(torch.tensor(float(CLASSES)).log().item(), abs=0.2)
    assert losses[-1] < losses[0]
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []


@torch.no_grad()
def test_temporal_shift(net, clips):
    """Before the first convolution of residual branches: as the plain stream with hooks there."""
    arch, pictures = arch_of(net), clips[2].flatten(0, 1)
    options = {"normalise_input": True, "dropout": 0.0, "weights": None}
    shifted, plain = (
        Stream(arch, 3, CLASSES, SEGMENTS, is_shift=is_shift, **options).eval()
        for is_shift in (True, False)
    )
    names = [name for name, part in shifted.named_modules() if isinstance(part, TemporalShift)]
    _, number = LISTED[arch]
    assert len(names) == number
    assert not any(name.startswith("stem") for name in names)
    plain.load_state_dict({k.replace(".net.", "."): v for k, v in shifted.state_dict().items()})
    for name in names:
        conv = plain.get_submodule(name)
        conv.register_forward_pre_hook(lambda _, x: shift_segments(x[0], SEGMENTS))
    got, want = pictures, pictures
    for ours, theirs in zip(shifted.stages, plain.stages):
        got, want = ours(got), theirs(want)
        torch.testing.assert_close(got, want)
