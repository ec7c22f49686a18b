"""predict.py: from any video file to a label, deciding as the saved logits do."""

import dataclasses
import functools
import json
import os
import re
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import predict
import save_logits
import team_net_wise_all_acc
import train_team_ce
import train_team_net
import wise_team_net_logit
from coviar import read_index
from coviar.convert import FITS
from coviar.reencode import reencode
from dataset_team.dataset import VideoDataset
from dataset_team.records import Record, read_list
from dataset_team.toy import CLASSES
from dataset_team.transforms import normalise
from early_exit import wise
from early_exit.logits import LogitsFile
from early_exit.picture import short_name
from early_exit.policy import Policy, decide, load_policy, save_policy
from early_exit.thresholds import confidences
from MACs.team_net import exit_gmacs
from models import official, team_net
from models.networks import build_network
from models.team_net import TeamNet
from models.team_net_ic import TeamNetIC
from study.collect import gather
from tests import calls
from tests.calls import call
from tests.conftest import REPO
from tests.coviar_videos import pictures, write_video
from training.checkpoint import load_checkpoint, save_checkpoint
from training.trained import load_trained

SIZE = (64, 48)
REASONS = {
    "exit1": "confidence ",
    "exit3": ", before: ",
    "full": "no exit was sure enough: ",
}


@pytest.fixture(scope="module")
def study(tmp_path_factory, toy_data, tiny_resnets):
    """A toy study in its folders: videos, a backbone of one epoch, exits, their logits, a policy.

    Its thresholds let about a third of the test videos leave at each exit, with nobody near them.
    """
    folder = tmp_path_factory.mktemp("study")
    (folder / "data").symlink_to(toy_data)
    lists = ["--train-list", folder / "data/train.txt", "--test-list", folder / "data/test.txt"]
    options = ["--data-name", "toy", "--data-root", folder / "data", "--no-flip", *lists]
    options += ["--checkpoint_dir", folder / "runs", "--workers", 0, "--overwrite"]
    network = ["--arch", "resnet18", "--num_segments", 2, "--crop-size", 32, "--batch-size", 8]
    call(train_team_net, *options, *network, "--epochs", 1)
    call(train_team_ce, *options, "--exits", 1, 3, "--views", 1, "--epochs", 2)
    call(save_logits, *options[:-1], "--method", "team_ce", "--views", 0)
    run = folder / "runs/toy/team_ce/split1_seed1"
    save_policy(run / "policy.json", make_policy(run))
    return folder


def make_policy(run):
    logits = LogitsFile.load(run / "logits.pt")
    weights = wise.constant_weights(logits.outputs)
    sure = confidences(wise.combine(logits.samples("test")[0], weights), "margin", 0.5)
    present = np.ones(len(sure), bool)
    thresholds = []
    for k, share in enumerate((2 / 3, 1 / 2)):
        values = np.sort(sure[present, k])
        thresholds.append(float(np.mean(values[int(share * len(values)) :][:2])))
        present &= sure[:, k] <= thresholds[-1]
    digest = {"backbone_digest": logits.meta["backbone_digest"]}
    rows = tuple(map(tuple, weights.tolist()))
    return Policy((1, 3), tuple(thresholds), rows, 0.5, "margin", digest)


@pytest.fixture
def run(study):
    return study / "runs/toy/team_ce/split1_seed1"


@pytest.fixture
def videos(study):
    """The paths of the test videos, in the list's order."""
    records = read_list(study / "data/test.txt", study / "data", "toy")
    return [record.path for record in records]


@pytest.fixture
def ask(capsys):
    """Call predict.py with --json; its exit code, its lines and its stderr."""

    def ask(*words):
        capsys.readouterr()
        code = call(predict, *words, "--json")
        printed = capsys.readouterr()
        return code, [json.loads(line) for line in printed.out.splitlines()], printed.err

    return ask


@pytest.fixture
def refused(capsys):
    """Call predict.py, which must end in a usage error; returns the message."""
    return functools.partial(calls.refused, capsys, predict)


