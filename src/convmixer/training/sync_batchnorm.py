"""BatchNorm over the images of all processes, also where torch's own refuses: on the CPU.

The sums of a batch are all-reduced and the gradient flows through that reduction, so that several processes compute
what one with the whole batch would, up to the order of sums.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn


class _AllReduce(torch.autograd.Function):
    """Sum over processes; the gradient of a sum over processes is again the sum over processes."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        total = grads[0].clone()
        dist.all_reduce(total)
        return total


class SyncBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d with the statistics of all processes in training; parameters and buffers are the same."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> the same shape."""
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        x = input.float()
        count = torch.full((1,), x.numel() / x.shape[1], device=x.device)
        sums = _AllReduce.apply(torch.cat([x.sum((0, 2, 3)), count]))
        total, mean = sums[-1], sums[:-1] / sums[-1]
        # Squares about the common mean: the difference of two large sums would lose the variance.
        centred = x - mean[:, None, None]
        var = _AllReduce.apply((centred * centred).sum((0, 2, 3))) / total
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (total / (total - 1)), self.momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)


def synchronise(model: nn.Module, device: torch.device) -> None:
    """Make every BatchNorm2d of the model take the statistics of all processes, in place; names stay as they are."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is not nn.BatchNorm2d:
                continue
            if device.type == "cuda":
                setattr(parent, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
            else:
                child.__class__ = SyncBatchNorm2d
