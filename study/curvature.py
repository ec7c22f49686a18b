"""How flat a minimum is: the loss of weights around it, and its curvature there.

A filter makes one output of a convolution or linear layer: it is a row of the weight. Radii are
filter-normalised (Li et al., NeurIPS 2018, section 4): a perturbation of radius r changes each
filter by r times its norm. So rescaled filters do not change the flatness of a network. Biases and
BatchNorm are not perturbed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.autograd import forward_ad

Weights = dict[str, torch.Tensor]
Part = Callable[[Weights], torch.Tensor]
# The mean loss is the sum of these parts, one for each batch.
Loss = Sequence[Part]


class MeanOfDraws(NamedTuple):
    """The mean of draws, its standard error (NaN of one draw), and their number."""

    mean: float
    std_error: float
    draws: int

    @classmethod
    def of(cls, values: Sequence[float]) -> MeanOfDraws:
        spread = np.std(values, ddof=1) if len(values) > 1 else math.nan
        return cls(float(np.mean(values)), float(spread / math.sqrt(len(values))), len(values))


def weights_of(module: nn.Module) -> Weights:
    """The weights of convolutions and linear layers, by name: these are perturbed."""
    return {
        f"{name}.weight": layer.weight.detach()
        for name, layer in module.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
    }


def filter_norms(weight: torch.Tensor) -> torch.Tensor:
    """(rows, 1, ...) Euclidean norm of each row of a weight."""
    return weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.dim() - 1))


def filter_normalised(direction: Mapping[str, torch.Tensor], weights: Weights) -> Weights:
    """The direction, each filter scaled to the length of that of the weights; zeros stay zeros."""
    found = {}
    for name, weight in weights.items():
        length = filter_norms(direction[name])
        factor = filter_norms(weight) / length.where(length > 0, torch.ones_like(length))
        found[name] = direction[name] * factor
    return found


def brought_back(direction: Weights, weights: Weights) -> Weights:
    """The direction, no filter longer than that of the weights."""
    bounds = filter_normalised(direction, weights)
    return {
        name: x.where(filter_norms(x) <= filter_norms(weights[name]), bounds[name])
        for name, x in direction.items()
    }


def random_direction(weights: Weights, seed: int, number: int) -> Weights:
    """The Gaussian direction of this number, filter-normalised."""
    rng = _generator(seed, number)
    drawn = {name: torch.randn(w.shape, generator=rng).to(w) for name, w in weights.items()}
    return filter_normalised(drawn, weights)


def moved(weights: Weights, direction: Weights, radius: float) -> Weights:
    return {name: weight + radius * direction[name] for name, weight in weights.items()}


@torch.no_grad()
def mean_loss(loss: Loss, weights: Weights) -> float:
    """Raises ValueError where it is not finite."""
    return _finite(sum(part(weights).item() for part in loss))


def gradient(loss: Loss, weights: Weights) -> tuple[float, Weights]:
    """The loss, and its gradient. Raises ValueError where the loss is not finite."""
    leaves, total = _leaves(weights), 0.0
    slopes = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for part in loss:
        value = part(leaves)
        total += value.item()
        for name, slope in zip(leaves, torch.autograd.grad(value, list(leaves.values()))):
            slopes[name] += slope
    return _finite(total), slopes


def hessian_vector(part: Part, weights: Weights, vector: Weights) -> Weights:
    """The Hessian of a part of the loss times a vector: the derivative of its gradient along the
    vector, in forward mode.

    PyTorch raises NotImplementedError for layers that have none; see study.twice_differentiable.
    """
    leaves = _leaves(weights)
    with forward_ad.dual_level():
        along = {name: forward_ad.make_dual(w, vector[name]) for name, w in leaves.items()}
        slopes = torch.autograd.grad(part(along), list(along.values()), materialize_grads=True)
        changes = [forward_ad.unpack_dual(slope).tangent for slope in slopes]
    return {
        name: torch.zeros_like(weights[name]) if change is None else change.detach()
        for name, change in zip(weights, changes)
    }


def random_losses(
    loss: Loss, weights: Weights, radius: float, directions: int, seed: int
) -> list[float]:
    """The loss at this radius in each of the seeded random directions."""
    return [
        mean_loss(loss, moved(weights, random_direction(weights, seed, number), radius))
        for number in range(directions)
    ]


def worst_loss(loss: Loss, weights: Weights, radius: float, start: Weights, steps: int) -> float:
    """The highest loss found where no filter is further away than radius times its norm.

    start: a filter-normalised direction, from which gradient ascent begins. Each step is as long as
    the radius in every filter, like the one step of SAM (Foret et al. 2021). Filters that are too
    far away are then brought back. The result is never below the loss at the start.
    """
    highest, direction = -math.inf, start
    for _ in range(steps):
        value, slope = gradient(loss, moved(weights, direction, radius))
        highest = max(highest, value)
        direction = moved(direction, filter_normalised(slope, weights), 1.0)
        direction = brought_back(direction, weights)
    return max(highest, mean_loss(loss, moved(weights, direction, radius)))


def hessian_traces(
    loss: Loss, weights: Weights, vectors: int, seed: int
) -> tuple[MeanOfDraws, MeanOfDraws]:
    """Hutchinson's estimate, with Rademacher vectors, of two traces.

    The first is the Hessian's. The second, relative one weighs the curvature of each weight by the
    mean square of the weights in its filter. It does not change when filters are rescaled. A random
    perturbation of small radius adds radius²/2 times this trace to the loss.

    The Hessian is the sum of those of the parts. Each draw has another vector for every part: this
    costs as much as one vector for all parts and has less noise.
    """
    scales = {name: filter_norms(w) ** 2 / w[0].numel() for name, w in weights.items()}
    plain, relative = [], []
    for number in range(vectors):
        rng = _generator(seed, number)
        totals = [0.0, 0.0]
        for part in loss:
            signs = {
                name: torch.randint(0, 2, w.shape, generator=rng).to(w) * 2 - 1
                for name, w in weights.items()
            }
            product = hessian_vector(part, weights, signs)
            terms = {name: signs[name] * product[name] for name in weights}
            totals[0] += sum(term.sum().item() for term in terms.values())
            totals[1] += sum((scales[name] * terms[name]).sum().item() for name in weights)
        plain.append(totals[0])
        relative.append(totals[1])
    return MeanOfDraws.of(plain), MeanOfDraws.of(relative)


def _leaves(weights: Weights) -> Weights:
    return {name: weight.detach().requires_grad_() for name, weight in weights.items()}


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"the loss is {value} where the weights are perturbed: take smaller radii")
    return value


def _generator(seed: int, number: int) -> torch.Generator:
    """On the CPU, so that a GPU draws the same."""
    drawn = np.random.SeedSequence([seed, number]).generate_state(1)[0]
    return torch.Generator().manual_seed(int(drawn))
