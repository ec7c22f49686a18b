"""Several processes as one: the same losses, the same evaluation, and one end for all."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from early_exit.logits import LogitsFile
from tests.conftest import REPO
from training import distributed
from training.checkpoint import load_checkpoint
from training.loading import TrainBatches, epoch_order
from training.synced_norm import use_synced_norm
from training.tensor_file import BEST, LAST

SCRIPT = "train_team_net.py"
RUN = "toy/team_net/split1_seed1"
# At the default rate of .02 this tiny network diverges, and rounding grows to 1e-2 in 12 steps.
RECIPE = ["--dropout", 0, "--epochs", 3, "--ema", 0.5, "--lr", 0.0005]


@pytest.fixture
def ranks(monkeypatch):
    """Sets (rank, world size) as if this process had been started so."""

    def become(rank, world_size):
        monkeypatch.setattr(distributed, "rank", lambda: rank)
        monkeypatch.setattr(distributed, "world_size", lambda: world_size)

    return become


def test_plain_python_is_one_process():
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.any_of(True, False) == (True, False)
    assert distributed.sum_of(1.5) == (1.5,)
    assert distributed.on_main(max, 1, 2) == distributed.main_first(max, 1, 2) == 2
    assert distributed.own_rows(5, 2).tolist() == [0, 1, 2, 3, 4]


def test_rows_come_back_in_order_and_each_once():
    places = torch.tensor([2, 0, 1])
    (rows,) = distributed.gather_rows((torch.tensor([20, 0, 10]),), places, 3)
    assert rows.tolist() == [0, 10, 20]
    for wrong in ([0, 0, 1], [0, 1, 3]):
        with pytest.raises(RuntimeError, match="1 stay empty"):
            distributed.gather_rows((rows,), torch.tensor(wrong), 3)
    with pytest.raises(RuntimeError, match="2 rows for 3 places"):
        distributed.gather_rows((rows[:2],), torch.tensor([0, 1]), 3)


@pytest.mark.parametrize(("size", "batch_size", "world_size"), [(11, 2, 3), (8, 4, 2), (3, 4, 2)])
def test_evaluation_is_divided_by_whole_batches(ranks, size, batch_size, world_size):
    batches = []
    for rank in range(world_size):
        ranks(rank, world_size)
        rows = distributed.own_rows(size, batch_size)
        batches += [rows[i : i + batch_size].tolist() for i in range(0, len(rows), batch_size)]
    together = [list(range(i, min(i + batch_size, size))) for i in range(0, size, batch_size)]
    assert sorted(batches) == together


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("passes", [1, 2, 5])
def test_shares_weigh_every_clip_of_a_batch_alike(ranks, world_size, passes):
    """Mean over processes of the sums over passes of weight times mean loss is the batch's mean."""
    size, batch_size = 23, 6  # last batch: 5 clips, or 2 of the second size
    losses = np.random.default_rng(0).random(size)
    for rows_in_set in (size, size - 3):
        for step in range(4):
            total, count = 0.0, 0.0
            for rank in range(world_size):
                ranks(rank, world_size)
                batches = TrainBatches(rows_in_set, batch_size, passes, seed=1)
                shares = batches.shares(step)
                assert all(len(share.rows) for share in shares)
                total += sum(share.weight * losses[share.rows].mean() for share in shares)
                count += sum(share.count for share in shares)
            rows = epoch_order(rows_in_set, 1, 0)[step * batch_size : (step + 1) * batch_size]
            assert total / world_size == pytest.approx(losses[rows].mean())
            assert count == pytest.approx(len(rows))


def test_keys_are_those_of_the_shares_from_the_first_step_on(ranks):
    ranks(1, 2)
    batches = TrainBatches(23, 6, 2, seed=1)
    batches.view, batches.first_step = 4, 2
    keys = [
        [(int(row), 4) for row in share.rows] for step in (2, 3) for share in batches.shares(step)
    ]
    assert list(batches) == keys


