"""TEAM-Net and its exits against slow references written from the words of the paper."""

import urllib.error

import numpy as np
import pytest
import torch
import torchvision

from models.team_net import TeamBlock, TeamNet, _global_average
from models.team_net_ic import TeamNetIC
from models.temporal_shift import TemporalShift, shift_segments


def make_clips(batch=2, segments=3, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, segments, c, size, size, generator=generator) for c in (3, 2, 3)]


def make_net(num_classes=5, num_segments=3, seed=0, **options):
    torch.manual_seed(seed)
    return TeamNet(num_classes, num_segments, **{"arch": "resnet18", **options})


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def slow_team_block(block, features):
    """One sample, one channel and one pixel at a time, float64."""
    weight = {name: p.detach().double().numpy() for name, p in block.named_parameters()}
    features = [x.double().numpy() for x in features]
    count, _, height, width = features[0].shape
    squeezes, outputs = [], [np.zeros_like(x) for x in features]
    for n in range(count):
        average = np.array([channel.mean() for x in features for channel in x[n]])
        squeeze = np.maximum(weight["fc_squeeze.weight"] @ average, 0)
        squeezes.append(squeeze)
        first_row, scaled = 0, []
        for x in features:
            rows = weight["fc_scale.weight"][first_row : first_row + x.shape[1]]
            scaled.append(x[n] * sigmoid(rows @ squeeze)[:, None, None])
            first_row += x.shape[1]
        maps = np.pad([x.mean(0) for x in scaled], ((0, 0), (1, 1), (1, 1)))
        for stream, x in enumerate(scaled):
            kernel = weight["conv_spatial.weight"][stream]
            for row in range(height):
                for column in range(width):
                    window = maps[:, row : row + 3, column : column + 3]
                    factor = sigmoid((kernel * window).sum())
                    outputs[stream][n, :, row, column] = x[:, row, column] * factor
    return np.array(squeezes), outputs


def test_team_block_matches_the_slow_reference():
    torch.manual_seed(0)
    block = TeamBlock((16, 8, 4))
    features = tuple(torch.randn(3, c, 5, 4) for c in (16, 8, 4))
    squeeze = block.squeeze(features)
    expected_squeeze, expected = slow_team_block(block, features)
    assert squeeze.shape == (3, 7)
    # float32 against float64 over sums of at most 36 terms
    np.testing.assert_allclose(squeeze.detach(), expected_squeeze, rtol=1e-5, atol=1e-6)
    before = [x.clone() for x in features]
    for is_training in (True, False):  # without gradients it works in place, on its own tensors
        with torch.set_grad_enabled(is_training):
            scaled = block.scale(features, squeeze)
        for got, want in zip(scaled, expected):
            np.testing.assert_allclose(got.detach(), want, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(x, y) for x, y in zip(features, before))


def slow_shift(x, num_segments):
    """The shift as DESIGN.md words it, element by element."""
    fold = x.shape[1] // 8
    shifted = torch.zeros_like(x)
    for row in range(len(x)):
        segment = row % num_segments
        for channel in range(x.shape[1]):
            if channel < fold:
                if segment + 1 < num_segments:
                    shifted[row, channel] = x[row + 1, channel]
            elif channel < 2 * fold:
                if segment > 0:
                    shifted[row, channel] = x[row - 1, channel]
            else:
                shifted[row, channel] = x[row, channel]
    return shifted


@pytest.mark.parametrize("segments", [1, 2, 3, 8])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_shift_matches_the_slow_reference(segments, memory_format):
    x = torch.randn(2 * segments, 20, 3, 4).contiguous(memory_format=memory_format)
    shifted = shift_segments(x, segments)
    assert torch.equal(shifted, slow_shift(x, segments))
    assert shifted.is_contiguous(memory_format=memory_format)


def test_shift_passes_gradients():
    x = torch.randn(4, 8, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: shift_segments(x, 2), x)


