"""Fine-tuning: what stays frozen, learning rates by depth, streams alone and joined, colours."""

import itertools
import random

import pytest
import torch
from torch import nn

from dataset_team.dataset import VideoDataset
from dataset_team.photometric import BY_FACTOR, WHOLE, change_light
from dataset_team.records import read_list
from early_exit.policy import Policy
from models import STREAMS
from models.inference import prepare_for_inference
from models.team_net import FUSIONS, TeamNet
from models.team_net_ic import TeamNetIC
from tests.script_server import run_script
from training.checkpoint import load_checkpoint, save_checkpoint
from training.engine import clip_loss, make_optimizer
from training.pretrained import build_backbone
from training.splits import DataSettings, open_splits
from training.tuning import FREEZABLE, STAGES, check_partial_bn, keep_frozen, lr_scales

pytestmark = pytest.mark.usefixtures("tiny_resnets")
CLASSES = 3


def make_net(fusion="team", segments=2):
    torch.manual_seed(2)
    arch = {"arch": "resnet18", "motion_arch": "resnet18"}
    return TeamNet(CLASSES, num_segments=segments, dropout=0.0, fusion=fusion, **arch)


def make_clips(count=3, segments=2):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(count, segments, c, 32, 32, generator=generator) for c in (3, 2, 3)]


def train_step(net, frozen=(), alone=False, lr=0.1):
    optimizer = make_optimizer(net, "sgd", lr, 0.1, (1.0, 1.0))
    net.train()
    for module in frozen:
        module.eval()
    labels = torch.arange(3) % CLASSES
    clip_loss(net(*make_clips()), labels, 1.0, 0.0, alone=alone).backward()
    optimizer.step()


def is_under(key, part):
    """Whether a weight belongs to a part that is named as --freeze names it."""
    first, second = key.split(".")[:2]
    own = {first, second, f"{first}.{second}"}
    if part in STREAMS:
        return first == part and second != "classifier"
    if second == "input_norm":
        return part in ("stem", f"{first}.stem")
    return part in own


@pytest.mark.parametrize("part", FREEZABLE)
def test_a_frozen_part_stays_as_it_is_and_the_rest_learns(part):
    net = make_net()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    train_step(net, keep_frozen(net, [part], partial_bn=False))
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]) == is_under(key, part), key


def test_partial_bn_leaves_the_first_norm_of_a_stream_and_of_its_input():
    net = make_net()
    norms = [key for key, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)]
    before = {key: value.clone() for key, value in net.state_dict().items()}
    train_step(net, keep_frozen(net, [], partial_bn=True))
    after = net.state_dict()
    learn = {key for key in norms if key.endswith("input_norm") or key.endswith("stem.bn1")}
    assert len(learn) == 5 and len(norms) > 25
    for norm, name in itertools.product(norms, ("bias", "running_mean")):
        key = f"{norm}.{name}"
        assert torch.equal(before[key], after[key]) == (norm not in learn), key
    assert not torch.equal(before["mv.layer1.0.conv1.weight"], after["mv.layer1.0.conv1.weight"]), (
        "convolutions learn on"
    )


def test_partial_bn_without_batch_norm_is_refused():
    """The norm of a stream's input learns anyway."""
    net = make_net()
    for stream in net.streams:
        check_partial_bn(net)
        for module in itertools.chain(*(stage.modules() for stage in stream.stages)):
            for name, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, name, nn.Identity())
    with pytest.raises(ValueError, match="--partial-bn: resnet18 and resnet18 have no BatchNorm"):
        check_partial_bn(net)


def test_learning_rates_fall_with_the_distance_from_the_classifier():
    net = make_net()
    scales = lr_scales(net, (5.0, 10.0), 0.5)
    found = {key: scales[id(parameter)] for key, parameter in net.named_parameters()}
    for stream in STREAMS:
        assert (
            found[f"{stream}.classifier.weight"] == 5 and found[f"{stream}.classifier.bias"] == 10
        )
        for depth, stage in enumerate(STAGES):
            own = {v for k, v in found.items() if k.startswith(f"{stream}.{stage}.")}
            assert own == {0.5 ** (5 - depth)}, stage
    assert found["team.0.fc_scale.weight"] == found["mv.input_norm.weight"] == 1
    assert len(found) == len(scales)


def test_streams_of_a_sum_train_as_if_each_were_alone():
    together = make_net("sum")
    labels = torch.tensor([0, 1, 2])
    clip_loss(together.train()(*make_clips()), labels, 0.0, 0.0, alone=True).backward()
    for name in STREAMS:
        alone = make_net("sum").train()
        nn.functional.cross_entropy(getattr(alone(*make_clips()), name), labels).backward()
        for (key, got), (_, want) in zip(
            getattr(together, name).named_parameters(), getattr(alone, name).named_parameters()
        ):
            assert torch.allclose(got.grad, want.grad, atol=1e-7), (name, key)
        others = [getattr(alone, other) for other in STREAMS if other != name]
        assert all(p.grad is None for other in others for p in other.parameters())


