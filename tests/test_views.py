"""The bank of frozen views: what it holds, when it is stale, who fills it, what prune removes."""

import json
import re
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import train_prog_kd
from coviar.command import INTERRUPTED
from dataset_team.dataset import Sample
from dataset_team.transforms import normalise
from models.inference import prepare_for_inference
from models.team_net import TeamNet
from tests.calls import call
from training import views as command
from training.bank import FrozenNetwork, Views
from training.checkpoint import load_checkpoint, save_checkpoint
from training.features import compute_view
from training.tensor_file import weights_digest

pytestmark = pytest.mark.usefixtures("tiny_resnets")
SIZE = 32


class FakeDataset(torch.utils.data.Dataset):
    """As much of a VideoDataset as views need; a picture depends on video and view."""

    def __init__(self, path, videos=3, label=0, crop_size=SIZE, num_test_views=1, on_the_fly=False):
        self.records = [
            SimpleNamespace(name=f"v{i}", label=label, path=path) for i in range(videos)
        ]
        self.crop_size, self.num_test_views = crop_size, num_test_views
        self.on_the_fly = on_the_fly
        self.asked = []

    def describe(self):
        names = [f"{record.name} {record.label}" for record in self.records]
        return {"crop_size": self.crop_size, "videos": names}

    def __len__(self):
        return len(self.records)

    def __getitem__(self, key):
        self.asked.append(key)
        rng = np.random.default_rng(key)
        pictures = [rng.integers(0, 256, (1, c, SIZE, SIZE), np.uint8) for c in (3, 2, 3)]
        arrays = map(torch.from_numpy, pictures)
        return Sample(*arrays, self.records[key[0]].label, key[0])


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"1")
    return str(path)


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    net = TeamNet(2, num_segments=1, arch="resnet18").eval()
    for stream in net.streams:
        torch.nn.init.normal_(stream.classifier.weight)  # new ones answer all clips alike
    return net


def freeze(backbone, precision="fp32", batch_size=4):
    settings = {"device": torch.device("cpu"), "batch_size": batch_size, "workers": 0}
    return FrozenNetwork(backbone, "backbone.pt", precision=precision, **settings)


@pytest.fixture(scope="module")
def network(backbone):
    return freeze(backbone)


def make_views(network, dataset, cache_dir, *, name="split1 train", dtype=torch.float16):
    return Views(network, dataset, name=name, dtype=dtype, cache_dir=cache_dir)


def test_a_view_is_what_the_backbone_gives(backbone, video):
    """The prepared network against the plain one; float32 sums come in another order."""
    dataset = FakeDataset(video)
    settings = {"device": torch.device("cpu"), "batch_size": 2, "workers": 0}
    features = compute_view(prepare_for_inference(backbone), dataset, 1, **settings)
    clips = [dataset[i, 1] for i in range(3)]
    inputs = normalise(*(torch.stack(arrays) for arrays in list(zip(*clips))[:3]))
    with torch.no_grad():
        expected = backbone(*inputs)
    for ours, theirs in zip(features.squeezes, expected.squeezes):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    fused = features.streams.sum(1)
    torch.testing.assert_close(fused, expected.fused, rtol=1e-4, atol=1e-4)
    assert features.names == ["v0", "v1", "v2"] and features.labels.tolist() == [0, 0, 0]


def test_another_backbone_list_transform_or_precision_is_another_bank(tmp_path, video, monkeypatch):
    """A stale bank cannot be found: its folder has another name."""
    net = TeamNet(2, num_segments=1, arch="resnet18")
    network = freeze(net)

    def folder(network=network, **changes):
        of_data = ("label", "crop_size", "on_the_fly")
        data = {key: changes.pop(key) for key in of_data if key in changes}
        return make_views(network, FakeDataset(video, **data), tmp_path, **changes).folder

    base = folder()
    assert folder() == base == folder(freeze(net, batch_size=8)) == folder(name="another")
    others = [folder(freeze(net, "bf16")), folder(label=1), folder(crop_size=64)]
    others.append(folder(on_the_fly=True))
    others.append(folder(dtype=torch.float32))
    with torch.no_grad():
        net.team[0].fc_squeeze.weight[0, 0] += 1
    others.append(folder(freeze(net)))
    with open(video, "ab") as file:
        file.write(b"2")
    others.append(folder())
    with open(video, "wb") as file:
        file.write(b"21")  # as many bytes as before
    others.append(folder())
    monkeypatch.setattr("training.bank.FEATURES_VERSION", -1)
    others.append(folder())
    assert len({base, *others}) == 10


