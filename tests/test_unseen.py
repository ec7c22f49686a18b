"""A checkpoint records the videos it learned from; test and held-out videos are none of them."""

import json

import pytest
import torch

import train_i_frame
import train_team_net
from dataset_team import toy
from models.team_net import TeamNet
from tests.calls import call, refused
from training.agreement import check_unseen, joined_records, name_digests
from training.checkpoint import load_checkpoint, save_checkpoint
from training.pretrained import build_backbone
from training.splits import DataSettings, open_splits

pytestmark = pytest.mark.usefixtures("tiny_resnets")
DATA = "toy"
WORDS = {"test": "test video", "heldout": "held-out video"}


@pytest.fixture(scope="module")
def lists(toy_data, tmp_path_factory):
    """Two splits of the toy data: the second one tests on training videos of the first."""
    folder = tmp_path_factory.mktemp("lists")
    train, test = (
        (toy_data / f"{part}.txt").read_text().splitlines() for part in ("train", "test")
    )
    moved = train[:: max(1, len(train) // 6)]
    splits = {"split1": (train, test)}
    splits["split2"] = ([row for row in train if row not in moved] + test, moved)
    for name, parts in splits.items():
        for part, rows in zip(("train", "test"), parts):
            (folder / f"{name}_{part}.txt").write_text("\n".join(rows) + "\n")
    return folder


def open_split(toy_data, lists, split, **changes):
    settings = {
        **{"data_name": DATA, "data_root": toy_data, "split": split, "heldout": 0.15},
        **{"train_list": lists / f"{split}_train.txt", "test_list": lists / f"{split}_test.txt"},
        **{"select_on": "test", "independent_crops": False, "no_flip": True, "clips": 1},
        **{"crops": 1, "on_bad_video": "error", "index_dir": None},
    }
    return open_splits(DataSettings(**{**settings, **changes}), 1, 32, 0)


def test_another_spelling_of_a_list_hides_no_video(toy_data, lists, tmp_path):
    trained_on = trained(names_of(open_split(toy_data, lists, "split1").train))
    text = (lists / "split2_test.txt").read_text()
    path, rest = zip(*(line.split(" ", 1) for line in text.splitlines()))
    rows = [f"{name.lower()} {words}" for name, words in zip(path, rest)]
    (tmp_path / "test.txt").write_text("\n".join(rows) + "\n")
    splits = open_split(toy_data, lists, "split2", test_list=tmp_path / "test.txt")
    with pytest.raises(ValueError, match=f"has trained on {len(rows)} test video"):
        check_unseen("a.pt", trained_on, splits)


def test_a_recording_that_trains_and_tests_is_warned_of(toy_data, lists, recwarn):
    open_split(toy_data, lists, "split1")
    assert not recwarn.list
    splits = open_split(toy_data, lists, "split2")
    (warning,) = recwarn.list
    beside = {(r.class_name, r.group) for r in splits.train.records}
    divided = sum((r.class_name, r.group) in beside for r in splits.test.records)
    assert divided and f"{divided} test video(s) of {lists / 'split2_test.txt'}" in str(warning)


def test_a_stated_recording_is_one_over_all_classes(toy_data, lists, tmp_path):
    for part in ("train", "test"):
        text = (lists / f"split1_{part}.txt").read_text()
        (tmp_path / f"split1_{part}.txt").write_text(text)
    names = [line.split()[0] for p in ("train", "test") for line in lines_of(lists, p)]
    rows = [f"{name},{number}" for number, name in enumerate(names)]
    rows[0], rows[-1] = f"{names[0]},film", f"{names[-1]},film"
    (tmp_path / "recordings.csv").write_text("path,recording\n" + "\n".join(rows) + "\n")
    with pytest.warns(UserWarning, match="1 test video.s. of .* are of recordings that train"):
        open_split(toy_data, tmp_path, "split1")


def lines_of(lists, part):
    return (lists / f"split1_{part}.txt").read_text().splitlines()


def test_the_name_of_a_known_data_set_is_doubted_with_fewer_classes(toy_data, lists, capsys):
    open_split(toy_data, lists, "split1")
    assert "--data-name" not in capsys.readouterr().out
    open_split(toy_data, lists, "split1", data_name="hmdb51")
    out = capsys.readouterr().out
    assert "--data-name hmdb51 has 51 classes, the lists have videos of 8" in out


def names_of(dataset):
    return [record.name for record in dataset.records]


def trained(names, data=DATA):
    return {"trained_on": {data: name_digests(names)}}


def test_digests_take_eight_bytes_a_name_and_join_without_doubles():
    names = [f"Class {i % 7}/v_{i}\udcff" for i in range(1000)]
    digests = name_digests(names)
    assert digests.dtype == torch.int64 and len(digests) == 1000
    assert torch.equal(digests, name_digests(reversed(names)))
    parts = {"a": name_digests(names[:600])}, {"a": name_digests(names[400:])}, {"b": digests[:3]}
    joined = joined_records(*parts)
    assert torch.equal(joined["a"], digests) and torch.equal(joined["b"], digests[:3])
    assert joined_records({}, {}) == {}


@pytest.mark.parametrize("part", ["test", "heldout"])
def test_one_video_of_another_side_is_enough(toy_data, lists, part):
    splits = open_split(toy_data, lists, "split1", select_on="heldout")
    seen = names_of(splits.train)
    check_unseen("a.pt", trained(seen), splits)
    one = names_of(getattr(splits, part))[-1]
    with pytest.raises(ValueError, match=f"a.pt has trained on 1 {WORDS[part]}.*, first {one}"):
        check_unseen("a.pt", trained([*seen, one]), splits)
    check_unseen("a.pt", trained([*seen, one], "another"), splits)  # equal by chance


def test_heldout_videos_count_where_some_are_held_out(toy_data, lists, capsys):
    splits = open_split(toy_data, lists, "split1", select_on="last")
    record = trained([*names_of(splits.train), *names_of(splits.heldout)])
    capsys.readouterr()
    check_unseen("a.pt", record, splits)  # nothing is chosen on them
    count = len(splits.heldout)
    assert f"note: a.pt has trained on {count} held-out video(s), f" in capsys.readouterr().out
    for changes in ({"select_on": "test"}, {"select_on": "last", "heldout": 0.0}):
        splits = open_split(toy_data, lists, "split1", **changes)
        capsys.readouterr()
        check_unseen("a.pt", record, splits)
        assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({}, None),
        ({"data_name": DATA, "split": "split1"}, None),
        ({"data_name": DATA, "split": "split2"}, "a.pt was trained on split2 and may know test"),
        ({"data_name": "another", "split": "split2"}, None),
    ],
)
def test_a_file_without_a_record_is_noted(toy_data, lists, capsys, record, words):
    splits = open_split(toy_data, lists, "split1")
    capsys.readouterr()
    check_unseen("a.pt", record, splits)
    output = capsys.readouterr().out
    assert words in output if words else not output