def test_exits_of_a_sum_read_the_average_of_every_channel():
    net, maps = make_net("sum").eval(), {}
    for name in STREAMS:
        for stage in ("stem", "layer1", "layer2", "layer3"):
            module = getattr(getattr(net, name), stage)
            module.register_forward_hook(
                lambda _, __, x, key=(stage, name): maps.setdefault(key, x)
            )
    assert not list(net.team.parameters())
    with torch.no_grad():
        squeezes = net(*make_clips()).squeezes
    for stage, squeeze in zip(("stem", "layer1", "layer2", "layer3"), squeezes):
        means = [maps[stage, name].flatten(2).mean(2).unflatten(0, (-1, 2)) for name in STREAMS]
        assert torch.allclose(squeeze, torch.cat(means, 2).flatten(1), atol=1e-6)


def test_early_exits_of_a_sum_are_those_of_its_full_pass():
    net = TeamNetIC(make_net("sum"), (1, 2, 3, 4)).eval()
    with torch.no_grad():
        expected = net(*make_clips())
        for point in range(4):
            thresholds = [-1.0 if k == point else 2.0 for k in range(4)]
            rows = [[float(k == j) for j in range(7)] for k in range(5)]
            policy = Policy(net.exits, tuple(thresholds), tuple(map(tuple, rows)))
            decisions = net.early_exit(*make_clips(), policy)
            assert decisions.point.tolist() == [point] * 3
            assert torch.allclose(decisions.logits, expected.exits[point], atol=1e-6)


@pytest.fixture
def trained_alone(tmp_path):
    """The checkpoint of a network of --fusion sum after some steps."""
    net = make_net("sum")
    for _ in range(3):
        train_step(net, alone=True)
    save_checkpoint(tmp_path / "sum.pt", {"model": net.state_dict(), "config": net.config})
    return net, tmp_path / "sum.pt"


def test_joined_streams_start_as_their_sum_and_then_learn_to_weight_each_other(trained_alone):
    net, path = trained_alone
    joined = build_backbone({**net.config, "fusion": "neutral-team"}, str(path), seed=7)
    clips = make_clips()
    with torch.no_grad():
        before, after = net.eval()(*clips), joined.eval()(*clips)
        for name in (*STREAMS, "fused"):
            assert torch.allclose(getattr(before, name), getattr(after, name), atol=1e-6), name
    for _ in range(2):
        train_step(joined, lr=0.5)
    weights = joined.state_dict()
    for block in range(4):
        assert weights[f"team.{block}.fc_scale.weight"].abs().max() > 0
        assert weights[f"team.{block}.conv_spatial.weight"].abs().max() > 0
    published = build_backbone({**net.config, "fusion": "team"}, str(path), seed=7)
    assert published.team[0].fc_scale.weight.abs().max() > 0, "its TEAM blocks are new"
    assert torch.equal(published.mv.stem.conv1.weight, net.mv.stem.conv1.weight)


@pytest.mark.parametrize("names", [["a b", "C"], ["C", "a_b"], ["a_b", "other"], ["0", "1"]])
def test_a_classifier_of_other_classes_is_replaced_and_of_the_same_kept(tmp_path, names, capsys):
    net = TeamNet(2, num_segments=1, arch="resnet18", fusion="sum")
    content = {"model": net.state_dict(), "config": net.config, "class_names": ["a_b", "c"]}
    save_checkpoint(tmp_path / "a.pt", content)
    built = build_backbone(net.config, str(tmp_path / "a.pt"), seed=7, class_names=names)
    is_kept = torch.equal(built.mv.classifier.weight, net.mv.classifier.weight)
    assert is_kept == (names in (["a b", "C"], ["0", "1"]))
    assert ("knows other classes" in capsys.readouterr().out) == (not is_kept)
    assert torch.equal(built.mv.stem.conv1.weight, net.mv.stem.conv1.weight)


@pytest.mark.parametrize(
    ("before", "after"), [pair for pair in itertools.permutations(FUSIONS, 2) if pair[0] != "sum"]
)
def test_team_blocks_go_on_only_as_what_they_were(before, after, tmp_path):
    net = make_net(before)
    save_checkpoint(tmp_path / "a.pt", {"model": net.state_dict(), "config": net.config})
    with pytest.raises(ValueError, match=f"--fusion {before}, .* for --fusion {after} come from"):
        build_backbone({**net.config, "fusion": after}, str(tmp_path / "a.pt"), seed=1)


def test_checkpoints_without_a_fusion_are_published_networks():
    net = make_net()
    assert net.config.pop("fusion") == "team"
    assert TeamNet(**net.config).config["fusion"] == "team"
    with pytest.raises(ValueError, match="unknown fusion 'mean': choose one of team"):
        make_net("mean")