def test_bank_computes_once_and_reads_what_it_wrote(tmp_path, network, video):
    dataset = FakeDataset(video)
    views = make_views(network, dataset, tmp_path)
    views.prepare(2)
    assert sorted(dataset.asked) == [(i, view) for i in range(3) for view in range(2)]
    again = make_views(network, dataset, tmp_path)
    again.prepare(3)
    assert len(dataset.asked) == 9
    fresh = make_views(network, dataset, None)
    for view in range(3):
        for ours, theirs in zip(again[view].squeezes, fresh[view].squeezes):
            assert torch.equal(ours, theirs)
        assert torch.equal(again[view].streams, fresh[view].streams)
    assert not torch.equal(again[0].streams, again[1].streams)


@pytest.mark.parametrize("damage", ["text", "cut", "another"])
def test_a_damaged_view_is_named_and_computed_anew(tmp_path, network, video, capsys, damage):
    views = make_views(network, FakeDataset(video), tmp_path)
    before = views[0]
    file = views.folder / "view_0000.pt"
    if damage == "another":
        save_checkpoint(file, {"other": 1})
    else:
        file.write_bytes({"text": b"x", "cut": file.read_bytes()[:-50]}[damage])
    again = make_views(network, FakeDataset(video), tmp_path)[0]
    assert torch.equal(again.streams, before.streams)
    said = capsys.readouterr().err
    assert "computing it anew" in said and str(file) in said
    assert load_checkpoint(file)["names"] == before.names


def test_a_full_disk_is_an_error_without_traceback(server, frozen_toy, tmp_path):
    command = ["-m", "training.views", *frozen_toy[0], "--views", 1, "--cache-dir", tmp_path]
    code, output = server.run(*command, limit=2000)
    assert code == 1 and "Traceback" not in output, output
    assert "make room, then give the same command again" in output
    command = ["save_logits.py", *frozen_toy[0], "--method", "team_net", "--per-segment"]
    places = ["--views", 0, "--cache-dir", tmp_path / "logits", "--checkpoint_dir", tmp_path]
    code, output = server.run(*command, *places, "--pretrained", frozen_toy[1], limit=2000)
    assert code == 1 and "Traceback" not in output, output
    assert "make room, then give the same command again" in output


def test_squeezes_are_halved_and_rounded_as_promised(tmp_path, network, video):
    half, full = (
        make_views(network, FakeDataset(video), tmp_path, dtype=dtype)
        for dtype in (torch.float16, torch.float32)
    )
    assert torch.equal(half[0].streams, full[0].streams)
    for ours, theirs in zip(half[0].squeezes, full[0].squeezes):
        assert (ours.dtype, theirs.dtype) == (torch.float16, torch.float32)
        # 10 bits of mantissa: half a unit in the 11th; below 2^-14 float16 has steps of 2^-24
        torch.testing.assert_close(ours.float(), theirs, rtol=2**-11, atol=2**-25)
    inputs = half[0].exit_inputs(torch.device("cpu"), torch.tensor([2, 0]))
    assert torch.equal(inputs[0], half[0].squeezes[0][[2, 0]].float())


def test_what_float16_cannot_hold_is_an_error(network, video):
    views = make_views(network, FakeDataset(video), None, dtype=torch.float32)
    features = views[0]
    features.squeezes[1][1, 3] = 1e5
    with pytest.raises(ValueError, match="v1 reaches 100000.*--bank-dtype float32"):
        features.rounded(torch.float16)


