"""What the training scripts promise, on a small toy data set with tiny ResNets."""

import importlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

import team_net_wise_all_acc
import wise_team_net_logit
from early_exit.logits import LogitsFile
from models import PUBLISHED_NETWORK
from tests.calls import call
from training.checkpoint import load_checkpoint, save_checkpoint, save_last
from training.resolve import resolve_recipe
from training.run_folder import RunFolder

SMALL = ["--arch", "resnet18", "--num_segments", "2", "--crop-size", "32", "--batch-size", "8"]
SMALL += ["--ema", "0.5", "--label-smoothing", "0.1", "--mixup", "0.4"]
METHODS = {
    "team_ce": "train_team_ce.py",
    "prog_kd": "train_prog_kd.py",
    "prog_kd_anti": "train_prog_kd_anti.py",
    "i_frame": "train_i_frame.py",
}


@pytest.fixture(scope="module")
def run(server):
    """Runs a script; returns its result line as a dict, or its message where it must refuse."""

    def run(*command, fails=False):
        code, output = server.run(*command)
        assert code == (2 if fails else 0), output
        if fails:
            return output
        last = output.splitlines()[-1]
        assert last.startswith("result: "), output
        return json.loads(last.removeprefix("result: "))

    return run


@pytest.fixture(scope="module")
def toy(toy_options, toy_data, tmp_path_factory):
    """Options that name a toy data set and the folder of its runs, and that folder."""
    runs = tmp_path_factory.mktemp("runs")
    return [*toy_options, "--checkpoint_dir", runs], runs


@pytest.fixture(scope="module")
def backbone(run, toy):
    options, runs = toy
    result = run("train_team_net.py", *options, *SMALL, "--epochs", 2)
    return result, runs / "toy/team_net/split1_seed1"


@pytest.fixture(scope="module")
def classifiers(run, toy, backbone):
    """The runs of the four methods: {method: (result, folder)}."""
    options, runs = toy
    extra = {
        "prog_kd": ["--schedule", "mv:2,iframe"],
        "prog_kd_anti": ["--schedule", "iframe:2,mv"],
    }
    return {
        method: (
            run(script, *options, "--epochs", 4, "--views", 2, *extra.get(method, [])),
            runs / f"toy/{method}/split1_seed1",
        )
        for method, script in METHODS.items()
    }


def read_log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_backbone_run_folder(backbone):
    result, folder = backbone
    names = {"args.json", "env.json", "log.jsonl", "last.pt", "best.pt", "result.json"}
    assert names <= set(os.listdir(folder))
    assert [line["epoch"] for line in read_log(folder)] == [0, 1]
    assert json.loads((folder / "result.json").read_text()) == result
    assert result["protocol"] == "1 clip x 1 crop of 32 pixels, 2 segments, selected on heldout"
    assert 0 <= result["test_top1_pct"] <= 100


def test_evaluate_repeats_the_result(run, toy, backbone):
    options, _ = toy
    result, _ = backbone
    again = run("train_team_net.py", *options, *SMALL, "--evaluate")
    assert again["test_top1_pct"] == result["test_top1_pct"]


def test_multi_view_testing_counts_videos_not_views(run, toy, backbone):
    options, _ = toy
    result = run(
        "train_team_net.py", *options, *SMALL, "--evaluate", "--clips", "2", "--crops", "3"
    )
    assert result["test_videos"] == backbone[0]["test_videos"]
    assert result["protocol"].startswith("2 clip x 3 crop")


def test_options_are_named_as_they_are_written(run, toy, backbone):
    options, _ = toy
    command = ["train_team_net.py", *options, *SMALL, "--epochs", 2, "--resume"]
    run(*command, "--is_train")  # the default, so it is no other option
    message = run(*command, "--num_segments", 3, "--is_shift", "--ema", 0.1, fails=True)
    for flag in ("--num_segments: was 2", "--is_shift: was", "--ema: was 0.5"):
        assert flag in message


def test_used_run_folder_is_not_overwritten(run, toy, backbone):
    options, _ = toy
    message = run("train_team_net.py", *options, *SMALL, "--epochs", 2, fails=True)
    assert "already holds a run" in message