def test_shifted_network_is_the_plain_one_with_shifted_inputs_of_every_first_conv():
    shifted, plain = make_net(is_shift=True).eval(), make_net().eval()
    weights = {k.replace(".net.", "."): v for k, v in shifted.state_dict().items()}
    plain.load_state_dict(weights)
    clips = make_clips()
    with torch.no_grad():
        assert not torch.allclose(plain(*clips).fused, shifted(*clips).fused)
        for stream in plain.streams:
            for layer in stream.stages[1:]:
                for block in layer:
                    block.conv1.register_forward_pre_hook(lambda _, x: slow_shift(x[0], 3))
        for got, want in zip(shifted(*clips), plain(*clips)):
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize(("arch", "step"), [("resnet50", 1), ("resnet101", 2)])
def test_deep_networks_shift_in_every_second_block(arch, step):
    with torch.device("meta"):
        net = TeamNet(5, 2, arch=arch, is_shift=True)
    for layer in net.iframe.stages[1:]:
        is_shifted = [isinstance(block.conv1, TemporalShift) for block in layer]
        assert is_shifted == [i % step == 0 for i in range(len(layer))]


@pytest.mark.parametrize(
    ("arch", "motion_arch", "squeeze_sizes"),
    [
        ("resnet18", "resnet34", (48, 48, 96, 192)),
        ("resnet50", "resnet18", (48, 96, 192, 384)),
        ("resnext50_32x4d", "resnet50", (48, 192, 384, 768)),
        ("wide_resnet50_2", "resnet18", (48, 96, 192, 384)),
    ],
)
def test_output_shapes_of_any_resnet(arch, motion_arch, squeeze_sizes):
    net = make_net(7, 2, arch=arch, motion_arch=motion_arch).eval()
    with torch.no_grad():
        output = net(*make_clips(batch=1, segments=2))
    assert [x.shape for x in output.squeezes] == [(1, 2 * d) for d in squeeze_sizes]
    for logits in (output.iframe, output.mv, output.residual, output.fused):
        assert logits.shape == (1, 7)


def test_squeezes_follow_the_segments_and_logits_are_their_mean():
    """Without temporal shift a clip of two segments is two clips of one segment."""
    torch.manual_seed(0)
    two, one = make_net(num_segments=2).eval(), make_net(num_segments=1).eval()
    one.load_state_dict(two.state_dict())
    clips = make_clips(batch=1, segments=2)
    with torch.no_grad():
        output = two(*clips)
        parts = [one(*(clip[:, t : t + 1] for clip in clips)) for t in range(2)]
    for k in range(4):
        joined = torch.cat([part.squeezes[k] for part in parts], dim=1)
        torch.testing.assert_close(output.squeezes[k], joined)
    torch.testing.assert_close(output.mv, (parts[0].mv + parts[1].mv) / 2)
    torch.testing.assert_close(output.fused, output.iframe + output.mv + output.residual)


def test_config_builds_the_same_network():
    net = make_net(num_segments=2, is_shift=True, dropout=0.25).eval()
    again = TeamNet(**net.config).eval()
    assert again.config == net.config
    again.load_state_dict(net.state_dict())
    clips = make_clips(segments=2)
    with torch.no_grad():
        assert torch.equal(again(*clips).fused, net(*clips).fused)


@pytest.mark.parametrize("is_frozen", [False, True])
def test_outputs_are_float32_under_autocast(is_frozen):
    net = make_net().eval()
    clips = make_clips()
    with torch.no_grad():
        plain = net(*clips)
    net.requires_grad_(not is_frozen)
    with torch.autocast("cpu", torch.bfloat16):
        output = net(*clips)
    for got, want in zip((*output.squeezes, *output[1:]), (*plain.squeezes, *plain[1:])):
        assert got.dtype == torch.float32
        # bfloat16 keeps 8 bits; rounding of some 20 layers adds up to a few per cent of the scale
        torch.testing.assert_close(got, want, rtol=0, atol=0.05 * want.abs().max().item())


def test_average_of_bfloat16_is_taken_in_float32():
    x = torch.full((1, 1, 64, 64), 1.0, dtype=torch.bfloat16)
    x[..., 0] = 1.0078125  # the next bfloat16: their mean is none
    assert _global_average(x).item() == pytest.approx(1 + 0.0078125 / 64, abs=1e-7)


