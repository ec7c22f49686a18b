"""BatchNorm over the clips of all processes; PyTorch's own does not run on the CPU."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn

from training import distributed


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """As nn.BatchNorm2d, but in training the mean and variance are those of all processes' rows.

    Statistics are float32 whatever the precision. Parameters and buffers have the names and
    meaning of nn.BatchNorm2d's, so the checkpoints of both are alike.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or distributed.world_size() == 1:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            values = x.float()
            count = values.new_tensor([values.numel() / values.shape[1]])
            sums = torch.cat([values.sum((0, 2, 3)), count])
            total, count = SumOverProcesses.apply(sums).split([len(self.weight), 1])
            mean = total / count
            # From the mean: E[x^2] - E[x]^2 loses all digits where the mean is large.
            centred = values - mean[:, None, None]
            variance = SumOverProcesses.apply(centred.square().sum((0, 2, 3))) / count
            self._follow(mean, variance * count / (count - 1))
            scale = self.weight * (variance + self.eps).rsqrt()
            return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        """Update the running statistics, as nn.BatchNorm2d does with its default momentum."""
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class SumOverProcesses(torch.autograd.Function):
    """The sum of all processes' tensors; gradients are summed in the same way."""

    @staticmethod
    def forward(ctx: object, values: torch.Tensor) -> torch.Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient


def use_synced_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with every nn.BatchNorm2d synced: by PyTorch on CUDA, by ours on the CPU."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm2d
    return model
