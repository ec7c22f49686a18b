"""Whatever ends a training, it goes on from there to the same end, and says what happened."""

import io
import json
import os
import random
import shutil
import signal
import subprocess
import time

import pytest
import torch

from training import tensor_file
from training.checkpoint import load_checkpoint, load_last, save_last
from training.stopping import REQUEUE, Stopped
from training.tensor_file import BEST, LAST, PREVIOUS

SCRIPT = "train_team_net.py"
RUN = "toy/team_net/split1_seed1"
# Dropout, mixup, momentum, a running mean and an epoch whose last batch is short: all that a run
# that goes on could get wrong.
RECIPE = ["--epochs", 4, "--dropout", 0.3, "--ema", 0.9, "--accumulate", 2, "--resume"]
RECIPE += ["--mixup", 0.4, "--label-smoothing", 0.1, "--photometric", 0.4, "--train-segments", 2]
RECIPE += ["--nesterov", "--depth-lr-scale", 0.5, "--freeze", "mv.layer1", "--partial-bn"]
TIMES = ("clips_per_s", "data_wait_share")  # the only fields that may differ


@pytest.fixture(scope="module")
def unbroken(server, tiny_toy, tmp_path_factory):
    """The folder of a training that nothing stopped."""
    place = tmp_path_factory.mktemp("unbroken")
    code, output = server.run(SCRIPT, *tiny_toy, *RECIPE, "--checkpoint_dir", place)
    assert code == 0, output
    return place / RUN


def everything(folder):
    """All that a run leaves, but for where and how fast it was made."""
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    result = json.loads((folder / "result.json").read_text())
    plain = {
        "log": [{k: v for k, v in line.items() if k not in TIMES} for line in log],
        "result": {k: v for k, v in result.items() if k != "run"},
        "files": sorted(os.listdir(folder)),
    }
    return plain, {name: load_checkpoint(folder / name) for name in (LAST, BEST)}


def assert_same(ours, theirs):
    (plain, checkpoints), (expected, expected_checkpoints) = everything(ours), everything(theirs)
    assert plain == expected
    assert_equal(checkpoints, expected_checkpoints)