def test_a_new_bank_says_why_the_old_one_will_not_do(tmp_path, network, video, capsys):
    bf16 = freeze(network.backbone, "bf16")
    make_views(network, FakeDataset(video), tmp_path).prepare(1)
    assert "note" not in capsys.readouterr().out
    make_views(network, FakeDataset(video), tmp_path).prepare(2)
    make_views(network, FakeDataset(video), tmp_path, name="split1 test").prepare(1)
    assert "note" not in capsys.readouterr().out  # the same bank, or other data
    make_views(bf16, FakeDataset(video, crop_size=64), tmp_path).prepare(1)
    (note,) = [line for line in capsys.readouterr().out.splitlines() if "note" in line]
    assert "differs in precision, crop_size" in note and "--prune" in note
    make_views(network, FakeDataset(video, crop_size=64), tmp_path).prepare(1)
    (note,) = [line for line in capsys.readouterr().out.splitlines() if "note" in line]
    assert "2 other bank(s) of split1 train" in note
    assert re.search(r"differs in (crop_size|precision)\.", note)  # the nearest differs in one


def test_processes_that_fill_one_bank_share_the_work(tmp_path, network, video, monkeypatch):
    """While the first process is at its second view, another one computes the other three."""
    first, second = FakeDataset(video), FakeDataset(video)
    views = make_views(network, first, tmp_path)
    order = iter([[4, 3, 0, 1, 2], [0, 1, 2]])
    monkeypatch.setattr("training.bank.random.sample", lambda missing, count: next(order))
    compute = network.compute

    def compute_and_wait(dataset, view, **how):
        features = compute(dataset, view, **how)
        if dataset is first and view == 3:
            assert make_views(network, second, tmp_path).fill(range(3)) == 3
        return features

    monkeypatch.setattr(network, "compute", compute_and_wait)
    assert views.fill(range(5)) == 2
    assert {view for _, view in first.asked} == {3, 4}
    assert {view for _, view in second.asked} == {0, 1, 2}


def fill(options, *more):
    args = command.get_fill_parser().parse_args([*options, *map(str, more)])
    return command.fill(args)


def contents(cache_dir):
    """{folder/file: tensors} of a whole bank."""
    return {str(p.relative_to(cache_dir)): load_checkpoint(p) for p in cache_dir.glob("*/*.pt")}


def assert_same_banks(ours, theirs):
    ours, theirs = contents(ours), contents(theirs)
    assert ours.keys() == theirs.keys()
    for name, view in ours.items():
        digests = [
            weights_digest({**dict(zip("1234", v["squeezes"])), "streams": v["streams"]})
            for v in (view, theirs[name])
        ]
        assert digests[0] == digests[1] and view["names"] == theirs[name]["names"]


@pytest.fixture(scope="module")
def whole_bank(frozen_toy, tmp_path_factory):
    """3 training views and one of every other part, computed by one process."""
    folder = tmp_path_factory.mktemp("bank")
    result = fill(frozen_toy[0], "--views", 3, "--cache-dir", folder)
    assert result["views"] == {"train": 3, "heldout": 1, "test": 1, "train_as_tested": 1}
    assert not any(result["missing"].values())
    videos = result["videos"]
    assert result["computed_clips"] == sum(n * result["views"][p] for p, n in videos.items())
    assert len(contents(folder)) == 6
    return folder


def test_two_shards_make_the_bank_of_one(frozen_toy, whole_bank, tmp_path, capsys):
    options = [*frozen_toy[0], "--views", "3", "--cache-dir", str(tmp_path)]
    first = fill(options, "--shard", "1/2")
    assert first["missing"] == {"train": [1], "heldout": [0], "test": [], "train_as_tested": [0]}
    assert "still missing: train 1; heldout 0; train_as_tested 0" in capsys.readouterr().out
    second = fill(options, "--shard", "2/2")
    assert not any(second["missing"].values())
    assert first["computed_clips"] and second["computed_clips"]
    assert_same_banks(tmp_path, whole_bank)


def test_two_processes_fill_the_bank_and_one_speaks(server, frozen_toy, whole_bank, tmp_path):
    options = [*frozen_toy[0], "--views", 3, "--cache-dir", tmp_path]
    code, output = server.run("-m", "training.views", *options, processes=2)
    assert code == 0 and "still missing" not in output, output
    for words in ("result: ", "backbone: ", "note: "):
        assert output.count(words) == 1, output
    result = json.loads(output.split("result: ")[1].splitlines()[0])
    assert not any(result["missing"].values())
    videos = result["videos"]
    assert result["computed_clips"] == sum(n * result["views"][p] for p, n in videos.items())
    assert_same_banks(tmp_path, whole_bank)