def test_a_network_remembers_what_all_its_sources_learned_from(tmp_path):
    paths = []
    for number, data in enumerate(("kinetic400", "ucf101")):
        net = TeamNet(3, num_segments=1, arch="resnet18")
        paths.append(str(tmp_path / f"{number}.pt"))
        content = {"model": net.state_dict(), "config": net.config}
        save_checkpoint(paths[-1], {**content, **trained([f"{number}", "both"], data)})
    built = build_backbone(net.config, paths[0], 1, {"mv": paths[1]})
    expected = {"kinetic400": name_digests(["0", "both"]), "ucf101": name_digests(["1", "both"])}
    assert built.trained_on.keys() == expected.keys()
    assert all(torch.equal(built.trained_on[data], expected[data]) for data in expected)


def options(toy_data, lists, split, runs):
    words = ["--data-name", DATA, "--data-root", toy_data, "--split", split, "--no-flip"]
    words += ["--train-list", lists / f"{split}_train.txt", "--workers", 0]
    return [*words, "--test-list", lists / f"{split}_test.txt", "--checkpoint_dir", runs]


NETWORK = ["--num_segments", 1, "--crop-size", 32, "--arch", "resnet18", "--batch-size", 6]
NETWORK += ["--epochs", 1, "--lr", 1e-4]


def test_streams_and_backbones_do_not_change_sides(toy_data, lists, tmp_path, capsys):
    """The weights that a video taught keep it, through a second training and a running mean."""
    first = options(toy_data, lists, "split1", tmp_path)
    whole = ["--select-on", "last", "--heldout", 0]
    call(train_team_net, *first, *NETWORK, *whole, "--fusion", "sum")
    streams = tmp_path / DATA / "streams/split1_seed1/best.pt"
    join = [*NETWORK, "--fusion", "neutral-team", "--pretrained", streams, "--ema", 0.5]
    other = options(toy_data, lists, "split2", tmp_path)
    message = refused(capsys, train_team_net, *other, *join, *whole)
    assert f"{streams} has trained on" in message and "split2_test.txt" in message
    message = refused(capsys, train_team_net, *first, *join, "--select-on", "heldout")
    assert f"{streams} has trained on" in message and "held-out video" in message
    assert not (tmp_path / DATA / "team_net").exists()

    streams_of = load_checkpoint(streams)["trained_on"]
    splits = open_split(toy_data, lists, "split1", select_on="last", heldout=0.0)
    assert torch.equal(streams_of[DATA], name_digests(names_of(splits.train)))
    heard = [*first, *join, "--data-name", "heard"]  # other data in name: joined, not compared
    call(train_team_net, *heard)
    joined = tmp_path / "heard/team_net/split1_seed1/best.pt"
    record = load_checkpoint(joined)["trained_on"]
    assert record.keys() == {DATA, "heard"} and torch.equal(record[DATA], streams_of[DATA])
    assert len(record["heard"]) < len(record[DATA])
    for script in (train_i_frame, train_team_net):
        words = ["--pretrained", joined, *(["--evaluate"] if script is train_team_net else [])]
        message = refused(capsys, script, *other, *whole, *words)
        assert f"{joined} has trained on" in message and "split2_test.txt" in message


def test_evaluation_states_the_choice_of_the_checkpoint(toy_data, lists, tmp_path, capsys):
    given = options(toy_data, lists, "split1", tmp_path)
    net = TeamNet(len(toy.CLASSES), num_segments=1, arch="resnet18")
    best, content = tmp_path / "best.pt", {"model": net.state_dict(), "config": net.config}
    cases = [
        ({}, [], "selection unknown"),
        ({"select_on": "test", "heldout": []}, [], "selected on test"),
        (
            {"select_on": "heldout", "heldout": ["a"]},
            ["--select-on", "test"],
            "selected on heldout",
        ),
        ({"select_on": "last", "heldout": ["a"]}, [], "last epoch kept"),
        ({"select_on": "last", "heldout": []}, [], "last epoch kept, no video held out"),
    ]
    for chosen, flags, words in cases:
        save_checkpoint(best, {**content, "crop_size": 32, **chosen})
        capsys.readouterr()
        call(train_team_net, *given, "--evaluate", "--pretrained", best, *flags)
        result = json.loads(capsys.readouterr().out.split("result: ")[1])
        assert result["protocol"].endswith(f"1 segments, {words}")
