"""Options of every script and command: a value out of range ends with exit code 2 and names its
option, and so do options that exclude each other."""

import argparse
import importlib
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import REPO, ROOMS
from tests.script_server import run_script
from training import options, recipes, resolve

pytestmark = pytest.mark.usefixtures("tiny_resnets")
NUMBER = ("-1", "0", "1.5", "x")
FROM_0 = ("-1", "0.5", "x")
SCALE = ("-1", "0", "nan", "inf", "x")
AMOUNT = ("-1", "nan", "inf", "x")
SHARE = ("-0.1", "1", "nan", "x")
NAME = ("", ".", "../a", "a/b", "/a")
MISSING = ("no/such",)
ANY = ()  # a text, or a path that is written

# Words that no value can replace, where a command has them.
DATA = (
    "--data-root {data} --train-list {data}/train.txt --test-list {data}/test.txt --data-name toy"
)
EXITS = f"{DATA} --checkpoint_dir {{runs}}"
COMMANDS = {
    **dict.fromkeys(("pretrain.py", "train_team_net.py"), f"{DATA} --checkpoint_dir {{new}}"),
    **dict.fromkeys((f"train_{method}.py" for method in recipes.METHODS), EXITS),
    "train_i_frame_probe.py": EXITS,
    "save_logits.py": f"{EXITS} --method team_ce",
    "wise_team_net_logit.py": "",
    "team_net_wise_all_acc.py": "",
    "predict.py": "{video} --checkpoint {runs}/toy/team_net/split1_seed1",
    "training.views": EXITS,
    "training.views --prune": "--checkpoint_dir {new}",
    "coviar.check": "{video}",
    "coviar.reencode": "{video} {new}",
    "coviar.visualize": "{video} --out {new}/a.png",
    "dataset_team.lists ucf101": "{new} {new}",
    "dataset_team.lists folders": "{data} {new}",
    "dataset_team.lists convert": "{data}/train.txt {new} --data-root {data}",
    "dataset_team.toy": "{new}",
    **dict.fromkeys(("dataset_team.lists hmdb51", "dataset_team.lists kinetic400"), "{new} {new}"),
    "dataset_team.lists pools": "{data}/train.txt {new} --data-root {data}",
    "coviar.vectors": "{video} {new}/a.npz",
    "study.collect": "{new} --out {new}",
    "study.confusions": "{new} --first 2 --out {new}/a.csv",
    "study.drops": "{new} --out {new}/a.csv",
    "study.few_labels": f"{EXITS} --unlabelled {{data}}/train.txt --out {{new}}",
    "study.flatness": f"{{runs}}/toy/team_net/split1_seed1/best.pt {DATA} --out {{new}}/a.csv",
    "study.frontier": "{new} --out {new}/a.csv --figures {new}",
    "study.label_gain": "{new} --out {new}/a.csv",
    "study.over_time": "{new} --out {new}",
    "study.probes": "{new} --out {new}/a.csv",
    "study.promises": "{new}",
    "study.teacher_order": "{new} --out {new}/a.csv",
    "study.top1": "{new} --out {new}/a.csv",
    "study.compare": "{study} --pair team_ce prog_kd",
    "study.verdicts": "--out {new}/a.csv",
    "study.variants": "{new} --out {new}/a.csv",
    "study.report": "{new} --out {new}/a.html",
    "MACs/main.py": "",
    "benchmarks.early_exit": "",
    "benchmarks.forward": "",
    "benchmarks.loader": "{video}",
    "benchmarks.memory": "",
    "benchmarks.policies": "--run {new} --data-root {data} --test-list {data}/test.txt",
    "benchmarks.recipes": "{new}",
    "benchmarks.sweep": "--out {new} --pretrained {runs}/toy/team_net/split1_seed1/best.pt",
    "benchmarks.over_time": "--run {new} --data-root {data} --test-list {data}/test.txt",
    "benchmarks.timings": "--run {new} --data-root {data} --test-list {data}/test.txt --out {new}",
    "benchmarks.train_step": "",
    "benchmarks.vectors": "{video}",
    "benchmarks.windows": "",
}
# What is out of range for an option, by its name alone or behind a command's.
VALUES = {
    "--route": ["sideways", "full@0"],
    "--accumulate": NUMBER,
    "--against": MISSING,
    "--alpha": AMOUNT,
    "--arch": ("resnet19",),
    "--batch-size": NUMBER,
    "--batch-sizes": NUMBER,
    "--budget-gmacs": SCALE,
    "--budget-ms": SCALE,
    "--cache-dir": ANY,
    "--checkpoint": MISSING,
    "--checkpoint_dir": ANY,
    "--classes": MISSING,
    "--classifier-lr-scale": ("0 1", "1 nan", "x 1"),
    "--clips": NUMBER,
    "--compare-views": ("0", "some"),
    "--confidence-pct": ("49", "100", "nan", "x"),
    "--crop-size": NUMBER,
    "--data-name": NAME,
    "benchmarks.policies --data-name": ANY,
    "--data-root": MISSING,
    "--data-seed": FROM_0,
    "--depth-lr-scale": SCALE,
    "--device": ("tpu",),
    "--digests": ANY,
    "--directions": NUMBER,
    "--draw-seed": FROM_0,
    "--dropout": SHARE,
    "--drops": AMOUNT,
    "--early-exit": MISSING,
    "--ema": SHARE,
    "--epochs": NUMBER,
    "--eval-freq": NUMBER,
    "--exits": ("0", "5", "x"),
    "--feature-batch": NUMBER,
    "--figures": ANY,
    "--first": NUMBER,
    "--fixed-segments": NUMBER,
    "--folds": ("-1", "1", "x"),
    "--gains": MISSING,
    "--gop": NUMBER,
    "coviar.visualize --gop": ("-1", "99", "x"),
    "--gpus": FROM_0,
    "--group-csv": MISSING,
    "--group-regex": ("((((((",),
    "--guarantee": ("0", "1", "nan", "x"),
    "--heldout": SHARE,
    "--index-dir": ANY,
    "--jobs": NUMBER,
    "--label-smoothing": SHARE,
    "--logits": MISSING,
    "--lr": SCALE,
    "--lr-steps": NUMBER,
    "--max-disagreement": AMOUNT,
    "--max-drop": AMOUNT,
    "--max-exit-error": AMOUNT,
    "--method": NAME,
    "--mixup": SCALE,
    "--motion-arch": ("resnet19",),
    "--num_segments": NUMBER,
    "--minutes": NUMBER,
    "--out": ANY,
    "--pair": ("team_ce/nothing prog_kd", "nobody prog_kd"),
    "--photometric": SHARE,
    "--per-class": NUMBER,
    "--picture": ("a.jpg",),
    "--policy": MISSING,
    "--positions": ("-1", "99", "x"),
    "--pretrained": MISSING,
    "benchmarks.sweep --pretrained": ANY,  # the first script that it starts refuses
    "--pretrained-streams": ("mv", "mv=", "flow=imagenet", "mv=missing.pt"),
    # Looked at after --run, which is missing here.
    "benchmarks.policies --data-root": ANY,
    "benchmarks.policies --pretrained": ANY,
    "benchmarks.policies --test-list": ANY,
    **dict.fromkeys(("benchmarks.over_time --data-root", "benchmarks.over_time --test-list"), ANY),
    **dict.fromkeys(("benchmarks.timings --data-root", "benchmarks.timings --test-list"), ANY),
    **dict.fromkeys(("benchmarks.over_time --probe", "benchmarks.timings --data-name"), ANY),
    "--probe": MISSING,
    "--q": ("0", "32", "x"),
    "--random_seed": FROM_0,
    "--radii": SCALE,
    "--recordings": ANY,
    "--repeats": NUMBER,
    "--run": MISSING,
    "--save-steps": NUMBER,
    "--schedule": ("mv:0,iframe", "sound"),
    "--seed": FROM_0,
    "dataset_team.lists folders --seed": ("x",),  # any whole number
    "dataset_team.lists pools --seed": ("x",),
    "--seeds": FROM_0,
    "--segments": NUMBER,
    "--shard": ("0/2", "3/2", "2", "a/b", "1/-2"),
    "--show": ANY,
    "--size": ("0x0", "big"),
    "dataset_team.toy --size": ("0x0", "161x128", "big"),
    "--split": NAME,
    "--splits": ANY,
    "--start": FROM_0,
    "--steps": NUMBER,
    "--stop": FROM_0,
    "--stream-loss": AMOUNT,
    "--T": SCALE,
    "--temperature": ("0", "-1", "nan", "inf", "x"),
    "--test-list": MISSING,
    "--test-logits": MISSING,
    "--timings": MISSING,
    "--test-share": ("0", "1", "nan", "x"),
    "--every": SCALE,
    "--smooth": NUMBER,
    "--window": SCALE,
    "--threshold": ("-0.1", "1.1", "nan", "x"),
    "--thresholds": AMOUNT,
    "--prefer": ("txt", "", "x"),
    "--times": MISSING,
    "--top": NUMBER,
    "--toy": MISSING,
    "--train-list": MISSING,
    "--unlabelled": MISSING,
    "--train-segments": NUMBER,
    "--vectors": NUMBER,
    "--videos": NUMBER,
    "benchmarks.early_exit --videos": MISSING,
    "--videos-per-class": ("-9", "0", "6", "10", "x"),
    "--views": FROM_0,
    **dict.fromkeys(("benchmarks.sweep --views", "train_i_frame_probe.py --views"), NUMBER),
    "--warmup": FROM_0,
    "--wd": AMOUNT,
    "--weights-dir": MISSING,  # without --pretrained imagenet
    "--workers": FROM_0,
    "--worst-radii": SCALE,
    "--wrong-pct": (*SCALE, "101"),
    **dict.fromkeys(("coviar.check --workers", "coviar.reencode --workers"), NUMBER),
}


