"""Early exits really stop: decisions as from full logits, and nothing runs for clips that left."""

import collections
import math

import pytest
import torch

import models.team_net
from early_exit.confidence import confidence
from early_exit.policy import Policy
from models.fused import FusedConv
from models.inference import prepare_for_inference
from models.team_net import TeamNet
from models.team_net_ic import TeamNetIC
from tests.tiny_network import tiny_resnet

CLASSES, SEGMENTS, BATCH = 6, 2, 7


@pytest.fixture(scope="module")
def net():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models.team_net, "build_network", tiny_resnet)
        return make_net()


@pytest.fixture(scope="module")
def true_net():
    return make_net()


def make_net():
    torch.manual_seed(0)
    net = TeamNetIC(TeamNet(CLASSES, SEGMENTS, arch="resnet18", is_shift=True), (1, 2, 3, 4))
    for head in net.heads.values():  # new heads answer every clip the same
        torch.nn.init.normal_(head.weight, std=2.0)
    for stream in net.backbone.streams:
        torch.nn.init.normal_(stream.classifier.weight, std=1.0)
    return net.eval()


@pytest.fixture(scope="module")
def clips():
    generator = torch.Generator().manual_seed(1)
    # clips of different contrast, so that their confidences differ
    contrast = torch.linspace(0.2, 3, BATCH).view(-1, 1, 1, 1, 1)
    return [
        contrast * torch.randn(BATCH, SEGMENTS, c, 32, 32, generator=generator) for c in (3, 2, 3)
    ]


def make_policy(exits, thresholds, seed=0, **options):
    """Random weights >= 0 on what has run."""
    generator = torch.Generator().manual_seed(seed)
    number = len(exits)
    rows = torch.rand(number + 1, number + 3, generator=generator)
    for k in range(number):
        rows[k, k + 1 :] = 0
    return Policy(tuple(exits), tuple(thresholds), tuple(map(tuple, rows.tolist())), **options)


def decide_from_logits(net, clips, policy):
    """One clip and one exit at a time, from the outputs of the whole network."""
    with torch.no_grad():
        output = net(*clips)
    by_number = dict(zip(net.exits, output.exits))
    columns = [by_number[k] for k in policy.exits] + [output.iframe, output.mv, output.residual]
    decided = []
    for row in range(len(clips[0])):
        for point, weights in enumerate(policy.weights):
            logits = sum(w * column[row] for w, column in zip(weights, columns))
            sure = confidence(logits, policy.confidence, policy.temperature).item()
            if point == len(policy.exits) or sure > policy.thresholds[point]:
                decided.append((point, logits.argmax().item(), logits))
                break
    return decided


def spread_thresholds(net, clips, exits, **options):
    """Thresholds that 30 % of the clips at an exit pass, so that every branch is taken."""
    everyone = make_policy(exits, [1.0] * len(exits), **options)
    sure = net.early_exit(*clips, everyone).confidence
    thresholds = []
    for k in range(len(exits)):
        thresholds.append(sure[:, k].quantile(0.7).item())
        sure = sure[sure[:, k] <= thresholds[-1]]
    return thresholds


@pytest.fixture(params=[1, 3, BATCH])
def at_once(request, net, clips, monkeypatch):
    """Clips that are computed together at most."""
    values = models.team_net.VALUES_PER_PIXEL * clips[0][0, :, 0].numel() * request.param
    monkeypatch.setattr(models.team_net, "LARGEST_MAP", 4 * values)
    return request.param


