"""Checkpoints: written whole, read as data, digests that notice every bit."""

import os

import pytest
import torch

from coviar.files import half_written, whole_file
from models.team_net import TeamNet
from training.checkpoint import (
    CheckpointError,
    load_backbone,
    load_checkpoint,
    load_last,
    save_checkpoint,
    save_last,
)
from training.state import TrainingState
from training.tensor_file import weights_digest


def test_round_trip(tmp_path):
    content = {"model": {"w": torch.arange(3.0)}, "epoch": 4, "best": None}
    save_checkpoint(tmp_path / "new" / "last.pt", content)
    loaded = load_checkpoint(tmp_path / "new" / "last.pt")
    assert torch.equal(loaded["model"]["w"], content["model"]["w"])
    assert loaded["epoch"] == 4 and loaded["best"] is None
    assert os.listdir(tmp_path / "new") == ["last.pt"]


def test_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "last.pt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["last.pt"]


@pytest.mark.parametrize("name", ["a" * 251 + ".mp4", "é" * 125 + "b.mp4", "a" * 245 + ".json"])
def test_the_longest_names_are_written_too(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(RuntimeError), whole_file(path) as temporary:
        assert half_written(path) == [temporary] and temporary.suffix == path.suffix
        raise RuntimeError
    with whole_file(path) as temporary:
        temporary.write_text("whole")
    assert path.read_text() == "whole" and list(tmp_path.iterdir()) == [path]


def test_a_file_of_something_else_is_refused(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    with pytest.raises(CheckpointError, match="tensor.pt holds a Tensor where a dict is expected"):
        load_backbone(tmp_path / "tensor.pt")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "none.pt")


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_cut_file_is_named(tmp_path, keep):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"w": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="last.pt is no readable file of tensors"):
        load_checkpoint(path)


def test_digest_notices_key_shape_dtype_and_bits():
    weights = {"a": torch.zeros(4), "b": torch.ones(2, dtype=torch.int64)}
    digest = weights_digest(weights)
    assert digest == weights_digest(dict(reversed(weights.items())))
    changed = [
        {**weights, "a": torch.tensor([0.0, 0.0, 0.0, 1e-45])},
        {**weights, "a": torch.zeros(2, 2)},
        {**weights, "a": torch.zeros(4, dtype=torch.int32)},
        {"c": weights["a"], "b": weights["b"]},
        {"a": weights["a"]},
    ]
    assert digest not in map(weights_digest, changed)


def test_digest_ignores_memory_format():
    kernel = torch.randn(3, 4, 5, 6)
    last = kernel.to(memory_format=torch.channels_last)
    assert weights_digest({"w": kernel}) == weights_digest({"w": last})


def test_backbone_round_trip(tmp_path):
    net = TeamNet(3, num_segments=2, arch="resnet18", is_shift=True)
    save_checkpoint(tmp_path / "best.pt", {"model": net.state_dict(), "config": net.config})
    loaded = load_backbone(tmp_path / "best.pt")
    assert loaded.config == net.config
    assert weights_digest(loaded.state_dict()) == weights_digest(net.state_dict())


def test_other_checkpoints_are_refused(tmp_path):
    save_checkpoint(tmp_path / "heads.pt", {"heads": {}})
    with pytest.raises(ValueError, match="neither a checkpoint of train_team_net.py"):
        load_backbone(tmp_path / "heads.pt")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content["model"].update({"team.0.old": torch.zeros(1)}), "team.0.old"),
        (lambda content: content["model"].pop("mv.classifier.bias"), "mv.classifier.bias"),
        (lambda content: content["config"].update(depth=3), "depth"),
    ],
)
def test_backbones_of_another_version_are_refused(tmp_path, change, reason):
    net = TeamNet(3, num_segments=2, arch="resnet18")
    content = {"model": dict(net.state_dict()), "config": dict(net.config)}
    change(content)
    save_checkpoint(tmp_path / "best.pt", content)
    with pytest.raises(ValueError, match="best.pt is of another version.*" + reason):
        load_backbone(tmp_path / "best.pt")


@pytest.mark.parametrize("part", ["model", "optimizer", "progress", "processes"])
def test_states_of_another_version_are_refused(tmp_path, part):
    net = TeamNet(3, num_segments=2, arch="resnet18")
    state = TrainingState(net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), None)
    state.save(tmp_path)
    state.load(tmp_path)
    content = load_last(tmp_path)
    if part == "model":
        content["model"]["team.0.old"] = torch.zeros(1)
    else:
        del content[part]
    save_last(tmp_path, content)
    with pytest.raises(CheckpointError, match="another version.*--overwrite starts again"):
        state.load(tmp_path)
