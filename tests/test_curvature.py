"""Flatness: perturbations, traces and the worst case, against slow and exact references."""

import functools
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from study import curvature

SEED = 3


@pytest.fixture
def problem():
    """A network of two convolutions, BatchNorm and a linear layer, half trained; its loss in two
    batches."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=True),
        nn.BatchNorm2d(3),
        nn.Tanh(),
        nn.Conv2d(3, 3, 2, groups=3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(12, 4),
    )
    net = net.double().eval().requires_grad_(False)
    net[1].running_var.uniform_(0.5, 2)
    x, labels = torch.randn(7, 2, 5, 5).double(), torch.arange(7) % 4

    def of_rows(rows, weights):
        logits = functional_call(net, weights, x[rows])
        return F.cross_entropy(logits, labels[rows], reduction="sum") / 7

    loss = [functools.partial(of_rows, rows) for rows in (slice(0, 4), slice(4, 7))]

    for _ in range(60):
        weights = {name: w.detach().requires_grad_() for name, w in net.named_parameters()}
        sum(part(weights) for part in loss).backward()
        for name, parameter in net.named_parameters():
            parameter -= 0.5 * weights[name].grad
    return net, loss


def exact_hessian(loss, weights, number):
    """(P, P) of the loss's part of this number; all weights in one vector."""
    sizes = [w.numel() for w in weights.values()]

    def of_vector(vector):
        pieces = zip(weights.items(), vector.split(sizes))
        return loss[number]({name: piece.view_as(w) for (name, w), piece in pieces})

    return torch.autograd.functional.hessian(
        of_vector, torch.cat([w.flatten() for w in weights.values()])
    )


def quadratic(curvatures):
    """1/2 sum of curvatures * (w - w0)^2, whose minimum is w0: Hessian and rises are known."""

    def part(weights):
        return sum((curvatures[k] * (w - MINIMUM[k]) ** 2).sum() / 2 for k, w in weights.items())

    return [part]


MINIMUM = {"a": torch.tensor([[3.0, 4.0], [0.0, 2.0]]), "b": torch.tensor([[[[0.5]]]])}


def test_only_weights_of_convolutions_and_linear_layers_are_perturbed(problem):
    assert list(curvature.weights_of(problem[0])) == ["0.weight", "3.weight", "6.weight"]


def test_each_filter_is_perturbed_by_radius_times_its_norm(problem):
    weights = curvature.weights_of(problem[0])
    weights["6.weight"] = weights["6.weight"].clone()
    weights["6.weight"][2] = 0
    direction = curvature.random_direction(weights, SEED, 0)
    perturbed = curvature.moved(weights, direction, 0.3)
    for name, weight in weights.items():
        for row, before in zip(perturbed[name], weight):
            norm = math.sqrt(sum(float(x) ** 2 for x in before.flatten()))
            change = math.sqrt(sum(float(x) ** 2 for x in (row - before).flatten()))
            assert change == pytest.approx(0.3 * norm, rel=1e-9), name
    again, other = (curvature.random_direction(weights, SEED, number) for number in (0, 1))
    assert torch.equal(again["0.weight"], direction["0.weight"])
    assert not torch.allclose(other["0.weight"], direction["0.weight"])
    zero = {name: torch.zeros_like(w) for name, w in weights.items()}
    assert not any(x.any() for x in curvature.filter_normalised(zero, weights).values())


def test_hutchinson_against_the_exact_hessian(problem):
    net, loss = problem
    weights = curvature.weights_of(net)
    hessians = [exact_hessian(loss, weights, number) for number in (0, 1)]
    hessian = sum(hessians)
    diagonal = hessian.diagonal().split([w.numel() for w in weights.values()])
    relative = 0.0
    for weight, curved in zip(weights.values(), diagonal):
        for row, of_row in zip(weight, curved.view_as(weight)):
            relative += float((row**2).mean() * of_row.sum())
    # Rademacher: the variance of v'Hv is twice the sum of squares off the diagonal.
    off = [float(((part - part.diagonal().diag()) ** 2).sum()) for part in hessians]
    plain, weighed = curvature.hessian_traces(loss, weights, 200, SEED)
    assert plain.std_error == pytest.approx(math.sqrt(2 * sum(off) / 200), rel=0.15)
    assert plain.draws == 200
    for found, exact in ((plain, float(hessian.trace())), (weighed, relative)):
        assert abs(found.mean - exact) < 4 * found.std_error < 0.4 * abs(exact)


def test_hessian_times_vector_is_exact(problem):
    net, loss = problem
    weights = curvature.weights_of(net)
    vector = curvature.random_direction(weights, SEED, 5)
    for number, part in enumerate(loss):
        product = curvature.hessian_vector(part, weights, vector)
        v, found = (torch.cat([x.flatten() for x in both.values()]) for both in (vector, product))
        assert torch.allclose(exact_hessian(loss, weights, number) @ v, found, atol=1e-10)


def test_relative_trace_foretells_the_rise_of_a_small_random_perturbation(problem):
    net, loss = problem
    weights = curvature.weights_of(net)
    here, rises = curvature.mean_loss(loss, weights), []
    for number in range(150):  # opposite directions: the gradient, which is not 0, cancels
        direction = curvature.random_direction(weights, SEED, number)
        both = [
            curvature.mean_loss(loss, curvature.moved(weights, direction, r)) for r in (0.03, -0.03)
        ]
        rises.append(sum(both) / 2 - here)
    rise = curvature.MeanOfDraws.of(rises)
    relative = curvature.hessian_traces(loss, weights, 200, SEED)[1]
    assert rise.mean == pytest.approx(0.03**2 / 2 * relative.mean, rel=0.1)