@pytest.mark.parametrize("exits", [(1, 2, 3), (2,), (1, 4), (1, 2, 3, 4)])
@pytest.mark.parametrize("kind", ["max", "margin", "entropy"])
@pytest.mark.usefixtures("at_once")
def test_decisions_equal_those_from_full_logits(net, clips, exits, kind):
    options = {"confidence": kind, "temperature": 3.0}
    thresholds = spread_thresholds(net, clips, exits, **options)
    policy = make_policy(exits, thresholds, **options)
    decisions = net.early_exit(*clips, policy)
    expected = decide_from_logits(net, clips, policy)
    assert decisions.point.tolist() == [point for point, _, _ in expected]
    assert decisions.label.tolist() == [label for _, label, _ in expected]
    # a smaller batch may take another order of float32 sums
    torch.testing.assert_close(decisions.logits, torch.stack([x for _, _, x in expected]))
    assert set(decisions.point.tolist()) == set(range(len(exits) + 1))
    reached = torch.arange(len(exits) + 1) <= decisions.point[:, None]
    assert torch.equal(decisions.confidence.isnan(), ~reached)


@pytest.mark.usefixtures("at_once")
def test_nothing_runs_for_clips_that_left(net, clips):
    exits = (1, 2, 3)
    policy = make_policy(exits, spread_thresholds(net, clips, exits))
    rows = collections.Counter()  # how many rows each stage and head was given
    modules = {f"head {k}": net.heads[str(k)] for k in exits}
    for name, stream in zip(("iframe", "mv", "residual"), net.backbone.streams):
        modules.update({f"{name} {k}": stage for k, stage in enumerate(stream.stages)})
        modules[f"{name} classifier"] = stream.classifier
    for k, block in enumerate(net.backbone.team):
        modules[f"spatial {k}"] = block.conv_spatial
    hooks = [
        module.register_forward_pre_hook(lambda _, x, name=name: rows.update({name: len(x[0])}))
        for name, module in modules.items()
    ]
    point = net.early_exit(*clips, policy).point
    for hook in hooks:
        hook.remove()
    here = [int((point >= k).sum()) for k in range(4)]
    assert BATCH == here[0] > here[1] > here[2] > here[3] > 0
    stays = [*here, here[3]]  # layer4 runs for those who come to the end
    for k in range(5):
        for name in ("iframe", "mv", "residual"):
            assert rows[f"{name} {k}"] == SEGMENTS * stays[k]
    for k in range(4):
        assert rows[f"spatial {k}"] == SEGMENTS * stays[k + 1]
    for k in exits:
        assert rows[f"head {k}"] == here[k - 1]
    assert rows["iframe classifier"] == SEGMENTS * here[3]


def test_parts_are_equal_small_and_all(net, clips, at_once):
    backbone = net.backbone
    with torch.no_grad():
        features = backbone.enter(*clips)
        parts = backbone.parts(features)
        whole = backbone(*clips)
    assert [len(part[0]) for part in parts] == {
        1: [SEGMENTS] * BATCH,
        3: [3 * SEGMENTS, 3 * SEGMENTS, SEGMENTS],
        BATCH: [BATCH * SEGMENTS],
    }[at_once]
    assert all(map(torch.equal, features, map(torch.cat, zip(*parts))))
    alone = [backbone(*(clip[k : k + 1] for clip in clips)) for k in range(BATCH)]
    torch.testing.assert_close(whole.fused, torch.cat([one.fused for one in alone]))
    for k, squeeze in enumerate(whole.squeezes):
        torch.testing.assert_close(squeeze, torch.cat([one.squeezes[k] for one in alone]))
    assert len(backbone.parts(backbone.enter(*clips))) == 1  # where gradients are wanted
    with pytest.raises(ValueError, match="mv has shape"):
        net.early_exit(clips[0], clips[1][:3], clips[2], make_policy((1,), (0.5,)))


def test_nothing_runs_after_the_last_clip_left(net, clips):
    def fail(*_):
        raise AssertionError("layer2 ran although every clip had left at exit 2")

    hook = net.backbone.mv.layer2.register_forward_pre_hook(fail)
    policy = make_policy((1, 2, 3), (2.0, -1.0, -1.0))
    decisions = net.early_exit(*clips, policy)
    hook.remove()
    assert decisions.point.tolist() == [1] * BATCH