@pytest.mark.parametrize("fusion", FUSIONS)
def test_prepared_networks_of_every_fusion_answer_the_same(fusion):
    net = make_net(fusion)
    train_step(net, alone=fusion == "sum")
    with torch.no_grad():
        for block in net.team if fusion != "sum" else ():
            nn.init.normal_(block.fc_scale.weight)
        expected = TeamNetIC(net, (1, 4)).eval()(*make_clips())
        got = prepare_for_inference(TeamNetIC(net, (1, 4)))(*make_clips())
    assert torch.allclose(got.fused, expected.fused, atol=1e-4)


def test_colours_change_alike_in_all_pictures_and_only_theirs():
    picture = torch.randint(0, 256, (3, 8, 9), dtype=torch.uint8)
    clip = torch.stack([picture, picture.flip(2)])
    results = [change_light(clip, 0.5, random.Random(seed)) for seed in range(20)]
    for changed in results:
        assert changed.dtype == torch.uint8 and changed.shape == clip.shape
        # what an operation does with a picture does not depend on the others; mirrored, sharpness
        # and the means of contrast may round another way
        assert (changed[0].int() - changed[1].flip(2).int()).abs().max() <= 1
    assert len({changed.numpy().tobytes() for changed in results}) > 15
    again = change_light(clip, 0.5, random.Random(3))
    assert torch.equal(again, results[3])
    for operation in BY_FACTOR:
        assert torch.equal(operation(clip, 1.0), clip), "a factor of 1 changes nothing"
    assert all(operation(clip).dtype == torch.uint8 for operation in WHOLE)


def test_photometric_views_differ_in_i_frames_alone(toy_data):
    records = read_list(toy_data / "train.txt", toy_data, "toy")[:4]
    settings = {"num_segments": 2, "crop_size": 32, "train": True}
    plain, bright = (VideoDataset(records, photometric=m, **settings) for m in (0.0, 0.6))
    differ = 0
    for number, view in itertools.product(range(4), range(3)):
        before, after = plain[number, view], bright[number, view]
        assert torch.equal(before.mv, after.mv) and torch.equal(before.residual, after.residual)
        assert torch.equal(after.iframe, bright[number, view].iframe)
        differ += not torch.equal(before.iframe, after.iframe)
    assert differ > 9
    assert plain.describe() != bright.describe() and "photometric" not in plain.describe()
    bright.train = False
    assert torch.equal(
        bright[0].iframe, VideoDataset(records, **{**settings, "train": False})[0].iframe
    )


def test_training_clips_may_have_fewer_segments_than_test_clips(toy_data):
    paths = {"data_root": toy_data, "index_dir": None}
    paths.update({f"{part}_list": toy_data / f"{part}.txt" for part in ("train", "test")})
    views = {"independent_crops": False, "no_flip": True, "clips": 1, "crops": 1}
    split = {"data_name": "toy", "split": "split1", "heldout": 0.2, "select_on": "last"}
    settings = DataSettings(**paths, **views, **split, on_bad_video="error")
    splits = open_splits(settings, 4, 32, 0, train_segments=3, photometric=0.3)
    segments = [
        len(dataset[0].iframe)
        for dataset in (splits.train, splits.heldout, splits.test, splits.train_as_tested)
    ]
    assert segments == [3, 4, 4, 4]
    assert "4 segments" in splits.protocol
    assert splits.heldout.photometric == splits.test.photometric == 0


def test_streams_alone_then_joined_then_exits(tiny_toy, tmp_path, capsys):
    """The whole way with its options; a run says what network it is."""
    options = [*tiny_toy, "--checkpoint_dir", tmp_path / "alone", "--epochs", 1]
    tuning = ["--num_segments", 3, "--train-segments", 2, "--nesterov", "--photometric", 0.3]
    tuning += ["--depth-lr-scale", 0.7, "--partial-bn", "--freeze", "iframe", "mv.layer1"]
    assert run("train_team_net.py", *options, *tuning, "--fusion", "sum") == 0
    noted = "note: --freeze iframe mv.layer1 keeps random weights"
    assert noted in capsys.readouterr().out
    alone = tmp_path / "alone/toy/streams/split1_seed1/best.pt"
    content = load_checkpoint(alone)
    assert content["config"]["fusion"] == "sum" and content["config"]["num_segments"] == 3
    joined = [*tiny_toy, "--checkpoint_dir", tmp_path / "joined", "--epochs", 1]
    words = ["--num_segments", 3, "--fusion", "neutral-team", "--pretrained", alone]
    words += ["--stream-loss", 1, "--ema", 0.5, "--freeze", "iframe", "--train-segments", 4]
    assert run("train_team_net.py", *joined, *words) == 0
    output = capsys.readouterr().out
    assert "keeps random" not in output and "note: --train-segments trains on more" in output
    exits = [*joined[: joined.index("--num_segments")], "--checkpoint_dir", tmp_path / "joined"]
    assert run("train_team_ce.py", *exits, "--views", 1, "--fusion", "neutral-team") == 0
    assert run("train_team_ce.py", *exits, "--views", 1, "--fusion", "sum", "--overwrite") == 2
    assert "fusion neutral-team, the options say sum" in capsys.readouterr().err


def run(*words):
    return run_script(*map(str, words))
