"""The script that measures the flatness of streams: whose logits, which clips, which rows."""

import csv
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from dataset_team import toy
from dataset_team.records import Record
from models import STREAMS
from models.team_net import FUSIONS, TeamNet
from study import curvature, flatness, stream_loss
from tests.calls import call
from training.checkpoint import load_checkpoint, save_checkpoint
from training.loading import Batch

pytestmark = pytest.mark.usefixtures("tiny_resnets")
FEW = ["--directions", 2, "--steps", 1, "--vectors", 2, "--radii", 0.1, "--worst-radii", 0.1, 0.2]


def make_net(fusion):
    torch.manual_seed(2)
    net = TeamNet(3, num_segments=2, arch="resnet18", fusion=fusion).eval().requires_grad_(False)
    for stream in net.streams:
        stream.classifier.weight.normal_()
    return net


def make_batches():
    inputs = [torch.randn(5, 2, channels, 32, 32) for channels in (3, 2, 3)]
    labels = torch.tensor([0, 1, 2, 0, 1])
    rows = (slice(0, 3), slice(3, 5))
    return inputs, labels, [Batch(tuple(x[r] for x in inputs), labels[r], labels[r]) for r in rows]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_loss_and_top1_are_those_of_the_streams_own_logits(fusion):
    net = make_net(fusion)
    inputs, labels, batches = make_batches()
    with torch.no_grad():
        output = net(*inputs)
    for name in STREAMS:
        logits = getattr(output, name)
        loss = stream_loss.StreamLoss(net, name, batches)
        expected = F.cross_entropy(logits, labels).item()
        assert curvature.mean_loss(loss.parts, loss.weights) == pytest.approx(expected)
        assert loss.top1_pct() == 20 * (logits.argmax(1) == labels).sum().item()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_only_the_streams_own_weights_are_moved(fusion):
    net = make_net(fusion)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    inputs, labels, batches = make_batches()
    loss = stream_loss.StreamLoss(net, "mv", batches)
    moved = {name: weight * 1.5 for name, weight in loss.weights.items()}
    found = curvature.mean_loss(loss.parts, moved)
    with torch.no_grad():
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        for name, weight in moved.items():
            net.get_parameter(f"mv.{name}").copy_(weight)
        changed = {
            name for name, value in net.state_dict().items() if (value != before[name]).any()
        }
        assert found == pytest.approx(F.cross_entropy(net(*inputs).mv, labels).item(), rel=1e-5)
    weights = [name for name, value in net.mv.named_parameters() if value.dim() > 1]
    assert changed == {f"mv.{name}" for name in weights}, "no bias, BatchNorm, other stream, TEAM"