@pytest.fixture
def places(toy_data, frozen_toy, synthetic_runs, tmp_path):
    """What stands in the braces of COMMANDS."""
    video = next(toy_data.glob("*/*.mp4"))
    runs = frozen_toy[1].parents[3]
    made = {"data": toy_data, "runs": runs, "video": video, "study": synthetic_runs}
    return {**made, "new": tmp_path / "new"}


@pytest.fixture
def refusal(monkeypatch, capsys):
    """Starts a command, which must end with exit code 2; returns its message."""

    def refusal(command, *words):
        monkeypatch.setattr(sys, "argv", [])
        name, *more = command.split()
        start = [name] if name.endswith(".py") else ["-m", name]
        code = run_script(*start, *more, *words)
        message = capsys.readouterr().err
        assert code == 2 and "Traceback" not in message, (command, words, code, message)
        return message.partition("error: ")[2]

    return refusal


def module_of(command):
    name = command.split()[0]
    if name == "study.report":
        return f"{name}.__main__"
    return name.removesuffix(".py").replace("/", ".")


def parser_of(command):
    name, *more = command.split()
    module = importlib.import_module(module_of(command))
    if name == "dataset_team.lists":
        return module.get_args_parser()._actions[-1].choices[more[0]]
    if name == "training.views":
        return module.get_prune_parser() if more else module.get_fill_parser()
    return module.get_args_parser()


