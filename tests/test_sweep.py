"""Training exits from a ready bank: exact after a kill, and the benchmark that measures it."""

import argparse
import contextlib
import csv
import importlib
import io
import json

import pytest
import torch

import train_i_frame
from benchmarks import sweep
from training import exits, views
from training.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("tiny_resnets")


def train(options, *more):
    parser = train_i_frame.get_args_parser()
    train_i_frame.main(parser.parse_args([*options, *map(str, more)]), parser)


def test_killed_exits_go_on_to_the_same_weights(frozen_toy, tmp_path, monkeypatch):
    """With a checkpoint every other epoch; the epochs after the last one are done again."""
    options, best = frozen_toy
    place = ["--pretrained", best, "--epochs", 6, "--views", 2, "--cache-dir", tmp_path / "bank"]
    train(options, *place, "--checkpoint_dir", tmp_path / "unbroken")

    seconds = iter(range(0, 1000, 3))
    monkeypatch.setattr(exits.time, "monotonic", lambda: next(seconds))
    train_one_epoch, epochs = exits.train_heads_one_epoch, []

    def train_until_killed(*args):
        epochs.append(args[-1])
        if len(epochs) == 6:
            raise SystemExit("killed")
        return train_one_epoch(*args)

    monkeypatch.setattr(exits, "train_heads_one_epoch", train_until_killed)
    broken = [*place, "--checkpoint_dir", tmp_path / "broken", "--resume"]
    with pytest.raises(SystemExit, match="killed"):
        train(options, *broken)
    folder = tmp_path / "broken/toy/i_frame/split1_seed1"
    saved = load_checkpoint(folder / "last.pt")["epoch"]
    assert saved < 4  # epoch 4 was trained and logged, but not saved
    train(options, *broken)
    assert epochs == [0, 1, 2, 3, 4, 5, *range(saved + 1, 6)]
    unbroken = tmp_path / "unbroken/toy/i_frame/split1_seed1"
    for name in ("last.pt", "best.pt"):
        ours, theirs = (load_checkpoint(run / name)["heads"] for run in (folder, unbroken))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert (folder / "log.jsonl").read_text() == (unbroken / "log.jsonl").read_text()


def run_here(command, threads):
    """As sweep.run_script, in this process: the same commands and result lines in less time."""
    assert threads >= 1
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        if command[:2] == ["-m", "training.views"]:
            args = views.get_fill_parser().parse_args(command[2:])
            views.print_result(views.fill(args))
        else:
            module = importlib.import_module(command[0].removesuffix(".py"))
            parser = module.get_args_parser()
            module.main(parser.parse_args(command[1:]), parser)
    return json.loads(out.getvalue().splitlines()[-1].removeprefix("result: "))


class Here:
    map = map


def run_sweep(frozen_toy, monkeypatch, *more):
    options, best = frozen_toy
    monkeypatch.setattr(sweep, "run_script", run_here)
    # A training takes signals, which Python allows in the main thread only.
    monkeypatch.setattr(sweep, "ThreadPoolExecutor", lambda jobs: contextlib.nullcontext(Here))
    parser = sweep.get_args_parser()
    own = ["--pretrained", best, "--seeds", 1, 2, "--exits", 1, 3, "--epochs", 3, "--jobs", 1]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        sweep.main(parser.parse_known_args([*map(str, (*own, *more)), *options]), parser)
    print(out.getvalue())
    return json.loads(out.getvalue().splitlines()[-1])


def test_sweep_counts_what_a_bank_saves(frozen_toy, monkeypatch, tmp_path, capsys):
    arguments = ["--out", tmp_path / "out", "--views", 2, "--methods", "team_ce", "i_frame"]
    result = run_sweep(frozen_toy, monkeypatch, *arguments)
    assert result["runs"] == 4
    n = result["videos"]
    assert result["clips_fill"] == 2 * n["train"] + n["heldout"] + n["test"]
    passed = 3 * (n["train"] + n["heldout"]) + n["test"]  # in each of four runs of three epochs
    assert result["clips_without_bank"] == 4 * passed
    without = result["clips_without_bank"] * result["ms_per_clip"] / 1e3
    assert result["seconds_without_bank"] == pytest.approx(without, rel=0.01, abs=0.1)  # rounded
    ratio = without / (result["seconds_fill"] + result["seconds_runs"])
    assert result["ratio_with_filling"] == pytest.approx(ratio, rel=0.01, abs=0.1)
    assert result["ratio_ready_bank"] >= result["ratio_with_filling"]
    with pytest.raises(SystemExit):
        run_sweep(frozen_toy, monkeypatch, *arguments)
    assert "is not empty" in capsys.readouterr().err


def test_comparison_of_numbers_of_views(frozen_toy, monkeypatch, tmp_path, capsys):
    """One view and fresh ones differ; fresh ones are as many as epochs."""
    arguments = ["--out", tmp_path, "--methods", "i_frame", "--compare-views", 1, 3, "fresh"]
    result = run_sweep(frozen_toy, monkeypatch, *arguments)
    with open(tmp_path / "views.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 2 * 2 * 2  # views, seeds, exits, parts
    value = {
        (row["views"], row["seed"], row["exit"], row["part"]): float(row["top1_pct"])
        for row in rows
    }
    assert all(value[("3", *key)] == value[("fresh", *key)] for _, *key in value)
    heads = [
        load_checkpoint(tmp_path / f"views_{v}/toy/i_frame/split1_seed2/best.pt")["heads"]
        for v in ("1", "fresh")
    ]
    assert not torch.equal(heads[0]["1.weight"], heads[1]["1.weight"])
    means = [
        sum(value["1", seed, exit_, "test"] for exit_ in ("exit1", "exit3")) / 2
        for seed in ("1", "2")
    ]
    mean, std = result["test_top1_pct_mean_std"]["1"]["i_frame"]
    assert mean == pytest.approx(sum(means) / 2, abs=0.01)  # printed to 0.01
    assert std == pytest.approx(abs(means[0] - means[1]) / 2**0.5, abs=0.01)
    assert "i_frame         fresh views: test top-1" in capsys.readouterr().out


def test_unknown_options_are_refused_before_anything_runs(
    frozen_toy, monkeypatch, tmp_path, capsys
):
    with pytest.raises(SystemExit):
        run_sweep(frozen_toy, monkeypatch, "--out", tmp_path / "out", "--no-such-option")
    assert "--no-such-option" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_number_of_views():
    assert [sweep.number_of_views(word) for word in ("4", "fresh")] == [4, "fresh"]
    with pytest.raises((argparse.ArgumentTypeError, ValueError)):
        sweep.number_of_views("some")