def read_log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(server, tiny_toy, tmp_path_factory):
    """Run folders of the same training: alone, in two passes, by two processes, and synced."""
    ways = {
        "alone": (1, []),
        "two passes": (1, ["--accumulate", 2]),
        "two processes": (2, []),
        "synced": (2, ["--sync-bn"]),
    }
    folders = {}
    for way, (processes, options) in ways.items():
        place = tmp_path_factory.mktemp("trained")
        command = [SCRIPT, *tiny_toy, *RECIPE, *options, "--checkpoint_dir", place]
        code, output = server.run(*command, processes=processes)
        assert code == 0, output
        folders[way] = (place / RUN, output)
    return folders


# Sums are rounded in another order; a float32 has a relative error of 6e-8, and a step of training
# magnifies differences. 12 steps were seen to stay within 5e-6; the ways differ by 2e-3.
TOLERANCE = 1e-4


@pytest.mark.parametrize(("ours", "theirs"), [("two processes", "two passes"), ("synced", "alone")])
def test_two_processes_train_as_one_does(trained, ours, theirs):
    """Without synced BatchNorm each process normalises its half of a batch, as a pass does."""
    losses = {way: [line["loss"] for line in read_log(trained[way][0])] for way in trained}
    assert losses[ours] == pytest.approx(losses[theirs], rel=TOLERANCE)
    assert losses["alone"] != pytest.approx(losses["two passes"], rel=10 * TOLERANCE)
    weights = [load_checkpoint(trained[way][0] / LAST)["model"] for way in (ours, theirs)]
    for key in weights[0]:
        if ("running" in key or "num_batches" in key) and ours != "synced":
            continue  # of the main process's clips there, of all clips here
        torch.testing.assert_close(weights[0][key], weights[1][key], rtol=1e-3, atol=1e-4)


def test_only_the_main_process_prints_and_logs(trained):
    folder, output = trained["two processes"]
    assert output.count("epoch 0 ") == output.count("result: ") == 1
    assert [line["epoch"] for line in read_log(folder)] == [0, 1, 2]


@pytest.mark.parametrize("views", [[], ["--clips", 2, "--crops", 3]])
def test_two_processes_evaluate_exactly_as_one(server, tiny_toy, toy_data, trained, views):
    weights = trained["alone"][0] / BEST
    results = []
    for processes in (1, 2):
        command = [SCRIPT, *tiny_toy, *views, "--evaluate", "--pretrained", weights]
        code, output = server.run(*command, processes=processes)
        assert code == 0, output
        # not the last line: torch 2.4 warns about itself on stderr
        results += [line for line in output.splitlines() if line.startswith("result: ")]
    assert results[0] == results[1]
    result = json.loads(results[0].removeprefix("result: "))
    assert result["test_videos"] == len((toy_data / "test.txt").read_text().splitlines())


@pytest.mark.parametrize(("mean", "deviation"), [(1, 2), (300, 0.1), (-1000, 1), (300, 0)])
def test_synced_norm_is_batch_norm_over_all(monkeypatch, mean, deviation):
    """Alone with a sum over processes that pretends a second one had the same rows: forward,
    gradients and running statistics of the doubled batch, also where deviations are small beside
    the mean."""
    torch.manual_seed(0)
    plain, synced = torch.nn.BatchNorm2d(3).double(), torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    use_synced_norm(synced, torch.device("cpu"))
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr("training.synced_norm.dist.all_reduce", lambda values: values.mul_(2))
    x = torch.randn(4, 3, 5, 5) * deviation + mean
    mine, theirs = x.clone().requires_grad_(), torch.cat([x, x]).double().requires_grad_()
    slope = torch.randn_like(x)
    ours, expected = synced(mine), plain(theirs)
    (ours * slope).sum().backward()
    (expected * torch.cat([slope, slope])).sum().backward()
    # A float32 mean is off by some 2^-24 of itself, which normalising divides by the deviation.
    tolerance = 1e-5 + 2**-22 * abs(mean) / max(deviation, plain.eps**0.5)
    near = {"rtol": tolerance, "atol": tolerance, "check_dtype": False}
    torch.testing.assert_close(ours, expected[:4], **near)
    slopes = mine.grad * deviation, theirs.grad[:4] * deviation  # of x in deviations
    torch.testing.assert_close(*slopes, **near)
    for name, value in plain.state_dict().items():
        followed = synced.state_dict()[f"0.{name}"].to(value.dtype)
        torch.testing.assert_close(followed, value, rtol=1e-5, atol=1e-6)