def test_labels_and_exits_are_those_of_saved_logits(run, videos, ask):
    code, found, _ = ask(*videos, "--checkpoint", run)
    assert code == 0 and [line["video"] for line in found] == videos
    policy = predict.load_policy(run / "policy.json")
    logits = LogitsFile.load(run / "logits.pt")
    expected = decide(policy, logits.samples("test")[0])
    assert set(expected.points) == {0, 1, 2}
    points = ["exit1", "exit3", "full"]
    assert [line["exit"] for line in found] == [points[point] for point in expected.points]
    names = list(CLASSES)
    assert [line["label"] for line in found] == [names[label] for label in expected.labels]
    combined = wise.combine(logits.samples("test")[0], np.array(policy.weights))
    for line, point, row in zip(found, expected.points, combined):
        probabilities = torch.tensor(row[point] / policy.temperature).softmax(0)
        # float32 with folded batch norms against float32 without: about 1e-6
        assert line["probability"] == pytest.approx(probabilities.max().item(), abs=1e-4)
        assert [entry["index"] for entry in line["top"]] == probabilities.topk(5).indices.tolist()
        assert list(line["confidences"]) == points[: point + 1]
    costs = exit_gmacs(load_trained(run).net.backbone.config, (1, 3), 32)
    for line in found:
        assert line["gmacs"] == costs[line["exit"]]
        assert line["share_of_full"] == line["gmacs"] / costs["full"]
        assert REASONS[line["exit"]] in line["reason"]
        assert line["reencoded"] is None and line["reencode_ms"] == 0
        assert line["load_ms"] > 0 and line["network_ms"] > 0


def test_without_a_policy_the_full_network_is_run(study, run, videos, ask, tmp_path):
    shutil.copy(run / "best.pt", tmp_path)
    backbone = study / "runs/toy/team_net/split1_seed1/best.pt"
    code, found, err = ask(*videos[:6], "--checkpoint", tmp_path, "--pretrained", backbone)
    assert code == 0 and "so the full network is run" in err
    logits, _ = LogitsFile.load(run / "logits.pt").samples("test")
    assert [line["top"][0]["index"] for line in found] == logits[:6, 2:].sum(1).argmax(1).tolist()
    assert {line["exit"] for line in found} == {"full"}
    # The backbone's own run says the same.
    code, alone, err = ask(*videos[:6], "--checkpoint", backbone.parent)
    assert code == 0 and not err
    assert [line["top"] for line in alone] == [line["top"] for line in found]


@pytest.mark.parametrize(("threshold", "point"), [(0, "exit1"), (1, "full")])
def test_one_threshold_for_all_exits(run, videos, ask, threshold, point):
    _, found, _ = ask(*videos[:6], "--checkpoint", run, "--threshold", threshold)
    logits, _ = LogitsFile.load(run / "logits.pt").samples("test")
    expected = logits[:6, 0] if point == "exit1" else logits[:6, 2:].sum(1)
    assert {line["exit"] for line in found} == {point}
    assert [line["top"][0]["index"] for line in found] == expected.argmax(1).tolist()