def test_batch_of_one_and_thresholds_nobody_passes(net, clips):
    one = [clip[:1] for clip in clips]
    weights = ((1, 0, 0, 0), (0, 1, 1, 1))
    decisions = net.early_exit(*one, Policy((3,), (1.0,), weights))
    with torch.no_grad():
        output = net(*one)
    assert decisions.point.tolist() == [1]
    torch.testing.assert_close(decisions.logits, output.fused)


def test_policy_for_other_exits_is_refused(clips):
    net = TeamNetIC(TeamNet(CLASSES, SEGMENTS, arch="resnet18"), (1, 3))
    with pytest.raises(ValueError, match=r"exits \(1, 2\), the network has \(1, 3\)"):
        net.early_exit(*clips, make_policy((1, 2), (0.5, 0.5)))


def randomise_norms(net):
    """Statistics as after training; fresh batch norms would hide mistakes in folding."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.2)


@pytest.mark.parametrize("is_shift", [False, True])
@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_prepared_network_gives_the_same_outputs(arch, is_shift, clips):
    torch.manual_seed(0)
    net = TeamNetIC(TeamNet(CLASSES, SEGMENTS, arch=arch, is_shift=is_shift), (1, 2)).train()
    randomise_norms(net)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    fast = prepare_for_inference(net)
    norms = [m for m in fast.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 2  # on the inputs of MV and residual, where padding forbids folding
    assert not fast.training and not any(p.requires_grad for p in fast.parameters())
    with torch.no_grad():
        for got, want in zip(fast(*clips)[1:], net(*clips)[1:]):
            # float32 rounding in other orders, over some 50 layers
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5 * want.abs().max().item())
        pictures = torch.randn(SEGMENTS, 3, 32, 32)
        features = fast.backbone.iframe.layer1(fast.backbone.iframe.stem(pictures))
    assert features.is_contiguous(memory_format=torch.channels_last)
    assert net.training and all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_prepared_network_in_bfloat16(true_net, clips):
    net, fast = true_net, prepare_for_inference(true_net, "bf16")
    policy = make_policy((1, 2, 3), spread_thresholds(net, clips, (1, 2, 3)))
    assert fast.early_exit(*clips, policy).logits.dtype == torch.float32
    with torch.no_grad():
        got, want = fast(*clips), net(*clips)
    for a, b in zip((*got.exits, *got[1:]), (*want.exits, *want[1:])):
        assert a.dtype == torch.float32
        # bfloat16 keeps 8 bits; rounding of some 20 layers adds up to a few per cent of the scale
        assert (a - b).abs().max() < 0.05 * b.abs().max()
        assert not torch.equal(a, b)


def test_without_a_compiler_the_prepared_network_still_works(net, clips, monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("no C++ compiler found\nlong trace")

    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.warns(UserWarning, match="going on without: no C.. compiler found$"):
        fast = prepare_for_inference(net.backbone, compiled=True)
    with torch.no_grad():
        assert not math.isnan(fast(*clips).fused.sum())


def test_unknown_precision_is_refused(net):
    with pytest.raises(ValueError, match="unknown precision 'fp16': choose fp32 or bf16"):
        prepare_for_inference(net, "fp16")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_fused_convolutions_give_the_outputs_of_separate_ones(
    precision, true_net, clips, monkeypatch
):
    fused = prepare_for_inference(true_net.backbone, precision)
    if not any(isinstance(module, FusedConv) for module in fused.modules()):
        pytest.skip("this PyTorch or CPU has no fused convolutions")
    monkeypatch.setattr("models.inference.can_fuse", lambda conv: False)
    separate = prepare_for_inference(true_net.backbone, precision)
    assert not any(isinstance(module, FusedConv) for module in separate.modules())
    before = [clip.clone() for clip in clips]
    with torch.no_grad():
        got, want = fused(*clips).fused, separate(*clips).fused
    assert all(map(torch.equal, clips, before))
    # Other orders of sums; a fused sum is rounded once where two calls round twice.
    tolerance = {"fp32": 1e-5, "bf16": 0.02}[precision] * want.abs().max().item()
    torch.testing.assert_close(got, want, rtol=0, atol=tolerance)
