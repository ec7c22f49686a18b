"""Schedules in words, and the losses of the exits against slow references."""

import math

import pytest
import torch

from models.team_net import TeamNet
from models.team_net_ic import TeamNetIC
from training.distillation import RANKS, TEACHERS, Schedule, exit_loss, teacher_logits
from training.exits import ExitRecipe, make_exit_optimizer, train_heads_one_epoch
from training.features import Features


def test_schedule_of_the_paper():
    schedule = Schedule("mv:3,residual:3,iframe", 40)
    assert schedule.teachers == ["mv"] * 3 + ["residual"] * 3 + ["iframe"] * 34
    assert schedule[5] == "residual" and schedule[6] == "iframe"


def test_schedule_with_every_number_given():
    assert Schedule("iframe:2,mv:1", 3).teachers == ["iframe", "iframe", "mv"]


def test_ranks_are_measured():
    labels = torch.tensor([0, 1, 2, 3])

    def stream(right):
        guesses = torch.where(torch.arange(4) < right, labels, (labels + 1) % 4)
        return torch.nn.functional.one_hot(guesses, 4).float()

    words = "weakest:1,labels:1,middle:1,strongest"
    cases = {(1, 2, 4): "iframe mv residual", (4, 4, 1): "residual mv iframe"}
    for right, names in cases.items():
        schedule = Schedule(words, 4).measured(torch.stack(list(map(stream, right)), 1), labels)
        weakest, middle, strongest = names.split()
        assert schedule.teachers == [weakest, "labels", middle, strongest]
        assert schedule.words == words


@pytest.mark.parametrize(
    ("words", "epochs", "reason"),
    [
        ("mv:3,audio", 5, "unknown teacher 'audio'"),
        ("mv,iframe", 5, "needs a number of epochs"),
        ("mv:x,iframe", 5, "no number of epochs"),
        ("mv:0,iframe", 5, "no number of epochs"),
        ("mv:5,iframe", 5, "it covers 6 epochs, the run has 5"),
        ("mv:3,residual:3,iframe", 4, "it covers 7 epochs, the run has 4"),
        ("mv:2,iframe:2", 5, "covers 4 epochs, the run has 5"),
        ("", 5, "unknown teacher"),
    ],
)
def test_schedule_refuses(words, epochs, reason):
    with pytest.raises(ValueError, match=reason):
        Schedule(words, epochs)


def softmax(row):
    largest = max(row)
    powers = [math.exp(value - largest) for value in row]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("teacher", ["mv", "residual", "iframe", "fused"])
def test_distillation_loss_is_cross_entropy_against_the_teacher(teacher, temperature):
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(5, 4, generator=generator)
    streams = torch.randn(5, 3, 4, generator=generator)
    expected = 0.0
    for row in range(5):
        rows = {"iframe": streams[row, 0], "mv": streams[row, 1], "residual": streams[row, 2]}
        rows["fused"] = rows["iframe"] + rows["mv"] + rows["residual"]
        target = softmax((rows[teacher] / temperature).tolist())
        guess = softmax((student[row] / temperature).tolist())
        expected -= sum(t * math.log(g) for t, g in zip(target, guess)) / 5
    labels = torch.full((5,), -1)  # a teacher's loss must not look at labels
    loss = exit_loss(student, teacher, streams, labels, temperature)
    assert loss.item() == pytest.approx(expected * temperature**2, rel=1e-5)


def test_label_loss_ignores_the_streams():
    student = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([0, 0])
    streams = torch.full((2, 3, 2), float("nan"))
    expected = -(math.log(softmax([2, 0])[0]) + math.log(softmax([0, 1])[0])) / 2
    assert exit_loss(student, "labels", streams, labels).item() == pytest.approx(expected)


def test_labels_say_nothing_of_clips_without_one():
    student = torch.randn(5, 4, requires_grad=True)
    labels = torch.tensor([1, -1, 3, -1, 0])
    loss = exit_loss(student, "labels", torch.zeros(5, 3, 4), labels)
    known = labels >= 0
    torch.testing.assert_close(
        loss, torch.nn.functional.cross_entropy(student[known], labels[known])
    )
    nothing = exit_loss(student, "labels", torch.zeros(5, 3, 4), torch.full((5,), -1))
    nothing.backward()
    assert nothing == 0 and student.grad.abs().sum() == 0


def test_certain_students_and_teachers_give_finite_losses():
    """Softmax followed by log, as published, is infinite here."""
    student = torch.tensor([[1000.0, -1000.0]], requires_grad=True)
    streams = torch.tensor([[[-1000.0, 1000.0]] * 3])
    loss = exit_loss(student, "mv", streams, torch.tensor([1]))
    loss.backward()
    assert loss.item() == pytest.approx(2000)
    assert torch.isfinite(student.grad).all()


def test_teachers_are_the_named_streams():
    streams = torch.arange(6.0).reshape(1, 3, 2)
    assert teacher_logits("iframe", streams).tolist() == [[0, 1]]
    assert teacher_logits("mv", streams).tolist() == [[2, 3]]
    assert teacher_logits("residual", streams).tolist() == [[4, 5]]
    assert teacher_logits("fused", streams).tolist() == [[6, 9]]


@pytest.mark.parametrize("teacher", sorted(set(TEACHERS) - set(RANKS)))
@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("labelled", [1, 5, 13])
def test_the_logged_loss_is_a_mean_over_the_clips_that_are_taught(teacher, batch_size, labelled):
    """At a rate of 0, so that all batches see the same heads. The order puts clips without a label
    anywhere."""
    torch.manual_seed(labelled)
    labels = torch.full((13,), -1)
    labels[:labelled] = torch.randint(3, (labelled,))
    net = TeamNetIC(TeamNet(3, num_segments=1, arch="resnet18"), [1, 2])
    squeezes = tuple(torch.randn(13, block.squeeze_size) for block in net.backbone.team)
    names = [f"v{i}" for i in range(13)]
    features = Features(squeezes, torch.randn(13, 3, 3), labels, names)
    optimizer = make_exit_optimizer(net.heads, 0.0, 0.0)
    recipe = ExitRecipe([1, 2], 0.0, 1, batch_size, [], 0.0, 2.0, 1, 1, 7, False)
    logged = train_heads_one_epoch(net, features, teacher, optimizer, recipe, 0)
    seen = labels >= 0 if teacher == "labels" else slice(None)
    for exit_logits, loss in zip(net.heads_from(list(squeezes)), logged):
        rows = exit_logits[seen], teacher, features.streams[seen], labels[seen], 2.0
        assert loss == pytest.approx(exit_loss(*rows).item(), rel=1e-5)  # float32, another order