def test_each_method_has_its_teachers_and_its_exits(classifiers):
    teachers = {
        "team_ce": ["labels"] * 4,
        "prog_kd": ["mv", "mv", "iframe", "iframe"],
        "prog_kd_anti": ["iframe", "iframe", "mv", "mv"],
        "i_frame": ["iframe"] * 4,
    }
    for method, (result, folder) in classifiers.items():
        assert [line["teacher"] for line in read_log(folder)] == teachers[method]
        assert len(result["test_top1_pct"]) == 3
        checkpoint = load_checkpoint(folder / "best.pt")
        assert set(checkpoint["heads"]) == {
            f"{k}.{p}" for k in (1, 2, 3) for p in ("weight", "bias")
        }


def test_methods_share_one_bank(toy, classifiers):
    """Two training views, held-out and test are computed once, not once per method."""
    _, runs = toy
    files = sorted(p.name for p in (runs / "toy/views").glob("*/view_*.pt"))
    assert files == ["view_0000.pt"] * 3 + ["view_0001.pt"]


def test_fresh_views_train_the_same_exits_as_a_bank_of_as_many(run, toy, backbone, tmp_path):
    options, _ = toy
    path = ["--pretrained", backbone[1] / "best.pt", "--epochs", 2]
    trained = {}
    for views in (0, 2):
        place = ["--checkpoint_dir", tmp_path / str(views)]
        run("train_team_ce.py", *options, *path, "--views", views, *place)
        checkpoint = load_checkpoint(tmp_path / str(views) / "toy/team_ce/split1_seed1/last.pt")
        trained[views] = checkpoint["heads"]
    for key, value in trained[0].items():
        assert torch.equal(value, trained[2][key]), key


def test_exits_of_another_version_are_not_resumed(run, toy, backbone, tmp_path):
    options, _ = toy
    words = ["--pretrained", backbone[1] / "best.pt", "--epochs", 1, "--views", 0]
    words += ["--checkpoint_dir", tmp_path]
    run("train_team_ce.py", *options, *words)
    folder = tmp_path / "toy/team_ce/split1_seed1"
    (folder / "result.json").unlink()
    content = load_checkpoint(folder / "last.pt")
    del content["optimizer"]
    save_last(folder, content)
    message = run("train_team_ce.py", *options, *words, "--resume", fails=True)
    assert f"{folder}/last.pt is of another version" in message
    assert "--overwrite starts again" in message and "Traceback" not in message


def test_exits_refuse_another_backbone(run, toy, classifiers, tmp_path):
    options, _ = toy
    other = ["--checkpoint_dir", tmp_path]
    run("train_team_net.py", *options, *SMALL, "--epochs", 1, "--random_seed", 2, *other)
    path = ["--pretrained", tmp_path / "toy/team_net/split1_seed2/best.pt"]
    message = run("train_team_ce.py", *options, "--evaluate", *path, fails=True)
    assert "name the right one with --pretrained" in message


@pytest.mark.parametrize("is_finished", [True, False])
def test_exits_do_not_go_on_with_another_backbone(run, toy, backbone, tmp_path, is_finished):
    """Whether they would train on, or report a result that is of the backbone before."""
    options, _ = toy
    best = tmp_path / "toy/team_net/split1_seed1/best.pt"
    content = load_checkpoint(backbone[1] / "best.pt")
    save_checkpoint(best, content)
    command = ["train_team_ce.py", *options, "--checkpoint_dir", tmp_path]
    command += ["--epochs", 1, "--views", 1]
    run(*command)
    folder = tmp_path / "toy/team_ce/split1_seed1"
    if not is_finished:
        (folder / "result.json").unlink()
    content["model"]["mv.classifier.bias"] += 1
    save_checkpoint(best, content)
    message = run(*command, "--resume", fails=True)
    assert f"the backbone {best} has other weights now" in message and "--overwrite" in message
    shutil.copy(backbone[1] / "best.pt", best)
    if is_finished:
        best.unlink()  # its result is as it was
    run(*command, "--resume")


def test_a_run_that_does_not_record_its_backbone_goes_on_with_a_note(toy, tmp_path, capsys):
    options = {"resume": True, "overwrite": False}
    folder = RunFolder(tmp_path, {**options, "backbone": "b.pt", "backbone_digest": "0"})
    (tmp_path / "args.json").write_text(json.dumps({"resume": False, "overwrite": False}))
    folder.check()
    assert "does not record its backbone" in capsys.readouterr().out