@pytest.mark.parametrize(
    "arch", ["resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "regnet_y_400mf"]
)
def test_each_kind_of_network_has_its_curvature(arch):
    """Loss and gradient as the network's own, and the Hessian as by double backward."""
    torch.manual_seed(4)
    net = TeamNet(3, 2, motion_arch=arch, fusion="sum").eval().requires_grad_(False)
    for module in net.mv.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    net.mv.classifier.weight.normal_(0, 0.1)
    inputs, labels = [torch.randn(2, 2, channels, 32, 32) for channels in (3, 2, 3)], [0, 2]
    batch = Batch(tuple(inputs), torch.tensor(labels), torch.tensor(labels))
    loss = stream_loss.StreamLoss(net, "mv", [batch])
    leaves = {name: w.clone().requires_grad_() for name, w in loss.weights.items()}
    placed = {f"mv.{name}": w for name, w in leaves.items()}
    own = F.cross_entropy(functional_call(net, placed, batch.inputs).mv, batch.labels)
    value, slope = curvature.gradient(loss.parts, loss.weights)
    assert value == pytest.approx(own.item(), rel=1e-5)
    check_equal(slope, torch.autograd.grad(own, list(leaves.values())))

    direction = curvature.random_direction(loss.weights, 1, 0)
    (part,) = loss.parts
    slopes = torch.autograd.grad(part(leaves), list(leaves.values()), create_graph=True)
    along = sum((s * direction[name]).sum() for name, s in zip(leaves, slopes))
    product = curvature.hessian_vector(part, loss.weights, direction)
    check_equal(product, torch.autograd.grad(along, list(leaves.values())))


def check_equal(found, expected):
    found, expected = (torch.cat([x.flatten() for x in xs]) for xs in (found.values(), expected))
    assert (found - expected).norm() < 1e-4 * expected.norm() > 0


def records(classes):
    names = [f"{c}/v{n}" for n in range(9) for c in classes]
    return [Record(name, name, name[0], classes.index(name[0]), None) for name in names]


def test_videos_are_drawn_alike_from_all_classes_whatever_the_order_of_the_list():
    videos = [record for record in records("abcd") if record.name not in ("d/v4", "d/v5", "d/v6")]
    rows = stream_loss.choose_videos(videos, 14, 0)
    assert rows == sorted(set(rows))
    assert sorted(Counter(videos[row].label for row in rows).values()) == [3, 3, 4, 4]
    names = {videos[row].name for row in rows}
    assert names == {
        videos[::-1][row].name for row in stream_loss.choose_videos(videos[::-1], 14, 0)
    }
    assert names != {videos[row].name for row in stream_loss.choose_videos(videos, 14, 1)}
    few = Counter(videos[row].label for row in stream_loss.choose_videos(videos, 32, 5))
    assert sorted(few.values()) == [6, 8, 9, 9]
    assert stream_loss.choose_videos(videos, 100, 0) == list(range(33)), "all that there are"


@pytest.fixture
def backbone(frozen_toy, tmp_path):
    """A checkpoint whose logits differ from class to class, as trained ones do."""
    content = load_checkpoint(frozen_toy[1])
    for name in STREAMS:
        content["model"][f"{name}.classifier.weight"] *= 1000
    save_checkpoint(tmp_path / "backbone.pt", content)
    return tmp_path / "backbone.pt"


def measure(toy_options, checkpoint, out, *options):
    call(flatness, checkpoint, *toy_options, "--out", out, "--videos", 5, *FEW, *options)
    with open(out, newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_added_and_never_measured_again(toy_options, backbone, tmp_path, capsys):
    best, out = backbone, tmp_path / "flatness.csv"
    rows = measure(toy_options, best, out, "--part", "heldout")
    mine = [row for row in rows if row["stream"] == "mv"]
    assert [(row["measure"], row["radius"], row["draws"]) for row in mine] == [
        *(("top1_pct", "", ""), ("loss", "", ""), ("random", "0.1", "2")),
        *(("worst", "0.1", "1"), ("worst", "0.2", "1")),
        *(("hessian_trace", "", "2"), ("relative_trace", "", "2")),
    ]
    assert all(row["num_videos"] == "5" and row["part"] == "heldout" for row in rows)
    worst = {float(row["radius"]): float(row["value"]) for row in mine if row["measure"] == "worst"}
    assert 0 < worst[0.1] < worst[0.2]
    assert '"measured": ["iframe", "mv", "residual"]' in capsys.readouterr().out

    kept = [row for row in rows if row["stream"] != "residual"]
    flatness.write_rows(out, flatness.COLUMNS, kept)
    assert measure(toy_options, best, out, "--part", "heldout") == rows, "the same numbers"
    assert '"measured": ["residual"]' in capsys.readouterr().out
    both = measure(toy_options, best, out, "--random_seed", 7)
    assert both[: len(rows)] == rows and len(both) == 2 * len(rows)
    assert {(row["seed"], row["part"]) for row in both} == {("1", "heldout"), ("7", "train")}


@pytest.mark.parametrize("change", [["--draw-seed", 3], ["--radii", 0.3], ["--videos", 4], "net"])
def test_other_settings_do_not_mix_with_the_rows_of_a_file(
    change, toy_options, backbone, tmp_path, capsys
):
    best, out = backbone, tmp_path / "flatness.csv"
    rows = measure(toy_options, best, out)
    if change == "net":
        content = load_checkpoint(best)
        content["model"]["mv.classifier.bias"] += 1
        best, change = tmp_path / "other.pt", []
        save_checkpoint(best, content)
    with pytest.raises(SystemExit):
        measure(toy_options, best, out, *change)
    assert "split1 1 train iframe of another backbone or with other settings" in (
        capsys.readouterr().err
    )
    assert measure(toy_options, backbone, out) == rows


def test_bad_input_is_refused(toy_options, backbone, tmp_path, capsys):
    other = tmp_path / "other.csv"
    other.write_text("a,b\n")
    shifted = tmp_path / "shifted.pt"
    net = TeamNet(len(toy.CLASSES), num_segments=2, arch="resnet18", is_shift=True)
    save_checkpoint(shifted, {"model": net.state_dict(), "config": net.config, "crop_size": 32})
    for checkpoint, options, words in (
        (backbone, ["--out", other], "is no file of study.flatness"),
        (shifted, ["--segments", 1], "--segments: with temporal shift"),
        (backbone, ["--part", "heldout", "--select-on", "test"], "no such part"),
        (tmp_path / "none.pt", [], "no checkpoint at"),
    ):
        with pytest.raises(SystemExit) as stopped:
            measure(toy_options, checkpoint, tmp_path / "flatness.csv", *options)
        assert stopped.value.code == 2 and words in capsys.readouterr().err
    assert other.read_text() == "a,b\n" and not (tmp_path / "flatness.csv").exists()
