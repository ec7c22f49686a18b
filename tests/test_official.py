"""Published weights load here and give the published network's outputs."""

import json
import zlib

import numpy as np
import pytest
import torch

from models.official import from_official, is_official
from training.checkpoint import load_backbone, save_checkpoint
from training.trained import load_trained

GOLDEN = "golden/official_team_net_ic"


def fill(key, shape):
    """The golden file's fill rule: every tensor follows from its name."""
    random = np.random.RandomState(zlib.crc32(key.encode()))
    if key.endswith("num_batches_tracked"):
        return torch.tensor(1)
    if key.endswith("running_var"):
        values = 0.5 + random.random_sample(shape)
    elif key.endswith(("running_mean", "bias")):
        values = 0.1 * random.standard_normal(shape)
    elif len(shape) == 1:
        values = 1 + 0.1 * random.standard_normal(shape)
    else:
        values = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))


@pytest.fixture(scope="module")
def golden_keys(shared):
    return json.loads((shared / f"{GOLDEN}.json").read_text())["keys"]


@pytest.fixture(scope="module")
def golden_state(golden_keys):
    return {key: fill(key, shape) for key, shape in golden_keys}


@pytest.fixture
def zero_state(golden_keys):
    """The same names and shapes without the time to fill them, for tests of names and shapes."""
    return {key: torch.zeros(shape) for key, shape in golden_keys}


def test_outputs_of_the_published_network(golden_state, shared):
    wrapped = {
        "epoch": 3,
        "arch": "resnet50",
        "best_prec1": 92.7,
        "state_dict": {f"module.{key}": value for key, value in golden_state.items()},
    }
    assert is_official(wrapped)
    net = from_official(wrapped)
    assert not net.training
    random = np.random.RandomState(0)
    clips = [random.standard_normal((2, 8, c, 96, 96)).astype(np.float32) for c in (3, 2, 3)]
    with torch.no_grad():
        output = net(*(torch.from_numpy(clip) for clip in clips))
    got = dict(zip(("ic1", "ic2", "ic3", "i", "mv", "r", "out"), (*output.exits, *output[1:])))
    expected = np.load(shared / f"{GOLDEN}.npz")
    assert set(got) == set(expected.files)
    for name, logits in got.items():
        want = expected[name]
        error = np.abs(logits.numpy() - want).max() / np.abs(want).max()
        assert error < 1e-5, name  # float32 sums in another order: 4e-7 measured


def test_settings_are_read_from_the_file(zero_state):
    net = from_official(zero_state)
    assert net.exits == (1, 2, 3)
    assert net.backbone.config == {
        "num_classes": 101,
        "num_segments": 8,
        "arch": "resnet50",
        "motion_arch": "resnet18",
        "is_shift": False,
        "dropout": 0.5,
        "fusion": "team",
    }


def without_heads(state):
    return {key: value for key, value in state.items() if not key.startswith("IC")}


@pytest.mark.parametrize(("asked", "recorded"), [(None, 8), (5, 5)])
def test_file_without_exits(zero_state, asked, recorded):
    net = from_official(without_heads(zero_state), num_segments=asked)
    assert net.exits == ()
    assert net.backbone.config["num_segments"] == recorded


def test_temporal_shift_is_read_from_the_keys(golden_state):
    shifted = {
        key.replace(".conv1.", ".conv1.net.") if ".layer" in key else key: value
        for key, value in golden_state.items()
    }
    net = from_official(shifted)
    assert net.backbone.config["is_shift"]
    for stream, name in zip(net.backbone.streams, ("I", "MV", "R")):
        for k in range(1, 5):
            weight = golden_state[f"{name}_model.base_model.layer{k}.1.conv1.weight"]
            assert torch.equal(stream.stages[k][1].conv1.net.weight, weight)


def add_blocks(state, layer, template, numbers):
    """Give `layer` of the I-frame stream more blocks, shaped as its block `template`."""
    prefix = f"I_model.base_model.{layer}."
    for key in [key for key in state if key.startswith(f"{prefix}{template}.")]:
        for number in numbers:
            state[key.replace(f"{prefix}{template}.", f"{prefix}{number}.")] = state[key]


def test_deeper_stream_is_recognised(zero_state):
    add_blocks(zero_state, "layer3", 5, range(6, 23))
    assert from_official(zero_state).backbone.config["arch"] == "resnet101"


def test_wider_stream_is_recognised_and_its_wrong_shapes_listed(zero_state):
    zero_state["I_model.base_model.layer1.0.conv2.weight"] = torch.zeros(128, 128, 3, 3)
    with pytest.raises(ValueError, match=r"conv1.weight: \(64, 64, 1, 1\), expected \(128"):
        from_official(zero_state)