def wait_for_a_view(job, cache_dir):
    end = time.monotonic() + 60
    while not list(cache_dir.glob("*/view_*.pt")):
        assert time.monotonic() < end, job.output()
        time.sleep(0.001)


def test_ctrl_c_ends_without_a_traceback(server, frozen_toy, tmp_path):
    options = [*frozen_toy[0], "--views", 200, "--cache-dir", tmp_path]
    job = server.start("-m", "training.views", *options, "--feature-batch", 1)
    wait_for_a_view(job, tmp_path)
    job.kill(signal.SIGINT)
    assert job.wait() == [INTERRUPTED] and "Traceback" not in job.output(), job.output()


def test_unlabelled_videos_have_a_bank_of_their_own(frozen_toy, toy_data, tmp_path, capsys):
    """The one that training with the same list reads."""
    rows = (toy_data / "train.txt").read_text().splitlines()
    lists = {"train.txt": rows[::2], "rest.txt": rows[1::2]}
    for name, part in lists.items():
        (tmp_path / name).write_text("\n".join(part) + "\n")
    options = [*frozen_toy[0], "--train-list", tmp_path / "train.txt", "--views", 2]
    options += ["--select-on", "test", "--cache-dir", tmp_path / "bank"]
    options = list(map(str, options))
    with pytest.raises(ValueError, match="--parts unlabelled: name its list with --unlabelled"):
        fill(options, "--parts", "unlabelled")
    with pytest.raises(ValueError, match="--parts unlabelled has nothing to compute"):
        words = ["--unlabelled", tmp_path / "rest.txt", "--views", 0]
        fill(options, "--parts", "unlabelled", *words)
    result = fill(options, "--unlabelled", tmp_path / "rest.txt")
    assert result["views"] == {"train": 2, "unlabelled": 2, "test": 1, "train_as_tested": 1}
    assert result["videos"]["unlabelled"] == len(lists["rest.txt"])
    again = fill(options, "--unlabelled", tmp_path / "rest.txt", "--parts", "unlabelled")
    assert again["computed_clips"] == 0
    trained = ["--checkpoint_dir", tmp_path, "--pretrained", frozen_toy[1], "--epochs", 1]
    words = [*options, *trained, "--unlabelled", tmp_path / "rest.txt", "--schedule", "fused"]
    capsys.readouterr()
    call(train_prog_kd, *words)
    assert "computing" not in capsys.readouterr().out


@pytest.mark.parametrize("reason", ["--select-on test", "--heldout 0"])
def test_a_part_that_is_empty_is_refused(frozen_toy, reason):
    words = ["--select-on", "last", *reason.split(), "--parts", "heldout"]
    with pytest.raises(ValueError, match=f"--parts heldout: there is no such part with {reason}"):
        fill(frozen_toy[0], *words)


@pytest.mark.parametrize("words", ["0/2", "3/2", "2", "a/b", "1/-2"])
def test_impossible_shards_are_refused(frozen_toy, words, capsys):
    with pytest.raises(SystemExit):
        fill(frozen_toy[0], "--shard", words)
    assert "write 1/4 to 4/4" in capsys.readouterr().err


def test_a_killed_shard_goes_on(server, frozen_toy, whole_bank, tmp_path):
    options = [*frozen_toy[0], "--views", "3", "--cache-dir", str(tmp_path)]
    job = server.start("-m", "training.views", *options, "--feature-batch", "1")
    wait_for_a_view(job, tmp_path)
    job.kill(signal.SIGKILL)
    assert job.wait() == [-signal.SIGKILL], "ended before it could be killed"
    done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/view_*.pt")}
    assert 0 < len(done) < 6
    fill(options)
    assert all(path.stat().st_mtime_ns == before for path, before in done.items())
    assert contents(tmp_path).keys() == contents(whole_bank).keys()
    assert not any(fill(options)["missing"].values())


def prune(*options):
    args = command.get_prune_parser().parse_args(["--prune", *map(str, options)])
    return command.prune(args.checkpoint_dir, args.cache_dir, args.dry_run)