def test_a_killed_process_ends_the_others(server, tiny_toy, tmp_path):
    command = [SCRIPT, *tiny_toy, *RECIPE, "--epochs", 500, "--checkpoint_dir", tmp_path]
    job = server.start(*command, processes=2)
    job.wait_for(tmp_path / RUN / LAST)
    start = time.monotonic()
    job.kill(signal.SIGKILL, rank=1)
    main, other = job.wait()
    assert main not in (0, 75) and other == -signal.SIGKILL
    assert time.monotonic() - start < 30
    assert "another process of this training is gone" in job.output()


def test_a_signal_to_one_process_stops_all_at_one_step(server, tiny_toy, tmp_path):
    command = [SCRIPT, *tiny_toy, *RECIPE, "--checkpoint_dir", tmp_path]
    job = server.start(*command, "--epochs", 500, "--eval-freq", 500, processes=2)
    job.wait_for(tmp_path / RUN / LAST)
    job.kill(signal.SIGTERM, rank=1)
    assert job.wait() == [75, 75], job.output()
    assert "SIGTERM: stopped" in job.output()
    assert "signal to another process: stopped" in job.output()


def test_a_loss_that_is_not_finite_ends_all(server, tiny_toy, tmp_path):
    command = [SCRIPT, *tiny_toy, *RECIPE, "--lr", 1e30, "--checkpoint_dir", tmp_path]
    job = server.start(*command, processes=2)
    assert job.wait() == [1, 1]
    assert "in epoch 0 at step 1; clips ['" in job.output()


def test_exits_are_trained_by_one_process(server, toy_options):
    code, output = server.run("train_team_ce.py", *toy_options, processes=2)
    assert code == 2 and "one process trains exits" in output


def test_batches_too_small_to_divide_are_refused(server, tiny_toy, tmp_path):
    command = [SCRIPT, *tiny_toy, *RECIPE, "--accumulate", 4, "--checkpoint_dir", tmp_path]
    code, output = server.run(*command, processes=2)
    assert code == 2 and "--batch-size 6 cannot be divided into --accumulate 4" in output


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(word) for word in file.read().split()]


def test_torchrun_ends_with_a_killed_process_and_resumes(server, tiny_toy, trained, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    torchrun += ["--standalone", "tests/script_server.py"]
    command = [SCRIPT, *tiny_toy, *RECIPE, "--checkpoint_dir", tmp_path, "--resume"]
    process = subprocess.Popen(
        [*torchrun, *map(str, command), "--save-steps", "1"],
        cwd=REPO,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    last = tmp_path / RUN / LAST
    end = time.monotonic() + 120
    while not last.exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    os.kill(children(process.pid)[1], signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "exitcode  : -9" in output
    assert not (tmp_path / RUN / "result.json").exists()
    code, output = server.run(*command, processes=2)
    assert code == 0, output
    reference = trained["two processes"][0]
    ours, theirs = (
        load_checkpoint(folder / LAST)["model"] for folder in (tmp_path / RUN, reference)
    )
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key


def test_two_processes_save_the_logits_of_one(server, toy_options, trained, tmp_path):
    options = [*toy_options, "--pretrained", trained["alone"][0] / BEST, "--views", 2]
    place = ["--checkpoint_dir", tmp_path / "exits"]
    code, output = server.run("train_team_ce.py", *options, *place, "--epochs", 2)
    assert code == 0, output
    saved = []
    for processes in (1, 2):
        bank = ["--cache-dir", tmp_path / f"bank{processes}", "--method", "team_ce"]
        code, output = server.run("save_logits.py", *options, *place, *bank, processes=processes)
        assert code == 0 and output.count("result: ") == 1, output
        saved.append(LogitsFile.load(tmp_path / "exits/toy/team_ce/split1_seed1/logits.pt").parts)
    for name, part in saved[0].items():
        assert part.names == saved[1][name].names
        assert np.array_equal(part.logits, saved[1][name].logits), name