def without(words, option):
    """The words that a command needs, but for this option and its values."""
    if option not in words:
        return words
    place = end = words.index(option)
    while end + 1 < len(words) and not words[end + 1].startswith("--"):
        end += 1
    return words[:place] + words[end + 1 :]


def test_every_command_is_in_the_table():
    rooms = (*ROOMS, "benchmarks")
    paths = [*REPO.glob("*.py"), *(path for room in rooms for path in REPO.glob(f"{room}/**/*.py"))]
    starts = {path for path in paths if "parser() -> argparse.ArgumentParser" in path.read_text()}
    assert starts == {Path(importlib.import_module(module_of(name)).__file__) for name in COMMANDS}
    lists = importlib.import_module("dataset_team.lists").get_args_parser()._actions[-1].choices
    assert {f"dataset_team.lists {name}" for name in lists} <= COMMANDS.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_value_out_of_range_is_refused_by_name(command, places, refusal):
    parser = parser_of(command)
    assert parser.format_help()
    needed = COMMANDS[command].format(**places).split()
    for action in parser._actions:
        is_help = isinstance(action, argparse._HelpAction)
        if not action.option_strings or is_help or action.help == argparse.SUPPRESS:
            continue
        option = action.option_strings[0]
        if action.nargs == 0:
            values = ["=1"]  # a flag takes no value
        elif action.choices:
            values = ["nonsense"]
        else:
            values = VALUES.get(f"{command} {option}", VALUES.get(option))
            assert values is not None, f"test_options.py has no entry for {command} {option}"
        for value in values:
            if action.nargs == 0:
                words = [option + value]
            elif action.nargs in (None, "+"):
                words = [option, value]
            else:
                words = [option, *value.split()]
            message = refusal(command, *without(needed, option), *words)
            itself = value.split(" ")[0]  # such as a path, which needs no option's name beside it
            assert option in message or (len(itself) > 4 and itself in message), (words, message)


class Unreadable(torch.utils.data.Dataset):
    """Its rows raise the errors of the loader."""

    def __len__(self):
        return 1

    def __getitem__(self, row):
        raise VideoError("a.mp4: cut off\nTake it out")


class VideoError(ValueError):
    pass


