"""The linear probe on I-frames: its solution, its features, its cost, its run."""

import json

import numpy as np
import pytest
import torch

from dataset_team.dataset import VideoDataset
from dataset_team.records import read_list
from tests.script_server import run_script
from training.checkpoint import load_checkpoint
from training.loading import to_device
from training.probe import (
    Scored,
    average_features,
    fit_linear,
    new_stream,
    probe_gmacs,
    put_classifier,
    scores,
)

CPU = torch.device("cpu")


def gradient(weights, biases, features, labels, decay):
    """Of the loss in its own words: features standardised, cross entropy, squared weights."""
    mean, deviation = features.mean(0), features.std(0)
    x = torch.tensor((features - mean) / deviation)
    w = torch.tensor(weights * deviation, requires_grad=True)
    b = torch.tensor(biases + weights @ mean, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(x @ w.T + b, torch.tensor(labels))
    (loss + decay / 2 * (w**2).sum()).backward()
    return max(w.grad.abs().max(), b.grad.abs().max())


@pytest.mark.parametrize("decay", [1e-3, 0.1])
def test_the_layer_is_the_minimum(decay):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    features = rng.normal(5, 3, (60, 4)) + labels[:, None] * rng.normal(size=4)
    weights, biases = fit_linear(features, labels, 3, decay)
    # L-BFGS-B stops at 1e-5 of the projected gradient
    assert gradient(weights, biases, features, labels, decay) < 5e-5
    assert gradient(1.05 * weights, biases, features, labels, decay) > 5e-4


def test_a_feature_that_never_changes_is_no_trouble():
    features = np.array([[1.0, 7.0], [2.0, 7.0], [3.0, 7.0], [4.0, 7.0]])
    weights, biases = fit_linear(features, np.array([0, 0, 1, 1]), 2, 0.01)
    assert np.isfinite(weights).all() and np.isfinite(biases).all()
    assert scores((weights, biases), Scored(features, np.array([0, 0, 1, 1])))[1] == 100


def test_scores_are_their_formulas():
    linear = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([0.0, 1.0])
    features, labels = np.array([[3.0, 1.0], [0.0, 1.0], [5.0, 0.0]]), np.array([0, 1, 1])
    logits = torch.tensor([[3.0, 3.0], [0.0, 3.0], [5.0, 1.0]])
    loss, top1 = scores(linear, Scored(features, labels))
    assert loss == pytest.approx(
        torch.nn.functional.cross_entropy(logits, torch.tensor(labels)).item()
    )
    assert top1 == pytest.approx(200 / 3)


@pytest.mark.parametrize("arch", ["mobilenet_v3_small", "resnet18"])
def test_features_and_cost_are_those_of_an_i_frame_stream(arch, toy_data):
    torch.manual_seed(0)
    stream = new_stream(arch, 5, 2, None).eval()
    records = read_list(toy_data / "train.txt", toy_data, "toy")[:3]
    dataset = VideoDataset(records, num_segments=2, crop_size=64, train=True)
    options = {"device": CPU, "precision": "fp32", "batch_size": 2, "workers": 0}
    views = average_features(stream, dataset, range(2), **options)
    assert not np.array_equal(views[0].features, views[1].features)
    weights = np.ones((5, views[0].features.shape[1])) / views[1].features.sum(1).max()
    put_classifier(stream, (weights, np.arange(5.0)))
    sample = torch.utils.data.default_collate([dataset[n, 1] for n in range(3)])
    batch = to_device(sample, CPU)
    with torch.no_grad():
        x = batch.inputs[0].flatten(0, 1)
        for stage in stream.stages:
            x = stage(x)
        expected = stream.classify(x, 2)
    logits = views[1].features @ weights.T + np.arange(5.0)
    np.testing.assert_allclose(expected, logits, rtol=1e-4)
    joined, averaged = Scored.joined(views), Scored.averaged(views)
    assert joined.features.shape == (6, *averaged.features.shape[1:])
    assert joined.labels.tolist() == averaged.labels.tolist() * 2


def test_cost_of_resnet50():
    """4.09 GMACs a picture, as torchvision says of its weights."""
    assert probe_gmacs("resnet50", 1000, 8, 224) == pytest.approx(8 * 4.089, rel=2e-3)


def test_the_run(toy_options, tmp_path, monkeypatch, capsys):
    class Weights(dict):
        def __missing__(self, arch):
            return None  # random: the toy data needs no better ones

    monkeypatch.setattr("models.weights.load_imagenet", lambda archs, folder: Weights())
    options = ["train_i_frame_probe.py", *toy_options, "--checkpoint_dir", str(tmp_path)]
    options += ["--arch", "mobilenet_v3_small", "--num_segments", "2", "--crop-size", "32"]
    options += ["--views", "2"]
    assert run_script(*options, "--weights-dir", str(tmp_path)) == 0
    folder = tmp_path / "toy/i_frame_probe/split1_seed1"
    result = json.loads((folder / "result.json").read_text())
    assert result["gmacs"] == pytest.approx(probe_gmacs("mobilenet_v3_small", 4, 2, 32), rel=0.01)
    assert 0 <= result["test_top1_pct"] <= 100 and result["protocol"].endswith("on heldout")
    content = load_checkpoint(folder / "best.pt")
    stream = new_stream("mobilenet_v3_small", len(content["class_names"]), 2, None)
    stream.load_state_dict(content["stream"])
    assert run_script(*options) == 2, "a used folder"
    assert "already holds a run" in capsys.readouterr().err
    assert run_script(*options, "--resume") == 0
    assert run_script(*options, "--resume", "--views", "3") == 2
    assert "--views: was 2, now 3" in capsys.readouterr().err