def test_training_reaches_every_parameter():
    net = make_net(is_shift=True)
    # An attention map under a dead ReLU would have no gradient: random classifiers, two clips.
    for stream in net.streams:
        torch.nn.init.normal_(stream.classifier.weight)
    net(*make_clips()).fused.square().mean().backward()
    without = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": "alexnet"}, "unknown arch 'alexnet'.*resnet18"),
        ({"motion_arch": "r18"}, "unknown arch 'r18'"),
        ({"pretrained": "kinetics"}, "pretrained is None or 'imagenet'"),
        ({"num_segments": 0}, "at least 1"),
        ({"num_classes": 0}, "at least 1"),
    ],
)
def test_wrong_options_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TeamNet(**{"num_classes": 5, **change})


@pytest.mark.parametrize(
    ("modality", "name", "shape"),
    [
        (0, "iframe", (2, 4, 3, 32, 32)),  # segments
        (0, "iframe", (6, 3, 32, 32)),  # no segment dimension
        (1, "mv", (2, 3, 3, 32, 32)),  # channels
        (1, "mv", (1, 3, 2, 32, 32)),  # batch
        (2, "residual", (2, 3, 3, 16, 16)),  # size
    ],
)
def test_wrong_shapes_are_refused(modality, name, shape):
    clips = make_clips()
    clips[modality] = torch.zeros(shape)
    with pytest.raises(ValueError, match=f"{name} has shape.*3 segments"):
        make_net()(*clips)


def test_imagenet_weights_are_adapted_to_two_channels(monkeypatch):
    torch.manual_seed(0)
    source = torchvision.models.resnet18()
    monkeypatch.setattr(
        type(torchvision.models.ResNet18_Weights.IMAGENET1K_V1),
        "get_state_dict",
        lambda *args, **kwargs: source.state_dict(),
    )
    net = make_net(pretrained="imagenet")
    assert torch.equal(net.iframe.stem.conv1.weight, source.conv1.weight)
    assert torch.equal(net.residual.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    expected = 1.5 * source.conv1.weight.mean(1)  # two channels give what three gave
    for channel in range(2):
        torch.testing.assert_close(net.mv.stem.conv1.weight[:, channel], expected)


def test_imagenet_weights_offline_say_how_to_go_on(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ValueError, match=f"Fetch https://.*resnet18.*{tmp_path}.*train without"):
        make_net(pretrained="imagenet")


@pytest.mark.parametrize("exits", [(1,), (2, 4), (1, 2, 3, 4), ()])
def test_exits_are_linear_maps_of_their_squeeze_vectors(exits):
    net = TeamNetIC(make_net(), exits)
    clips = make_clips(batch=1)
    output, squeezes = net(*clips), net.backbone(*clips).squeezes
    assert len(output.exits) == len(exits)
    for k, logits in zip(exits, output.exits):
        head = net.heads[str(k)]
        torch.testing.assert_close(logits, squeezes[k - 1] @ head.weight.T + head.bias)
    for got, want in zip(net.heads_from(squeezes), output.exits):
        assert torch.equal(got, want)


def test_backbone_of_exits_is_frozen_and_in_eval_mode():
    net = TeamNetIC(make_net(dropout=0.9))
    before = {k: v.clone() for k, v in net.backbone.state_dict().items()}
    net.train()
    assert net.training and net.heads.training and not net.backbone.training
    optimizer = torch.optim.SGD((p for p in net.parameters() if p.requires_grad), lr=1.0)
    sum(logits.square().sum() for logits in net(*make_clips()).exits).backward()
    optimizer.step()
    assert all(torch.equal(v, before[k]) for k, v in net.backbone.state_dict().items())
    assert all(p.grad is None for p in net.backbone.parameters())
    assert all(p.grad is not None for p in net.heads.parameters())


@pytest.mark.parametrize("exits", [(0, 1), (1, 5), (2, 1), (1, 1)])
def test_wrong_exits_are_refused(exits):
    with pytest.raises(ValueError, match="different, ascending numbers from 1 to 4"):
        TeamNetIC(make_net(), exits)