def test_unknown_stream_is_refused(zero_state):
    add_blocks(zero_state, "layer3", 5, range(6, 9))
    with pytest.raises(ValueError, match=r"I_model is no torchvision ResNet: \(3, 4, 9, 3\)"):
        from_official(zero_state)


def test_missing_and_unexpected_keys_are_listed(zero_state):
    bias = zero_state.pop("MV_model.new_fc.bias")
    with pytest.raises(ValueError, match="1 keys missing:\n  MV_model.new_fc.bias"):
        from_official(zero_state)
    zero_state["MV_model.new_fc.bias"] = bias
    zero_state["MV_model.extra"] = bias
    with pytest.raises(ValueError, match="1 keys unexpected:\n  MV_model.extra"):
        from_official(zero_state)


def test_wrong_shapes_are_listed(zero_state):
    # rows moved from one stream to another: right in sum only
    zero_state["team1.fc_mv.weight"] = torch.zeros(60, 96)
    zero_state["team1.fc_r.weight"] = torch.zeros(68, 96)
    zero_state["team2.conv_s_i.weight"] = torch.zeros(1, 3, 5, 5)
    with pytest.raises(ValueError, match="3 keys of another shape") as error:
        from_official(zero_state)
    assert "team1.fc_mv.weight: (60, 96), expected (64, 96)" in str(error.value)
    assert "team2.conv_s_i.weight: (1, 3, 5, 5), expected (1, 3, 3, 3)" in str(error.value)


def test_network_owns_its_weights(zero_state):
    """Half precision files load as float32, and training the network leaves the dict alone."""
    half = {key: v.half() if v.is_floating_point() else v for key, v in zero_state.items()}
    net = from_official(half)
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert all(p.device.type == "cpu" for p in net.state_dict().values())
    net = from_official(zero_state)
    net.heads["1"].weight.data += 1
    assert not zero_state["IC1_classifier.weight"].any()
    assert net.heads["1"].weight.requires_grad and not net.backbone.mv.classifier.bias.requires_grad


@pytest.mark.parametrize(
    ("key", "shape", "asked", "message"),
    [
        ("IC1_classifier.weight", (101, 48 * 5), None, "5 by exit 1, 8 by exit 2"),
        ("IC1_classifier.weight", (101, 100), None, "100 inputs, which is no multiple of the 48"),
        ("IC1_classifier.weight", (101, 384), 4, "8 by exit 1.*4 by the caller"),
    ],
)
def test_contradictory_segments_are_refused(zero_state, key, shape, asked, message):
    zero_state[key] = torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        from_official(zero_state, num_segments=asked)


def test_exit_without_its_team_block_is_refused(zero_state):
    del zero_state["team0.fc_squeeze.weight"]
    with pytest.raises(ValueError, match="no team0.fc_squeeze.weight"):
        from_official(zero_state)


def test_other_files_are_recognised_and_refused():
    other = {"state_dict": {"fc.weight": torch.zeros(2, 2)}}
    assert not is_official(other)
    for content in ([1, 2], None, {"state_dict": None}, {"state_dict": [1, 2]}, {}):
        assert not is_official(content)
    with pytest.raises(ValueError, match=r"not a published TEAM-Net.*fc.weight"):
        from_official(other)


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": None},
        {"state_dict": [1, 2]},
        {1: 2, "a": 3},
        {"I_model.new_fc.weight": 3},
        {"I_model.new_fc.weight": torch.zeros(())},
        {"state_dict": {"module.I_model.new_fc.weight": [1.0]}},
        {"I_model.new_fc.weight": torch.zeros(3, 8), "MV_model.new_fc.weight": "text"},
        {"I_model.new_fc.weight": torch.zeros(3, 8)},
        {"model": 3, "config": 3},
        {"model": {}, "config": {"arch": 3}},
        {"model": [1], "config": {"num_classes": 3}},
        {"heads": {}},
        {"heads": 3, "backbone_digest": "0", "backbone": "b.pt"},
    ],
)
def test_a_foreign_file_is_refused_by_its_name(tmp_path, content):
    """As the weights of a backbone, and as a whole network."""
    path = tmp_path / "foreign.pt"
    save_checkpoint(path, content)
    for load in (load_backbone, load_trained):
        with pytest.raises(ValueError, match="foreign.pt"):
            load(path)


def test_a_published_file_that_does_not_fit_is_named(tmp_path, zero_state):
    path = tmp_path / "published.pt"
    for key, value in (("MV_model.extra", torch.zeros(1)), ("MV_model.new_fc.bias", 3)):
        save_checkpoint(path, {**zero_state, key: value})
        for load in (load_backbone, load_trained):
            with pytest.raises(ValueError, match=f"published.pt: .*\n  {key}"):
                load(path)
