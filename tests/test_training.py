"""Learning rates, parameter groups, epoch orders and the best epochs of exits."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch

from models.team_net import BackboneOutput, TeamNet
from training.engine import (
    clip_loss,
    cosine_lr,
    dropout_seed,
    make_ema,
    make_mixup,
    make_optimizer,
    mixed,
    set_lr,
    step_lr,
)
from training.exits import keep_best
from training.loading import Batch, ViewSampler, epoch_order


def test_step_lr_falls_at_each_step():
    rates = [step_lr(0.02, [5, 10, 15], epoch) for epoch in (0, 4, 5, 9, 10, 15, 29)]
    expected = [0.02, 0.02, 0.002, 0.002, 2e-4, 2e-5, 2e-5]
    assert rates == pytest.approx(expected)


def test_cosine_lr_rises_then_falls():
    rates = [cosine_lr(1.0, 10, 2, epoch) for epoch in range(10)]
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert rates[6] == pytest.approx(0.5)  # half way through the 8 epochs of the cosine
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[9] == pytest.approx((1 + math.cos(math.pi * 7 / 8)) / 2)


def test_weight_decay_and_rates_by_kind_of_parameter():
    """The published rule decayed nothing: its test for bias or bn was always true."""
    net = TeamNet(3, num_segments=1, arch="resnet18")
    optimizer = make_optimizer(net, "sgd", 0.1, 0.5, (5.0, 10.0))
    set_lr(optimizer, 0.01)
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert len(found) == len(list(net.parameters()))
    expected = {
        "iframe.classifier.weight": (0.05, 0.5),
        "mv.classifier.bias": (0.1, 0.0),
        "residual.stem.conv1.weight": (0.01, 0.5),
        "residual.stem.bn1.weight": (0.01, 0.0),
        "mv.input_norm.bias": (0.01, 0.0),
        "team.0.fc_squeeze.weight": (0.01, 0.5),
    }
    parameters = dict(net.named_parameters())
    for name, rates in expected.items():
        assert found[id(parameters[name])] == pytest.approx(rates), name


def test_adamw_takes_the_same_groups():
    net = TeamNet(3, num_segments=1, arch="resnet18")
    optimizer = make_optimizer(net, "adamw", 0.1, 0.5, (1.0, 1.0))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, 0.5]


def test_clip_loss_is_its_formula():
    generator = torch.Generator().manual_seed(0)
    iframe, mv, residual = torch.randn(3, 5, 4, generator=generator)
    labels = torch.tensor([0, 1, 2, 3, 0])
    output = BackboneOutput((), iframe, mv, residual, iframe + mv + residual)
    targets = torch.full((5, 4), 0.2 / 4)  # a fifth of the mass spread over the 4 classes
    targets[range(5), labels] += 0.8

    def cross_entropy(logits):
        return -(targets * logits.log_softmax(1)).sum(1).mean()

    expected = cross_entropy(output.fused)
    expected = expected + 0.5 * sum(map(cross_entropy, (iframe, mv, residual))) / 3
    assert torch.isclose(clip_loss(output, labels, 0.5, 0.2), expected)


def test_mixup_mixes_modalities_and_labels_by_the_same_share():
    labels = torch.tensor([0, 2, 1])
    inputs = tuple(
        labels.float().view(3, 1, 1, 1, 1).expand(3, 2, channels, 4, 4) for channels in (3, 2, 3)
    )
    torch.manual_seed(3)
    batch = mixed(Batch(inputs, labels, torch.arange(3)), make_mixup(0.4, 3))
    assert torch.allclose(batch.labels.sum(1), torch.ones(3))
    assert (batch.labels.max(1).values < 1).all(), "every clip is mixed with another"
    expected = batch.labels @ torch.arange(3.0)  # a clip's pixels are its label
    for before, after in zip(inputs, batch.inputs):
        assert after.shape == before.shape and type(after) is torch.Tensor
        assert torch.allclose(after, expected.view(3, 1, 1, 1, 1).expand_as(after))
    torch.manual_seed(3)
    again = mixed(Batch(inputs, labels, torch.arange(3)), make_mixup(0.4, 3))
    assert torch.equal(batch.labels, again.labels), "so that a resumed run repeats its steps"


def test_ema_follows_weights_and_batch_statistics():
    net = TeamNet(3, num_segments=1, arch="resnet18")
    ema = make_ema(net, 0.75)
    ema.update_parameters(net)  # the first one copies
    names = ("team.0.fc_squeeze.weight", "mv.input_norm.running_mean")
    before = [net.state_dict()[name].clone() for name in names]
    with torch.no_grad():
        for name in names:
            net.state_dict()[name].add_(1.0)
    ema.update_parameters(net)
    for name, start in zip(names, before):
        assert torch.allclose(ema.module.state_dict()[name], start + 0.25)


def test_epoch_orders_are_permutations_that_depend_on_seed_and_epoch():
    orders = [epoch_order(50, seed, epoch).tolist() for seed, epoch in ((1, 0), (1, 1), (2, 0))]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert epoch_order(50, 1, 0).tolist() == orders[0]


def test_dropout_depends_on_seed_epoch_step_and_process(monkeypatch):
    seeds = [dropout_seed(*key) for key in itertools.product(range(3), repeat=3)]
    monkeypatch.setattr("training.distributed.rank", lambda: 1)
    seeds += [dropout_seed(*key) for key in itertools.product(range(3), repeat=3)]
    assert len(set(seeds)) == 54
    for seed in seeds:
        torch.manual_seed(seed)  # takes them all


def test_views_come_in_order():
    assert list(ViewSampler(3, view=4)) == [(0, 4), (1, 4), (2, 4)]
    assert list(ViewSampler(3, view=4, rows=[0, 2])) == [(0, 4), (2, 4)]


def test_the_last_epoch_is_kept_where_nothing_is_chosen():
    heads = torch.nn.ModuleDict({"1": torch.nn.Linear(1, 1)})
    net, best = SimpleNamespace(heads=heads), {}
    for epoch, top1 in enumerate((50, 90, 40)):
        torch.nn.init.constant_(heads["1"].weight, epoch)
        keep_best(best, net, {"1": {"top1_pct": top1, "loss": 1.0}}, epoch, keep_last=True)
    assert best["1"]["epoch"] == best["1"]["head"]["weight"].item() == 2


def test_best_epoch_is_kept_for_each_exit_on_its_own():
    heads = torch.nn.ModuleDict({"1": torch.nn.Linear(1, 1), "2": torch.nn.Linear(1, 1)})
    net, best = SimpleNamespace(heads=heads), {}
    epochs = [
        {"1": (50, 1.0), "2": (10, 1.0)},
        {"1": (40, 0.5), "2": (10, 0.9)},  # exit 2: the same top-1, lower loss
        {"1": (50, 1.0), "2": (10, 0.9)},  # no better: the earlier epoch stays
    ]
    for epoch, values in enumerate(epochs):
        scores = {k: {"top1_pct": top1, "loss": loss} for k, (top1, loss) in values.items()}
        for head in heads.values():
            torch.nn.init.constant_(head.weight, epoch)
        keep_best(best, net, scores, epoch)
    assert {k: exit_best["epoch"] for k, exit_best in best.items()} == {"1": 0, "2": 1}
    assert {k: exit_best["head"]["weight"].item() for k, exit_best in best.items()} == {
        "1": 0,
        "2": 1,
    }