def assert_equal(ours, theirs, where=""):
    """Two checkpoints, bit for bit."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key, value in ours.items():
            assert_equal(value, theirs[key], f"{where} {key}")
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    else:
        assert ours == theirs, where


def test_twenty_kills_change_no_bit(server, tiny_toy, unbroken, tmp_path):
    """Two of three trainings also save within their epochs. One that gets through between two
    kills is followed by another in a new folder."""
    rng, kills, folders, latest = random.Random(0), 0, [], 0.3
    while kills < 20:
        place = tmp_path / str(len(folders))
        folders.append(place / RUN)
        command = [SCRIPT, *tiny_toy, *RECIPE, "--checkpoint_dir", place]
        command += ["--save-steps", 1 + len(folders) % 2] if len(folders) % 3 else []
        done = False
        while not done:
            job = server.start(*command)
            if kills < 20:
                time.sleep(rng.uniform(0, latest))
                job.kill(signal.SIGKILL)
            (code,) = job.wait()
            assert code in (0, -signal.SIGKILL), job.output()
            done, kills = code == 0, kills + (code != 0)
            latest *= 0.5 if done else 1.2  # about as fast as this machine is just now
    for folder in folders:
        assert_same(folder, unbroken)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_it_with_a_checkpoint_and_the_code_for_requeue(
    server, tiny_toy, unbroken, tmp_path, number
):
    """Whether it comes in a step, in an evaluation or between."""
    command = [SCRIPT, *tiny_toy, *RECIPE, "--checkpoint_dir", tmp_path]
    rng, reached, latest = random.Random(number), [(0, 0)], 0.2
    for _ in range(12):
        job = server.start(*command)
        job.wait_for(tmp_path / RUN / "lock")
        time.sleep(rng.uniform(latest / 2, latest))
        job.kill(number)
        (code,) = job.wait()
        if code == 0:
            break
        assert code == REQUEUE, job.output()
        said = f"{signal.Signals(number).name}: stopped; the same command with --resume"
        assert said in job.output() and "stale" not in job.output()
        if (tmp_path / RUN / LAST).exists():
            progress = load_checkpoint(tmp_path / RUN / LAST)["progress"]
            reached.append((progress["epoch"], progress["step"]))
        latest *= 1 if len(reached) > 1 and reached[-1] > reached[-2] else 2
    assert reached == sorted(reached)
    assert any(step for _, step in reached)  # within an epoch, not only between two
    assert code == 0 or server.run(*command)[0] == 0
    assert_same(tmp_path / RUN, unbroken)


def test_a_signal_to_the_whole_group_leaves_the_loader_workers_alone(server, tiny_toy, tmp_path):
    """As Slurm sends it; a worker that ends by it would take the training along."""
    command = [SCRIPT, *tiny_toy, *RECIPE, "--epochs", 500, "--workers", 2]
    job = server.start(*command, "--checkpoint_dir", tmp_path, group=True)
    job.wait_for(tmp_path / RUN / LAST)
    os.killpg(job.pids[0], signal.SIGTERM)
    assert job.wait() == [REQUEUE], job.output()
    assert "SIGTERM: stopped" in job.output() and "Traceback" not in job.output()


def test_exits_stop_and_go_on_likewise(server, toy_options, unbroken, tmp_path):
    backbone = ["--pretrained", unbroken / BEST, "--views", 1, "--resume"]
    options = [*toy_options, *backbone, "--epochs", 60]
    command = ["train_team_ce.py", *options, "--cache-dir", tmp_path / "views"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    code, output = server.run(*command, "--checkpoint_dir", whole)
    assert code == 0, output
    job = server.start(*command, "--checkpoint_dir", broken)
    folder = broken / "toy/team_ce/split1_seed1"
    job.wait_for(folder / "log.jsonl")
    job.kill(signal.SIGTERM)
    assert job.wait() == [REQUEUE], job.output()
    assert not (folder / "result.json").exists()
    code, output = server.run(*command, "--checkpoint_dir", broken)
    assert code == 0, output
    assert_same(folder, whole / "toy/team_ce/split1_seed1")


@pytest.fixture(scope="module")
def stopped(server, tiny_toy, tmp_path_factory):
    """Where a training was stopped that has a checkpoint and one before."""
    place = tmp_path_factory.mktemp("stopped")
    command = [SCRIPT, *tiny_toy, *RECIPE, "--checkpoint_dir", place, "--save-steps", 1]
    job = server.start(*command)
    job.wait_for(place / RUN / PREVIOUS)
    job.kill(signal.SIGTERM)
    assert job.wait() == [REQUEUE], job.output()
    return place


@pytest.fixture
def halfway(tiny_toy, stopped, tmp_path):
    """(command to go on, run folder) of such a training."""
    shutil.copytree(stopped, tmp_path / "runs")
    command = [SCRIPT, *tiny_toy, *RECIPE, "--checkpoint_dir", tmp_path / "runs"]
    return command, tmp_path / "runs" / RUN


@pytest.mark.parametrize("damage", ["cut", "flipped bit", "empty", "missing"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(server, unbroken, halfway, damage):
    command, folder = halfway
    content = bytearray((folder / LAST).read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "missing":  # killed between the two renames
        (folder / LAST).unlink()
    else:
        keep = {"cut": len(content) - 100, "flipped bit": None, "empty": 0}[damage]
        (folder / LAST).write_bytes(content[:keep])
    code, output = server.run(*command)
    assert code == 0, output
    assert f"going on from {folder / PREVIOUS}" in output
    assert damage == "missing" or f"{folder / LAST} is no readable file" in output
    assert_same(folder, unbroken)


def test_two_damaged_checkpoints_are_an_error(server, halfway):
    command, folder = halfway
    for name in (LAST, PREVIOUS):
        (folder / name).write_bytes(b"no checkpoint")
    code, output = server.run(*command)
    assert code == 2 and "no readable checkpoint to go on from; --overwrite" in output
    assert "Traceback" not in output


def test_a_file_that_may_not_grow_is_a_full_disk(server, halfway, unbroken):
    command, folder = halfway
    before = load_last(folder)
    code, output = server.run(*command, limit=100_000)
    assert code == 1 and "Traceback" not in output, output
    assert f"File too large while writing {folder}" in output
    assert "which stays as it was; make room, then --resume" in output
    assert_equal(load_last(folder), before)
    assert server.run(*command)[0] == 0
    assert_same(folder, unbroken)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_leaves_the_old_checkpoint(small_disk):
    old = {"w": torch.zeros(100_000)}
    save_last(small_disk, old)
    with pytest.raises(OSError, match="No space left on device while writing .*last.pt, which"):
        save_last(small_disk, {"w": torch.zeros(450_000)})
    assert os.listdir(small_disk) == [LAST]
    assert_equal(load_last(small_disk), old)


def test_a_loss_that_is_not_finite_names_epoch_step_and_clips(server, tiny_toy, tmp_path):
    command = [SCRIPT, *tiny_toy, *RECIPE, "--lr", 1e30, "--checkpoint_dir", tmp_path]
    code, output = server.run(*command)
    assert code == 1 and "Traceback" not in output, output
    assert "in epoch 0 at step 1; clips ['" in output
    assert "start again with --overwrite and a lower --lr" in output
    assert not (tmp_path / RUN / BEST).exists() and BEST not in output


def test_what_an_epoch_before_left_is_named(server, halfway):
    """Not a checkpoint that is not there."""
    command, folder = halfway
    shutil.copy(folder / LAST, folder / BEST)
    checkpoint = load_checkpoint(folder / LAST)
    name = next(key for key in checkpoint["model"] if key.endswith("classifier.weight"))
    checkpoint["model"][name] *= float("inf")
    save_last(folder, checkpoint)
    code, output = server.run(*command)
    assert code == 1 and "Traceback" not in output, output
    assert f"{folder / BEST} is of the best epoch before" in output


@pytest.mark.parametrize("where", ["gradient", "logits"])
def test_a_training_that_diverged_is_no_success(server, tiny_toy, tmp_path, where):
    """Its last step, whose weights no later loss shows: a gradient that overflows while the loss
    is finite, or weights that do."""
    options = ["--batch-size", 1000, "--epochs", 1, "--dropout", 0, "--checkpoint_dir", tmp_path]
    options += ["--classifier-lr-scale", 1, 1]
    options += {"gradient": ["--stream-loss", 1e38], "logits": ["--lr", 1e60]}[where]
    code, output = server.run(SCRIPT, *tiny_toy, *options)
    assert code == 1 and "Traceback" not in output, output
    said = {"gradient": "the norm of the gradient is", "logits": "the logits of the network are"}
    assert said[where] in output and "start again with --overwrite and a lower --lr" in output
    assert not (tmp_path / RUN / "result.json").exists()


def test_a_second_run_in_the_same_folder_is_refused(server, tiny_toy, tmp_path):
    words = [SCRIPT, *tiny_toy, *RECIPE, "--checkpoint_dir", tmp_path]
    command = [word for word in words if word != "--resume"]
    first = server.start(*command)
    first.wait_for(tmp_path / RUN / "lock")
    code, output = server.run(*command, "--overwrite")
    assert code == 2 and f"{tmp_path / RUN} is in use by the process" in output
    assert first.wait() == [0], first.output()


@pytest.mark.parametrize("interrupt", [Stopped("SIGTERM"), KeyboardInterrupt()])
def test_what_interrupts_a_save_is_what_is_raised(tmp_path, monkeypatch, interrupt):
    """torch.save raises RuntimeError in its place, because its zip file is not complete."""

    class Interrupted(io.FileIO):
        def write(self, data):
            if self.tell() > 2000:
                raise interrupt
            return super().write(data)

    monkeypatch.setattr(tensor_file, "open", Interrupted, raising=False)
    with pytest.raises(type(interrupt)):
        tensor_file.save_tensors(tmp_path / "best.pt", {"x": torch.zeros(1000)})
    assert not list(tmp_path.iterdir())
