"""The baseline: ImageNet features of I-frames and a linear layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp
from torch import nn
from tqdm import tqdm

from dataset_team.dataset import VideoDataset
from MACs.counter import count_macs
from models.team_net import Stream
from training.engine import autocast
from training.loading import ViewSampler, make_loader, to_device

# Weight decays to choose from, of the mean cross entropy of standardised features.
DECAYS = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)


class Scored(NamedTuple):
    """Features (n, width), means over the segments of a view, and labels (n,)."""

    features: np.ndarray
    labels: np.ndarray

    @classmethod
    def joined(cls, views: Sequence[Scored]) -> Scored:
        """Every view of a video is a row of its own."""
        return cls(*map(np.concatenate, zip(*views)))

    @classmethod
    def averaged(cls, views: Sequence[Scored]) -> Scored:
        """A video's row is the mean over its views; a linear layer then gives the mean logits."""
        return cls(np.mean([view.features for view in views], axis=0), views[0].labels)


def average_features(
    stream: Stream,
    dataset: VideoDataset,
    views: range,
    *,
    device: torch.device,
    precision: str,
    batch_size: int,
    workers: int,
) -> list[Scored]:
    """Of every video, view by view."""
    found = []
    for view in views:
        loader = make_loader(dataset, ViewSampler(len(dataset), view), batch_size, workers, device)
        features, labels = [], []
        for sample in tqdm(loader, desc=f"view {view}", leave=False, disable=None):
            batch = to_device(sample, device)
            with torch.no_grad(), autocast(device, precision):
                x = batch.inputs[0].flatten(0, 1).to(memory_format=torch.channels_last)
                x = features_of(stream, x).float()
            features.append(x.unflatten(0, (-1, dataset.num_segments)).mean(1).cpu())
            labels.append(batch.labels.cpu())
        found.append(Scored(torch.cat(features).double().numpy(), torch.cat(labels).numpy()))
    return found


def features_of(stream: Stream, pictures: torch.Tensor) -> torch.Tensor:
    """The input of the stream's classifier for each picture: (n, 3, h, w) to (n, width)."""
    x = stream.features(stream.input_norm(pictures))
    return stream.pre_classifier(x.mean((2, 3), dtype=torch.float32))


def fit_linear(
    features: np.ndarray, labels: np.ndarray, num_classes: int, decay: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (classes, width) and biases (classes,) of the least cross entropy, exactly.

    The loss is the mean cross entropy plus decay / 2 times the squared weights, for features of
    mean 0 and deviation 1. The returned weights take the features as they are. Convex, by L-BFGS.
    """
    mean, deviation = features.mean(0), features.std(0)
    deviation[deviation == 0] = 1
    x = (features - mean) / deviation
    targets = np.eye(num_classes)[labels]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, biases = flat[:-num_classes].reshape(num_classes, -1), flat[-num_classes:]
        logits = x @ weights.T + biases
        norm = logsumexp(logits, axis=1, keepdims=True)
        loss = (norm[:, 0] - (logits * targets).sum(1)).mean() + decay / 2 * (weights**2).sum()
        slope = (np.exp(logits - norm) - targets) / len(x)
        gradient = slope.T @ x + decay * weights
        return loss, np.concatenate([gradient.ravel(), slope.sum(0)])

    start = np.zeros(num_classes * (x.shape[1] + 1))
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x
    weights = found[:-num_classes].reshape(num_classes, -1) / deviation
    return weights, found[-num_classes:] - weights @ mean


def scores(linear: tuple[np.ndarray, np.ndarray], scored: Scored) -> tuple[float, float]:
    """Mean cross entropy and top1_pct."""
    weights, biases = linear
    logits = scored.features @ weights.T + biases
    own = logits[np.arange(len(logits)), scored.labels]
    return (
        float((logsumexp(logits, axis=1) - own).mean()),
        float(100 * (logits.argmax(1) == scored.labels).mean()),
    )


def put_classifier(stream: Stream, linear: tuple[np.ndarray, np.ndarray]) -> None:
    """Make the stream's classifier this linear layer."""
    classifier: nn.Linear = stream.classifier
    with torch.no_grad():
        for parameter, values in zip((classifier.weight, classifier.bias), linear):
            parameter.copy_(torch.from_numpy(values))


def probe_gmacs(arch: str, num_classes: int, num_segments: int, crop_size: int) -> float:
    """1e9 MACs per video, one clip and one crop."""
    with torch.device("meta"):
        stream = new_stream(arch, num_classes, num_segments, None).eval()
        pictures = torch.empty(num_segments, 3, crop_size, crop_size)
    return count_macs(lambda x: stream.classifier(features_of(stream, x)), pictures) / 1e9


def new_stream(
    arch: str,
    num_classes: int,
    num_segments: int,
    weights: Mapping[str, torch.Tensor] | None,
) -> Stream:
    """An I-frame stream whose features are those of `weights`, from `load_imagenet`."""
    size = (3, num_classes, num_segments)
    fixed = {"normalise_input": False, "is_shift": False, "dropout": 0.0}
    return Stream(arch, *size, **fixed, weights=weights)