def test_exits_do_not_train_on_half_a_backbone(run, toy, backbone, tmp_path):
    options, _ = toy
    own = tmp_path / "toy/team_net/split1_seed1"
    shutil.copytree(backbone[1], own)
    (own / "result.json").unlink()
    command = ["train_team_ce.py", *options, "--checkpoint_dir", tmp_path]
    command += ["--epochs", 1, "--views", 0]
    for seed in (1, 2):  # its own backbone, and one of another seed
        message = run(*command, "--random_seed", seed, fails=True)
        assert f"the run {own} of the backbone is not finished" in message
        assert f"--pretrained {own / 'best.pt'}" in message
    run(*command, "--pretrained", own / "best.pt")


def test_exits_whose_logits_are_not_finite_have_no_top1(run, toy, backbone, tmp_path):
    options, _ = toy
    command = ["train_team_ce.py", *options, "--checkpoint_dir", tmp_path, "--views", 1]
    command += ["--pretrained", backbone[1] / "best.pt", "--epochs", 1]
    run(*command)
    best = tmp_path / "toy/team_ce/split1_seed1/best.pt"
    content = load_checkpoint(best)
    content["heads"]["2.bias"] *= float("nan")
    save_checkpoint(best, content)
    message = run(*command, "--evaluate", fails=True)
    assert f"{best} cannot be evaluated: the logits of exit 2" in message


def test_options_that_contradict_the_backbone_are_refused(run, toy, classifiers):
    options, _ = toy
    message = run("train_i_frame.py", *options, "--num_segments", 3, "--overwrite", fails=True)
    assert "was trained with num_segments 2, the options say 3" in message
    assert (classifiers["i_frame"][1] / "best.pt").exists()  # a refused start removes nothing


def test_lists_that_contradict_each_other_are_refused(run, toy, toy_data, tmp_path):
    options, _ = toy
    swap = {"0": "1", "1": "0"}
    lines = [line.rsplit(" ", 1) for line in (toy_data / "test.txt").read_text().splitlines()]
    text = "".join(f"{head} {swap.get(label, label)}\n" for head, label in lines)
    (tmp_path / "test.txt").write_text(text)
    lists = ["--test-list", tmp_path / "test.txt", "--checkpoint_dir", tmp_path]
    assert "in the training list it has" in run("train_team_net.py", *options, *lists, fails=True)
    lists[1] = toy_data / "train.txt"
    assert "a test video must not train" in run("train_team_net.py", *options, *lists, fails=True)


def test_bad_videos_stop_the_run_or_are_counted(run, toy, toy_data, backbone, tmp_path):
    options, _ = toy
    result, _ = backbone
    shutil.copytree(toy_data, tmp_path / "toy", ignore=shutil.ignore_patterns(".*"))
    bad = sorted((tmp_path / "toy").glob("DotsLeft/*.mp4"))[0]
    name = f"DotsLeft/{bad.stem}"
    is_test = name in (toy_data / "test.txt").read_text()
    bad.write_bytes(b"no video")
    command = ["train_team_net.py", *options, *SMALL, "--data-root", tmp_path / "toy", "--evaluate"]
    assert name in run(*command, fails=True)
    skipping = run(*command, "--on-bad-video", "skip")
    assert skipping["skipped_videos"] == 1
    assert skipping["test_videos"] == result["test_videos"] - is_test


def test_no_backbone_is_a_clear_error(run, toy, tmp_path):
    options, _ = toy
    message = run("train_team_ce.py", *options, "--checkpoint_dir", tmp_path, fails=True)
    assert "Train one with train_team_net.py" in message


