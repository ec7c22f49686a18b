"""The benchmark of the training step runs at a tiny size, and compares losses rightly."""

import pytest
import torch

from benchmarks import train_step
from tests.calls import printed, refused

TINY = ["--crop-size", "32", "--num_segments", "2", "--batch-size", "2", "--repeats", "1"]


def test_ratios_are_to_the_plain_step(capsys):
    result = printed(capsys, train_step, *TINY)
    assert ("bf16" in result) == result["bf16_arithmetic"]
    for name in {"plain", "fp32", "bf16"} & result.keys():
        ratio = result["plain"]["ms"] / result[name]["ms"]
        assert result[name]["ratio_to_plain"] == pytest.approx(ratio, abs=0.02)  # both rounded


def test_losses_are_compared_in_deviations_of_the_difference():
    fp32 = torch.tensor([[1.0, 5.0], [3.0, 7.0]])  # means 2 and 6, variance 2
    bf16 = torch.tensor([[2.0, 6.0], [4.0, 8.0]])
    result = train_step.compare_losses(fp32, bf16)
    assert result["fp32_loss"] == [2, 6] and result["bf16_loss"] == [3, 7]
    assert result["std_of_difference"] == pytest.approx([2**0.5] * 2, abs=1e-3)
    assert result["largest_difference_in_std"] == pytest.approx(0.71)


def test_toy_data_must_be_there(tmp_path, capsys):
    assert "dataset_team.toy" in refused(capsys, train_step, *TINY, "--toy", tmp_path)
