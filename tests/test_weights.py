"""ImageNet weights from files: only what a name says is taken, and what is missing is listed."""

import hashlib
import http.client
import urllib.error

import pytest
import torch
import torchvision
from torchvision.models import WeightsEnum
from torchvision.models._api import Weights

from models.networks import build_network, check_arch
from models.team_net import TeamNet
from models.weights import load_imagenet
from training.checkpoint import save_checkpoint
from training.pretrained import build_backbone

NETWORK = {"num_classes": 3, "num_segments": 1, "arch": "mobilenet_v3_small"}
NETWORK["motion_arch"] = "mobilenet_v3_small"


@pytest.fixture
def weights_dir(tmp_path, monkeypatch):
    """A folder with made-up weights of MobileNetV3-small, under a name with their own digest."""
    torch.manual_seed(0)
    made, folder = tmp_path / "made.pth", tmp_path / "weights"
    torch.save(torchvision.models.mobilenet_v3_small().state_dict(), made)
    digest = hashlib.sha256(made.read_bytes()).hexdigest()[:8]
    urls = {
        "mobilenet_v3_small": f"https://host/models/mobilenet_v3_small-{digest}.pth",
        "resnet18": "https://host/models/resnet18-01234567.pth",
    }

    def known(arch):
        value = Weights(url=urls[arch], transforms=None, meta={})
        return WeightsEnum("Known", {"IMAGENET1K_V1": value})

    monkeypatch.setattr(torchvision.models, "get_model_weights", known)
    folder.mkdir()
    made.rename(folder / urls["mobilenet_v3_small"].rpartition("/")[2])
    return folder


def test_weights_start_every_stream(weights_dir):
    """Motion vectors: the mean over the colours, so scaled that grey pictures give the same."""
    net = build_backbone(NETWORK, "imagenet", 0, weights_dir=weights_dir)
    state = load_imagenet(["mobilenet_v3_small"], weights_dir)["mobilenet_v3_small"]
    colour = state["features.0.0.weight"]
    assert torch.equal(net.iframe.stem[0][0].weight, colour)
    assert torch.equal(net.residual.stem[0][0].weight, colour)
    grey = torch.randn(1, 1, 32, 32)
    got = net.mv.stem[0][0](grey.expand(-1, 2, -1, -1))
    want = net.iframe.stem[0][0](grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert torch.equal(net.mv.layer4[-1][0].weight, state["features.12.0.weight"])


def test_what_is_missing_is_listed(weights_dir):
    for config in (NETWORK, {**NETWORK, "arch": "resnet18"}):
        with pytest.raises(ValueError, match="--weights-dir .* has no") as error:
            build_backbone(config, "imagenet", 0, weights_dir=weights_dir / "nowhere")
        assert "https://host/models/mobilenet_v3_small-" in str(error.value)
    assert "https://host/models/resnet18-01234567.pth" in str(error.value)


@pytest.mark.parametrize("damage", ["truncated", "other", "empty"])
def test_a_file_that_is_not_what_its_name_says_is_refused(weights_dir, damage):
    (file,) = weights_dir.iterdir()
    content = file.read_bytes()
    changed = {"truncated": content[:-100], "other": content[::-1], "empty": b""}
    file.write_bytes(changed[damage])
    with pytest.raises(ValueError, match=f"{file.name} is damaged or another file.*fetch https"):
        load_imagenet(["mobilenet_v3_small"], weights_dir)
    assert list(weights_dir.iterdir()) == [file]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError('invalid hash value (expected "1", got "2")'),
        EOFError("Ran out of input"),
        http.client.IncompleteRead(b"half"),
        http.client.BadStatusLine("<html>"),
        urllib.error.URLError("no network"),
        TimeoutError("timed out"),
    ],
)
def test_a_download_that_fails_says_what_to_fetch(weights_dir, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fail)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(weights_dir / "hub"))
    with pytest.raises(ValueError, match="cannot download .*Fetch https://host/models/.*resnet18"):
        load_imagenet(["resnet18"])


@pytest.fixture
def trained(tmp_path):
    """Checkpoints of two networks."""
    files = []
    for seed, num_classes in enumerate((3, 5)):
        torch.manual_seed(seed)
        net = TeamNet(**{**NETWORK, "num_classes": num_classes})
        files.append(tmp_path / f"{seed}.pt")
        save_checkpoint(files[-1], {"model": net.state_dict(), "config": net.config})
    return [str(file) for file in files], net


def test_streams_start_from_their_own_checkpoints(trained, weights_dir):
    (first, second), source = trained
    sources = {"mv": second, "iframe": "imagenet"}
    net = build_backbone(NETWORK, first, 9, sources, weights_dir)
    parts = {
        "iframe.stem.": build_backbone(NETWORK, "imagenet", 0, weights_dir=weights_dir),
        "mv.layer": source,
        "mv.input_norm": source,
        "residual.": build_backbone(NETWORK, first, 0),
        "team.": build_backbone(NETWORK, first, 0),
    }
    state = net.state_dict()
    for prefix, expected in parts.items():
        theirs = {k: v for k, v in expected.state_dict().items() if k.startswith(prefix)}
        assert theirs and all(torch.equal(state[key], value) for key, value in theirs.items())
    assert net.mv.classifier.weight.shape[0] == 3  # five classes there


@pytest.mark.parametrize(
    "change", [{"motion_arch": "resnet18"}, {"motion_arch": "mobilenet_v2"}, {"is_shift": True}]
)
def test_streams_of_another_network_are_refused(trained, change):
    (first, _), _ = trained
    with pytest.raises(ValueError, match=f"{first} holds .*does not fit the options"):
        build_backbone({**NETWORK, **change}, None, 0, {"mv": first})


@pytest.mark.parametrize(
    ("arch", "reason"),
    [
        ("alexnet", "strides"),
        ("vgg11", "its classifier takes more"),
        ("densenet121", "computes more than its blocks"),
        ("shufflenet_v2_x0_5", "no row of blocks"),
        ("swin_t", "no maps"),
        ("mobilenet_v9", "unknown arch 'mobilenet_v9';"),
    ],
)
def test_a_network_without_five_stages_is_refused(arch, reason):
    with pytest.raises(ValueError, match=f"{reason}.*choose one of .*mobilenet_v2.*resnet18"):
        check_arch(arch)
    with pytest.raises(ValueError, match="choose one of"):
        build_network(arch, 3)