def test_logits_wise_and_thresholds(run, toy, classifiers):
    """The way from exits to trade-off; the logits tell the same top-1 as the training did."""
    options, _ = toy
    for method, (result, folder) in classifiers.items():
        saved = run("save_logits.py", "--method", method, *options, "--views", 2)
        assert saved["views"] == {"heldout": 1, "test": 1, "train": 1, "train_views": 2}
        content = torch.load(folder / "logits.pt", weights_only=True)
        test = content["parts"]["test"]
        exits = test["logits"][0, :, :3].argmax(-1)  # (videos, exits)
        top1 = 100 * (exits == test["labels"][:, None]).float().mean(0)
        assert top1.tolist() == pytest.approx(result["test_top1_pct"])
        for script in (wise_team_net_logit, team_net_wise_all_acc):
            call(script, "--logits", folder / "logits.pt")
        assert (folder / "trade_off.csv").stat().st_size and (folder / "exits.csv").stat().st_size


def test_select_on_last_keeps_the_last_epoch(run, toy, tmp_path):
    """Nothing is chosen, and the held-out videos stay out of training."""
    options, _ = toy
    place = [*options, "--checkpoint_dir", tmp_path, "--select-on", "last"]
    result = run("train_team_net.py", *place, *SMALL, "--epochs", 2)
    folder = tmp_path / "toy/team_net/split1_seed1"
    last, best = (load_checkpoint(folder / name) for name in ("last.pt", "best.pt"))
    assert result["best_epoch"] == best["epoch"] == 1 and len(best["heldout"]) > 0
    assert "last epoch kept" in result["protocol"]
    exits = run("train_team_ce.py", *place, "--epochs", 3, "--views", 1)
    assert exits["best_epochs"] == [2, 2, 2] and len(exits["heldout_top1_pct"]) == 3


def test_the_whole_list_trains_where_nothing_is_chosen(run, toy, toy_data, tmp_path):
    """--select-on last --heldout 0: the last step, after all has been chosen."""
    options, _ = toy
    place = [*options, "--checkpoint_dir", tmp_path, "--select-on", "last", "--heldout", 0]
    result = run("train_team_net.py", *place, *SMALL, "--epochs", 1)
    best = load_checkpoint(tmp_path / "toy/team_net/split1_seed1/best.pt")
    assert best["heldout"] == [] and "last epoch kept, no video held out" in result["protocol"]
    run("train_team_ce.py", *place, "--epochs", 2, "--views", 1)
    run("save_logits.py", *place, "--method", "team_ce", "--views", 1)
    parts = LogitsFile.load(tmp_path / "toy/team_ce/split1_seed1/logits.pt").parts
    videos = (toy_data / "train.txt").read_text().splitlines()
    assert "heldout" not in parts and len(parts["train"].names) == len(videos)


def test_pretrain_then_other_classes(run, toy, toy_data, backbone, tmp_path):
    """A backbone of other classes starts a new one: all but the classifiers is kept."""
    options, _ = toy
    lists = []
    for name in ("train", "test"):
        lines = (toy_data / f"{name}.txt").read_text().splitlines()
        kept = [line for line in lines if line and int(line.split()[-1]) < 3]
        (tmp_path / f"{name}.txt").write_text("\n".join(kept) + "\n")
        lists += [f"--{name}-list", tmp_path / f"{name}.txt"]
    place = ["--checkpoint_dir", tmp_path]
    start_from = ["--pretrained", backbone[1] / "best.pt", "--lr", "1e-12"]
    run("pretrain.py", *options, *lists, *place, *SMALL, *start_from, "--epochs", 1)
    before = load_checkpoint(backbone[1] / "best.pt")["model"]
    after = load_checkpoint(tmp_path / "toy/pretrain/split1_seed1/best.pt")["model"]
    assert after["iframe.classifier.weight"].shape[0] == 3
    key = "iframe.layer1.0.conv1.weight"
    assert torch.allclose(before[key], after[key], atol=1e-6)