class Gone(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, row):
        return open("/gone/a.mp4", "rb")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_video_that_is_gone_is_named_by_a_process_of_a_loader_too(capsys, workers):
    loader = torch.utils.data.DataLoader(Gone(), num_workers=workers)
    with pytest.raises(SystemExit), options.refusing(options.make_parser("doc")):
        next(iter(loader))
    error = capsys.readouterr().err
    assert "/gone/a.mp4" in error and "No such file" in error and "Traceback" not in error


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_process_of_a_loader_is_told_in_its_own_words(capsys, workers):
    loader = torch.utils.data.DataLoader(Unreadable(), num_workers=workers)
    with pytest.raises(SystemExit), options.refusing(options.make_parser("doc")):
        next(iter(loader))
    assert capsys.readouterr().err.endswith("error: a.mp4: cut off\nTake it out\n")


def test_every_entry_is_of_an_option():
    known = {
        name
        for command in COMMANDS
        for action in parser_of(command)._actions
        for option in action.option_strings
        for name in (option, f"{command} {option}")
    }
    assert VALUES.keys() <= known


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("train_team_net.py", "--lr-schedule cosine --lr-steps 3", "--lr-steps goes with"),
        ("pretrain.py", "--lr-steps 3 9 --lr-schedule cosine", "--lr-steps goes with"),
        ("train_team_net.py", "--select-on test --heldout 0.15", "--heldout 0.15 holds out"),
        ("train_prog_kd.py", "--select-on test --heldout 0", "--heldout 0 holds out"),
        ("save_logits.py", "--select-on test --heldout 0.3", "--heldout 0.3 holds out"),
        ("training.views", "--select-on test --heldout 0.3", "--heldout 0.3 holds out"),
        ("train_team_net.py", "--heldout 0", "--heldout 0 leaves nothing to choose"),
        (
            "train_prog_kd.py",
            "--select-on last --heldout 0 --schedule weakest:3,strongest",
            "with --heldout 0 there are no videos to rank",
        ),
        ("train_team_net.py", "--warmup 2", "--warmup goes with --lr-schedule cosine"),
        ("train_team_net.py", "--lr-schedule cosine --warmup 30", "does not fit into --epochs 30"),
        ("pretrain.py", "--nesterov --optimizer adamw", "--nesterov goes with --optimizer sgd"),
        ("train_team_net.py", "--fusion sum --stream-loss 1", "--stream-loss: with --fusion sum"),
        ("pretrain.py", "--freeze stem team --fusion sum", "--freeze team: there are no TEAM"),
        ("train_team_net.py", "--is_shift --train-segments 3", "--train-segments: --is_shift"),
        ("train_team_ce.py", "--fusion sum", "with fusion team, the options say sum"),
        ("pretrain.py", "--is_train --evaluate", "--evaluate: not allowed with"),
        ("train_i_frame.py", "--is_train --evaluate", "--evaluate: not allowed with"),
        ("train_team_ce.py", "--dropout 0.3", "with dropout 0.5, the options say 0.3"),
        ("train_i_frame.py", "--is_shift", "with is_shift False, the options say True"),
        ("train_team_ce.py", "--motion-arch resnet34", "the options say resnet34"),
        ("save_logits.py", "--crop-size 64", "with crop_size 32, the options say 64"),
        ("train_prog_kd.py", "--method team_net", "'team_net' is what another script makes"),
        ("train_prog_kd.py", "--method team_ce", "'team_ce' is what another script makes"),
        ("train_prog_kd.py", "--method views", "'views' is what another script makes"),
        ("train_team_ce.py", "--resume --overwrite", "--overwrite: not allowed with"),
        ("training.views", "--parts train --views 0", "--parts train has nothing to compute"),
        ("training.views", "--parts heldout --select-on test", "--parts heldout: there is no"),
        ("wise_team_net_logit.py", "--logits a.pt --method team_ce", "leave out --method"),
    ],
)
def test_options_that_exclude_each_other(command, words, message, places, refusal):
    needed = COMMANDS[command].format(**places).split()
    if "--method" in words:
        needed = without(needed, "--method")
    assert message in refusal(command, *needed, *words.split())


def test_defaults_do_not_count_as_given():
    """Neither the recipe's steps beside a cosine, nor a share held out beside --select-on test."""
    words = "--data-root D --train-list A --test-list B --lr-schedule cosine --select-on test"
    args = parser_of("train_team_net.py").parse_args(words.split())
    resolve.resolve_recipe(args)
    resolve.resolve_heldout(args)
    assert args.lr_steps == [5, 10, 15] and args.heldout == options.HELDOUT