def test_rescaled_filters_are_as_flat():
    """a and b of one path, a * b * x: 10 a and b / 10 are the same network."""

    def part(weights):
        logits = (weights["a"] * weights["b"]) * torch.tensor([[1.0, -1.0], [2.0, 0.5]])
        return F.cross_entropy(logits, torch.tensor([0, 1]))

    loss = [part]
    one = {"a": torch.full((1, 1), 0.7), "b": torch.full((1, 1), 1.3)}
    other = {"a": one["a"] * 10, "b": one["b"] / 10}
    traces = [curvature.hessian_traces(loss, w, 300, SEED) for w in (one, other)]
    rises = [curvature.random_losses(loss, w, 0.2, 4, SEED) for w in (one, other)]
    worst = [
        curvature.worst_loss(loss, w, 0.2, curvature.random_direction(w, SEED, 0), 2)
        for w in (one, other)
    ]
    assert rises[0] == pytest.approx(rises[1], rel=1e-5)
    assert worst[0] == pytest.approx(worst[1], rel=1e-5)
    apart = [abs(a.mean - b.mean) / math.hypot(a.std_error, b.std_error) for a, b in zip(*traces)]
    assert apart[1] < 4
    assert apart[0] > 20, "the plain trace is not the same"


def test_a_quadratic_whose_flatness_is_known():
    steep = {"a": torch.tensor([[1.0, 1.0], [2.0, 2.0]]), "b": torch.full((1, 1, 1, 1), 8.0)}
    loss = quadratic(steep)
    trace, relative = curvature.hessian_traces(loss, MINIMUM, 3, SEED)
    assert trace.mean == pytest.approx(1 + 1 + 2 + 2 + 8) and trace.std_error == 0
    # Filters of norms 5, 2 and 0.5; the curvature is equal within each, so all directions agree.
    known = 25 * 1 + 4 * 2 + 0.25 * 8
    assert relative.mean == pytest.approx(25 / 2 * 2 + 4 / 2 * 4 + 0.25 * 8) == known
    assert curvature.random_losses(loss, MINIMUM, 0.1, 4, SEED) == pytest.approx(
        [0.1**2 / 2 * known] * 4, rel=1e-4
    )
    flat = quadratic({name: x / 5 for name, x in steep.items()})
    assert curvature.hessian_traces(flat, MINIMUM, 3, SEED)[0].mean == pytest.approx(14 / 5)
    assert curvature.random_losses(flat, MINIMUM, 0.1, 1, SEED)[0] == pytest.approx(
        0.1**2 / 2 * known / 5, rel=1e-4
    )


def test_worst_case_of_a_quadratic_is_along_the_steepest_weight_of_each_filter():
    loss = quadratic({"a": torch.tensor([[1.0, 9.0], [4.0, 1.0]]), "b": torch.ones(1, 1, 1, 1)})
    start = curvature.random_direction(MINIMUM, SEED, 0)
    known = 0.2**2 / 2 * (25 * 9 + 4 * 4 + 0.25 * 1)
    values = [curvature.worst_loss(loss, MINIMUM, 0.2, start, steps) for steps in (0, 1, 2, 40)]
    assert values[-1] == pytest.approx(known, rel=1e-4)
    assert values == sorted(values), "each step of a convex loss goes up"
    assert values[0] == curvature.random_losses(loss, MINIMUM, 0.2, 1, SEED)[0]


def test_worst_case_is_above_random_and_inside_the_radius(problem, monkeypatch):
    net, loss = problem
    weights = curvature.weights_of(net)
    visited = []

    def watched(found):
        visited.append({name: w.detach() for name, w in found.items()})
        return sum(part(found) for part in loss)

    for radius in (0.05, 0.5):
        losses = curvature.random_losses(loss, weights, radius, 8, SEED)
        start = curvature.random_direction(weights, SEED, losses.index(max(losses)))
        worst = curvature.worst_loss([watched], weights, radius, start, 3)
        assert worst >= max(losses)
        assert worst > curvature.mean_loss(loss, weights) + 1.5 * (
            max(losses) - curvature.mean_loss(loss, weights)
        )
        for found, name in itertools.product(visited, weights):
            change = (found[name] - weights[name]).flatten(1).norm(dim=1)
            assert (change <= radius * weights[name].flatten(1).norm(dim=1) * (1 + 1e-9)).all()
        visited.clear()


def test_gradient_against_finite_differences(problem):
    net, loss = problem
    weights = curvature.weights_of(net)
    value, slope = curvature.gradient(loss, weights)
    assert value == pytest.approx(curvature.mean_loss(loss, weights))
    direction = curvature.random_direction(weights, SEED, 2)
    ends = [
        curvature.mean_loss(loss, curvature.moved(weights, direction, r)) for r in (1e-5, -1e-5)
    ]
    along = sum(float((slope[name] * direction[name]).sum()) for name in weights)
    assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(along, rel=1e-6)


def test_a_loss_that_is_not_finite_is_an_error():
    loss = [lambda weights: weights["a"].exp().sum()]
    with pytest.raises(ValueError, match="smaller radii"):
        curvature.random_losses(loss, {"a": torch.full((1, 1), 80.0)}, 1.0, 4, SEED)