PUBLISHED = [
    "train_team_ce.py --lr 0.02 --is_train --checkpoint_dir ./checkpoints --split split1"
    " --random_seed 1 --batch-size 128 --arch resnet50 --data-name ucf101 --data-root D"
    " --train-list A --test-list B --lr-steps 5 10 15 --epochs 30 --num_segments 8 --dropout 0.5"
    " --wd 1e-4 --eval-freq 1 --gpus 0 --workers=4",
    "pretrain.py --lr 0.01 --is_train --batch-size 32 --arch resnet50 --data-name kinetic400"
    " --data-root D --train-list A --test-list B --lr-steps 30 40 45 --epochs 50 --wd 5e-4"
    " --gpus 0 --num_segments 8 --eval-freq 1 --dropout 0.5",
    "train_team_net.py --lr 0.02 --is_shift --batch-size 16 --arch resnet50 --data-name ucf101"
    " --data-root D --train-list A --test-list B --lr-steps 5 10 15 --epochs 30 --num_segments 8"
    " --dropout 0.5 --wd 1e-4 --eval-freq 1 --gpus 0 --workers 20",
    "train_team_net.py --lr 0.02 --is_train --split split1 --data-name hmdb51 --batch-size 16"
    " --arch resnet50 --data-root D --train-list A --test-list B --lr-steps 10 15 20 --epochs 30"
    " --num_segments 8 --dropout 0.5 --wd 5e-4 --eval-freq 1 --gpus 0",
]


@pytest.mark.parametrize("command", PUBLISHED)
def test_published_commands_say_our_defaults(command):
    """They parse as written, and all but paths and devices is what the scripts do anyway."""
    script, *words = command.split()
    module = importlib.import_module(script.removesuffix(".py"))
    given = module.get_args_parser().parse_args(words)
    kept = ["--data-name", given.data_name, "--data-root", "D", "--train-list", "A"]
    defaults = module.get_args_parser().parse_args([*kept, "--test-list", "B"])
    for args in (given, defaults):
        resolve_recipe(args)
    for key in ("lr", "batch_size", "lr_steps", "epochs", "wd", "eval_freq", "random_seed"):
        assert getattr(given, key) == getattr(defaults, key), key
    if script != "train_team_ce.py":  # its network is the backbone's
        for key in ("arch", "num_segments", "dropout"):
            assert getattr(given, key) == PUBLISHED_NETWORK[key], key


def test_unlabelled_videos_teach_by_their_teachers_alone(run, toy, toy_data, backbone, tmp_path):
    """Nonsense in the list's other columns gives the same exits; a stage of labels does not see
    its videos."""
    options, _ = toy
    lines = (toy_data / "train.txt").read_text().splitlines()
    few, rest = tmp_path / "few.txt", [tmp_path / "paths.txt", tmp_path / "nonsense.txt"]
    few.write_text("\n".join(lines[0::2]))
    rest[0].write_text("\n".join(line.split()[0] for line in lines[1::2]))
    rest[1].write_text("\n".join(f"{line.split()[0]} Nonsense 7" for line in lines[1::2]))
    common = [*options, "--train-list", few, "--epochs", 3, "--views", 1]
    # A tie of two epochs, which rounding may turn, would give other heads.
    common += ["--pretrained", backbone[1] / "best.pt", "--select-on", "last"]

    def heads(method, schedule, *more):
        words = ["--method", method, "--schedule", schedule, *more]
        result = run("train_prog_kd.py", *common, *words)
        return load_checkpoint(Path(result["run"]) / "best.pt")["heads"]

    def equal(first, second):
        return all(torch.equal(first[key], second[key]) for key in first)

    without = heads("without", "fused")
    paths, nonsense = (heads(f.stem, "fused", "--unlabelled", f) for f in rest)
    assert equal(paths, nonsense) and not equal(paths, without)
    labels = heads("labels", "labels", "--batch-size", 1000, "--unlabelled", rest[0])
    alone = heads("labels_alone", "labels", "--batch-size", 1000)
    assert all(torch.allclose(labels[key], alone[key], atol=1e-5) for key in alone)
    bad = tmp_path / "bad.txt"
    bad.write_text("\n".join(line.split()[0] for line in lines[:3]))
    wrong = [*common, "--schedule", "fused", "--method", "bad", "--unlabelled", bad]
    message = run("train_prog_kd.py", *wrong, fails=True)
    assert "bad.txt: 2 video(s) stand in the training or the test list too" in message
    bad.write_text(f"{lines[1].split()[0]}\nJump/nothing.mp4\n")
    message = run("train_prog_kd.py", *wrong, fails=True)
    assert "bad.txt:2: no video Jump/nothing" in message
    words = ["--unlabelled", rest[1], "--method", "paths", "--schedule", "fused", "--resume"]
    message = run("train_prog_kd.py", *common, *words, fails=True)
    assert "--unlabelled" in message and "other videos, classes or labels in it" in message