def test_prune_removes_what_no_backbone_uses(frozen_toy, tmp_path, capsys):
    """Banks of a retrained and of a removed backbone go; of weights still there they stay."""
    options, best = frozen_toy
    runs = tmp_path / "runs"
    ours, gone = runs / "toy/team_net/split1_seed1/best.pt", tmp_path / "gone.pt"
    elsewhere = tmp_path / "elsewhere.pt"
    content = load_checkpoint(best)
    few = ["--views", 1, "--parts", "test", "--checkpoint_dir", runs]
    folders = {}
    for path in (ours, gone, elsewhere):
        content["model"]["mv.classifier.bias"] += 1
        save_checkpoint(path, content)
        folders[path] = Path(fill(options, *few, "--pretrained", path)["banks"]["test"])
    moved = runs / "toy/team_net/split2_seed1/best.pt"  # the weights are there, under another name
    content["model"]["mv.classifier.bias"] += 1
    save_checkpoint(tmp_path / "before.pt", content)
    folders[moved] = Path(
        fill(options, *few, "--pretrained", tmp_path / "before.pt")["banks"]["test"]
    )
    moved.parent.mkdir()
    (tmp_path / "before.pt").rename(moved)
    content["model"]["mv.classifier.bias"] += 1
    save_checkpoint(ours, content)
    gone.unlink()
    (runs / "toy/views/0123456789abcdef").mkdir()
    old = runs / "toy/views/0123456789abcdef/view_0000.pt"
    old.write_bytes(b"1" * 1000)
    save_checkpoint(runs / "toy/team_ce/split1_seed1/best.pt", {"heads": {}})  # no backbone
    capsys.readouterr()

    assert prune("--checkpoint_dir", runs, "--dry-run")["removed_mb"] > 0
    assert all(folder.is_dir() for folder in (*folders.values(), old.parent))
    out = capsys.readouterr().out
    assert "would remove" in out
    result = prune("--checkpoint_dir", runs)
    lines = capsys.readouterr().out.splitlines()
    said = {path: next(x for x in lines if str(folder) in x) for path, folder in folders.items()}
    assert said[ours].startswith("remove") and "holds other weights now" in said[ours]
    assert said[gone].startswith("remove") and "is gone" in said[gone]
    assert said[elsewhere].startswith("keep") and said[moved].startswith("keep")
    assert [path.is_dir() for path in folders.values()] == [False, False, True, True]
    assert not old.parent.exists()
    kept = sum(p.stat().st_size for f in (elsewhere, moved) for p in folders[f].iterdir()) / 1e6
    assert result["kept_mb"] == pytest.approx(kept, abs=1e-3)  # printed to 1 kB
    assert prune("--checkpoint_dir", runs)["removed_mb"] == 0


@pytest.mark.parametrize("method", ["team_net", "streams", "pretrain"])
def test_prune_keeps_the_banks_of_a_run_tree_that_has_moved(frozen_toy, tmp_path, method):
    options, best = frozen_toy
    before = tmp_path / f"before/toy/{method}/split1_seed1/best.pt"
    before.parent.mkdir(parents=True)
    shutil.copy(best, before)
    few = ["--views", 1, "--parts", "test", "--checkpoint_dir", tmp_path / "before"]
    fill(options, *few, "--pretrained", before)
    (tmp_path / "before").rename(tmp_path / "after")
    result = prune("--checkpoint_dir", tmp_path / "after")
    assert result["removed_mb"] == 0 < result["kept_mb"]


def test_prune_leaves_what_it_cannot_judge_or_did_not_make(frozen_toy, tmp_path, capsys):
    options, best = frozen_toy
    backbone = tmp_path / "backbone.pt"
    shutil.copy(best, backbone)
    few = ["--views", 1, "--parts", "test", "--cache-dir", tmp_path / "bank"]
    folder = Path(fill(options, *few, "--pretrained", backbone)["banks"]["test"])
    backbone.write_bytes(b"cut short")
    where = ["--checkpoint_dir", tmp_path / "none", "--cache-dir", tmp_path / "bank"]
    assert prune(*where)["removed_mb"] == 0
    assert "cannot read" in capsys.readouterr().out and (folder / "view_0000.pt").is_file()
    backbone.unlink()
    (folder / "notes.txt").write_text("mine")
    (folder / "about.json").write_text("{")
    prune(*where)
    assert "its about.json is damaged" in capsys.readouterr().out
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