OTHERS = {
    "h264.mp4": ({"codec": "libx264", "container": "mp4"}, SIZE, "the codec is h264"),
    "b frames.avi": ({"container": "avi", "bf": "2"}, SIZE, "the stream has B-frames"),
    "large.avi": ({"container": "avi"}, (96, 80), "pictures of 96x80, trained on 64x48"),
    "gop.m4v": ({"gop": 30}, SIZE, "GOPs of 30 pictures, trained on 12"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_reencoded_like_the_training_videos(run, ask, tmp_path, name):
    options, size, reason = OTHERS[name]
    path = write_video(tmp_path / name, pictures(40, size), **options)
    reencode(path, tmp_path / "as_trained.mp4", SIZE, 12, 1)
    code, found, _ = ask(path, tmp_path / "as_trained.mp4", "--checkpoint", run)
    assert code == 0
    assert found[0]["reencoded"].startswith(reason) and found[0]["reencode_ms"] > 0
    assert found[1]["reencoded"] is None
    for key in ("top", "exit", "confidences"):
        assert found[0][key] == found[1][key]
    assert sorted(os.listdir(tmp_path)) == sorted([name, "as_trained.mp4"])


@pytest.mark.parametrize("fit", FITS)
def test_fit_is_that_of_reencode(run, ask, tmp_path, fit):
    path = write_video(tmp_path / "tall.avi", pictures(20, (48, 96)), container="avi", bf="2")
    reencode(path, tmp_path / "as_trained.mp4", SIZE, 12, 1, fit)
    _, found, _ = ask(path, tmp_path / "as_trained.mp4", "--checkpoint", run, "--fit", fit)
    assert found[0]["reencoded"] and found[1]["reencoded"] is None
    assert found[0]["confidences"] == found[1]["confidences"]
    assert bool(found[0]["notes"]) == (fit == "stretch") and not found[1]["notes"]


def test_as_is_loads_what_can_be_loaded(run, ask, tmp_path):
    paths = []
    for name in ("large.avi", "b frames.avi"):
        options, size, _ = OTHERS[name]
        paths.append(write_video(tmp_path / name, pictures(40, size), **options))
    _, found, _ = ask(*paths, "--checkpoint", run, "--as-is")
    assert [line["reencoded"] is None for line in found] == [True, False]


def test_bad_files_are_reported_and_the_rest_goes_on(run, videos, ask, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    whole = write_video(tmp_path / "whole.avi", pictures(30), container="avi", bf="2")
    (tmp_path / "cut.avi").write_bytes(whole.read_bytes()[:9000])
    with av.open(str(whole)) as container:
        edge = [packet.pos for packet in container.demux(video=0) if packet.size][15]
    (tmp_path / "edge.avi").write_bytes(whole.read_bytes()[:edge])
    names = ["nowhere.mp4", "text.mp4", "empty.mp4", "cut.avi", "edge.avi"]
    bad = [tmp_path / name for name in names]
    code, found, err = ask(videos[0], *bad, videos[1], "--checkpoint", run)
    assert code == 1
    assert [line["video"] for line in found] == [videos[0], *map(str, bad), videos[1]]
    for line in found[1:-1]:
        assert set(line) == {"video", "error"} and line["error"]
        assert f"failed: {line['video']}: {line['error']}" in err
    assert all("cut off" in line["error"] for line in found[4:6])
    assert "error" not in found[0] and "error" not in found[-1]


def test_damage_that_is_concealed_is_noted(run, videos, ask, tmp_path):
    index = read_index(videos[0])
    content = bytearray(Path(videos[0]).read_bytes())
    for start in index.gop_starts:
        begin, size = int(index.offsets[start + 2]), int(index.sizes[start + 2])
        content[begin + size // 2 : begin + size] = bytes(size - size // 2)
    (tmp_path / "damaged.mp4").write_bytes(content)
    _, found, _ = ask(tmp_path / "damaged.mp4", "--checkpoint", run)
    assert "is damaged" in found[0]["notes"][0]


def test_the_readmes_python_example(study, run, ask, capsys, tmp_path, monkeypatch):
    """It runs as it stands where `make demo` has been, and says what predict.py says."""
    (code,) = re.findall(r"```python\n(.*?)```", (REPO / "README.md").read_text(), re.S)
    (tmp_path / "runs/demo/toy/prog_kd").mkdir(parents=True)
    (tmp_path / "runs/demo/toy/prog_kd/split1_seed1").symlink_to(run)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/toy").symlink_to(study / "data")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    printed, prediction = capsys.readouterr().out, names["prediction"]
    _, (found,), _ = ask(names["video"], "--checkpoint", run, "--top", len(CLASSES))
    assert printed.startswith(f"{found['label']} {found['exit']} tensor(")
    for entry in found["top"]:
        assert prediction.probabilities[entry["index"]].item() == entry["probability"]
    assert "(2, 48, 64, 3) (2, 48, 64, 2) (2, 48, 64, 3)" in printed


def test_a_folder_gives_lines_for_people(study, run, capsys):
    """The last one is for machines."""
    folder = study / "data/DotsLeft"
    assert call(predict, folder, "--checkpoint", run, "--top", 2) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert printed.err == "" and len(lines) == 9 * 4 + 1
    assert lines[0].startswith(f"{folder}/v_DotsLeft_g01_c01.mp4: ")
    assert lines[1].count(" %") == 2
    result = json.loads(lines[-1].removeprefix("result: "))
    assert (result["videos"], result["failed"], sum(result["exits"].values())) == (9, 0, 9)


def test_pictures(run, videos, refused, tmp_path, capsys):
    drawn = tmp_path / "drawn"
    assert call(predict, videos[0], "--checkpoint", run, "--show", drawn / "one.png") == 0
    twins = [tmp_path / name / "clip.mp4" for name in ("a", "b")]
    for twin in twins:
        twin.parent.mkdir()
        shutil.copy(videos[1], twin)
    assert call(predict, *twins, "--checkpoint", run, "--show", drawn, "--threshold", 1) == 0
    assert sorted(os.listdir(drawn)) == ["clip.png", "clip_2.png", "one.png"]
    for path in drawn.iterdir():
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    words = ["--checkpoint", run, "--show"]
    assert "2 videos need a folder" in refused(*twins, *words, tmp_path / "both.png")
    assert "neither a .png file nor a folder" in refused(*twins, *words, twins[0])


def test_a_picture_that_cannot_be_written_takes_no_prediction_along(
    run, videos, ask, refused, tmp_path
):
    drawn = tmp_path / "new/drawn"
    stems = [Path(video).stem for video in videos[:2]]
    (drawn / f"{stems[0]}.png").mkdir(parents=True)
    _, expected, _ = ask(*videos[:2], "--checkpoint", run)
    code, found, err = ask(*videos[:2], "--checkpoint", run, "--show", drawn)
    assert code == 1 and [x["label"] for x in found] == [x["label"] for x in expected]
    assert f"failed: picture {drawn / stems[0]}.png: Is a directory" in err
    assert videos[0] not in err and (drawn / f"{stems[1]}.png").is_file()
    (tmp_path / "file").write_text("in the place of a folder")
    for show in ("file/drawn", "file/a.png"):
        message = refused(videos[0], "--checkpoint", run, "--show", tmp_path / show)
        assert "cannot read or write" in message and "file" in message


@pytest.mark.parametrize(
    ("made", "words", "others"),
    [
        ({"precision": "fp32", "num_views": 1}, [], None),
        ({}, [], None),  # of an earlier version
        ({"precision": "bf16"}, [], "on logits of --precision bf16; here it is fp32"),
        ({"precision": "fp32"}, ["--precision", "bf16"], "--precision fp32; here it is bf16"),
        ({"num_views": 6}, [], "on the mean of 6 views of each video"),
        ({}, ["--as-is"], "--as-is"),
        ({}, ["--fit", "crop"], "--fit crop"),
        ({}, ["--every", 1, "--smooth", 2], "--smooth 2"),
    ],
)
def test_a_promise_of_other_decisions_is_not_told_as_if_it_held(
    run, videos, capsys, tmp_path, made, words, others
):
    policy = load_policy(run / "policy.json")
    provenance = {**policy.provenance, **made}
    promised = dataclasses.replace(
        policy, provenance=provenance, promise={"words": "at most 1 point"}
    )
    save_policy(tmp_path / "policy.json", promised)
    options = ["--checkpoint", run, "--policy", tmp_path / "policy.json", "--precision", "fp32"]
    call(predict, videos[0], *options, *words)
    lines = capsys.readouterr().out.splitlines()
    if others is None:
        assert "promise: at most 1 point" in lines
    else:
        (line,) = (line for line in lines if "at most 1 point" in line)
        assert line.startswith("note: the promise is of other decisions than these (")
        assert others in line


@pytest.mark.parametrize("place", ["heads", "model"])
@pytest.mark.parametrize("words", [[], ["--threshold", 1], ["--every", 1, "--window", 1]])
def test_an_output_that_is_not_finite_is_no_label(study, videos, ask, tmp_path, place, words):
    """Of an exit that is NaN, or of a stream; with a policy, a threshold or windows."""
    ignored = shutil.ignore_patterns("views", "last.pt")
    shutil.copytree(study / "runs/toy", tmp_path / "toy", ignore=ignored)
    run, backbone = (tmp_path / f"toy/{x}/split1_seed1" for x in ("team_ce", "team_net"))
    if place == "heads":
        content = load_checkpoint(run / "best.pt")
        content["heads"]["1.bias"][0] = torch.nan
    else:
        content = load_checkpoint(backbone / "best.pt")
        content["model"]["iframe.classifier.bias"][0] = torch.inf
        run = backbone
        words = [] if "--threshold" in words else words
    save_checkpoint(run / "best.pt", content)
    code, found, err = ask(*videos[:2], "--checkpoint", run, *words)
    assert code == 1 and len(found) >= 2
    for line in found:
        assert line["error"].startswith(f"the network's output is not finite ({run}/best.pt)")
    assert "the network's output is not finite" in err
    _, found, _ = ask(videos[0], "--checkpoint", run, *words, "--precision", "bf16")
    assert found[0]["error"].endswith("try --precision fp32")


def test_a_run_tree_that_has_moved(study, ask, videos, refused, tmp_path, monkeypatch):
    """The recorded path of the backbone leads nowhere, but it lies where run trees have it."""
    tree = tmp_path / "elsewhere"
    ignored = shutil.ignore_patterns("views", "last.pt")
    shutil.copytree(study / "runs/toy", tree, ignore=ignored)
    run = tree / "team_ce/split1_seed1"
    content = load_checkpoint(run / "best.pt")
    save_checkpoint(run / "best.pt", {**content, "backbone": "gone/best.pt"})
    place = tree / "team_net"
    for name in ("streams", "pretrain", "team_net"):  # all that hold backbones
        place = place.rename(tree / name)
        assert ask(videos[0], "--checkpoint", run / "best.pt")[0] == 0
    backbone = place / "split1_seed1/best.pt"
    other = load_checkpoint(backbone)
    other["model"]["iframe.classifier.bias"] += 1
    save_checkpoint(backbone, other)
    message = refused(videos[0], "--checkpoint", run)
    assert "has the digest" in message and "--pretrained" in message
    assert "has the digest" in refused(videos[0], "--checkpoint", run, "--pretrained", backbone)
    right = study / "runs/toy/team_net/split1_seed1/best.pt"
    assert ask(videos[0], "--checkpoint", run, "--pretrained", right)[0] == 0


def test_a_policy_of_another_network_is_refused(run, videos, refused, tmp_path):
    policy = make_policy(run)
    words = [videos[0], "--checkpoint", run, "--policy"]
    other = dataclasses.replace(policy, provenance={"backbone_digest": "0123"})
    save_policy(tmp_path / "digest.json", other)
    assert "digest 0123" in refused(*words, tmp_path / "digest.json")
    save_policy(tmp_path / "exits.json", dataclasses.replace(policy, exits=(2, 3)))
    assert "the policy uses exits (2, 3)" in refused(*words, tmp_path / "exits.json")
    assert "no such policy" in refused(*words, tmp_path / "none.json")
    outside = dataclasses.replace(policy, provenance={"method": "outside", "data": "scores"})
    save_policy(tmp_path / "outside.json", outside)
    assert "logits of another network (scores)" in refused(*words, tmp_path / "outside.json")


def test_exits_that_were_trained_again_have_neither_logits_nor_policy(
    study, run, videos, ask, refused, capsys, tmp_path
):
    """Whatever was made of the old ones says so: predict.py, the policy scripts, the study."""
    tree = tmp_path / "again"
    ignored = shutil.ignore_patterns("views", "last.pt")
    shutil.copytree(study / "runs/toy", tree / "toy", ignore=ignored)
    run = tree / "toy/team_ce/split1_seed1"
    for script in (wise_team_net_logit, team_net_wise_all_acc):
        call(script, "--logits", run / "logits.pt")
    words = [videos[0], "--checkpoint", run]
    assert ask(*words)[0] == 0 and len(gather([tree]).used) == 2
    content = load_checkpoint(run / "best.pt")
    content["heads"]["1.bias"] += 1
    save_checkpoint(run / "best.pt", content)
    assert "the policy was calibrated on exits with the digest" in refused(*words)
    assert ask(*words, "--threshold", 0.5)[0] == 0
    for script in (wise_team_net_logit, team_net_wise_all_acc):
        message = calls.refused(capsys, script, "--logits", run / "logits.pt")
        assert "logits of other exits" in message and "run save_logits.py again" in message
    assert "logits of other exits" in gather([tree]).left_out[run]


def test_usage_errors(study, run, videos, refused, tmp_path):
    backbone = study / "runs/toy/team_net/split1_seed1"
    assert "no checkpoint at" in refused(videos[0], "--checkpoint", tmp_path)
    assert "has no exits" in refused(videos[0], "--checkpoint", backbone, "--threshold", 0.5)
    assert "lie in 0 to 1" in refused(videos[0], "--checkpoint", run, "--threshold", 90)
    assert "holds no video" in refused(tmp_path, "--checkpoint", run)
    last = ["--checkpoint", run / "last.pt"]
    assert "name the run's best.pt instead" in refused(videos[0], *last)
    words = ["--checkpoint", backbone, "--pretrained", backbone / "best.pt"]
    assert "leave out the backbone" in refused(videos[0], *words)
    for place in (run, backbone):
        ahead = ["--checkpoint", place, "--read-ahead", 1]
        assert "a policy that reads segment by segment" in refused(videos[0], *ahead)


def write_official(path, net):
    """The network under the published names."""
    state = {}
    for key, tensor in net.state_dict().items():
        shapes = official._sources(key, tensor, net)
        parts = tensor.split([shape[0] for shape in shapes.values()]) if tensor.dim() else [tensor]
        state.update(zip((f"module.{name}" for name in shapes), parts))
    save_checkpoint(path, {"state_dict": state, "epoch": 3, "arch": "resnet18"})


def test_a_published_file(study, videos, ask, refused, tmp_path, monkeypatch):
    monkeypatch.setattr(team_net, "build_network", build_network)  # true ResNets
    torch.manual_seed(0)
    net = TeamNetIC(TeamNet(8, num_segments=2, arch="resnet18"), (1, 2)).eval()
    write_official(tmp_path / "published.pth", net)
    path = write_video(tmp_path / "small.m4v", pictures(30))
    reencode(path, tmp_path / "video.mp4", (340, 256), 12, 1)  # how it is used to see videos
    words = [tmp_path / "video.mp4", "--checkpoint", tmp_path / "published.pth", "--top", 8]
    code, found, err = ask(*words, "--threshold", 0)
    assert code == 0 and (found[0]["exit"], found[0]["reencoded"]) == ("exit1", None)
    index = found[0]["top"][0]["index"]
    assert found[0]["label"] == str(index)
    clip = predict_inputs(tmp_path / "video.mp4")
    with torch.no_grad():
        probabilities = net(*clip).exits[0].softmax(1)[0]
    for entry in found[0]["top"]:
        # folded batch norms: about 1e-6
        assert entry["probability"] == pytest.approx(probabilities[entry["index"]].item(), abs=1e-4)
    _, named, _ = ask(*words, "--threshold", 0, "--classes", study / "data/test.txt")
    assert named[0]["label"] == list(CLASSES)[index]
    (tmp_path / "list.txt").write_text("a/b.avi a 0\nc/d.avi c 8\n")
    assert "list.txt:2: label 8 is outside" in refused(*words, "--classes", tmp_path / "list.txt")


def predict_inputs(path):
    """The file as test view of a data set of one video, normalised."""
    record = Record("x", str(path), "x", 0, None)
    sample = VideoDataset([record], num_segments=2, crop_size=224, train=False)[0]
    return normalise(*(x[None] for x in sample[:3]))


def test_a_title_spells_out_what_is_no_utf_8():
    title = short_name("lat\udce9in.mp4")
    assert title == "lat\\udce9in.mp4" and title.encode()  # matplotlib refuses a lone surrogate


def test_pictures_of_videos_of_one_name_have_names_of_their_own():
    videos = [Path(name) for name in ("a/Clip.avi", "b/clip.mp4", "clip_2.mkv", "c/one.avi")]
    for sources in (videos, [*videos, *videos]):  # a video that is named twice has one
        names = [path.name for path in predict.picture_paths(Path("nowhere"), sources).values()]
        assert names == ["Clip.png", "clip_2.png", "clip_2_2.png", "one.png"]
