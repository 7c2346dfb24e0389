"""Batch normalisation over the rows of all ranks (Peng 2018, MegDet, section 3.3): several processes train what one
would. On any device; PyTorch's own, SyncBatchNorm, refuses processors."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm1d):
    """BatchNorm1d of [b, c, ...] whose mean and variance in training are those of all ranks' rows, [world * b, c, ...].

    Every rank must hold the same shape: ranks wait for each other. In one process, and in evaluation, BatchNorm1d.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions after the channels."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        y, mean, var = _Normalised.apply(x, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        if self.track_running_stats:
            self._follow(mean, var, x.numel() // x.shape[1] * dist.get_world_size())
        normalised: Tensor = y
        return normalised

    def _follow(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Running statistics as BatchNorm1d keeps them: of the variance the unbiased estimate."""
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var * (count / (count - 1)), self.momentum)
        self.num_batches_tracked.add_(1)


class _Normalised(torch.autograd.Function):
    """[b, c, ...] normalised by the mean and variance [c] of all ranks, and these.

    Backward each rank sends the gradient of the sum of all ranks' losses by its own rows and parameters, as autograd
    does within a process and as `contrast.gather` does between ranks; DDP takes the mean over ranks.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        own = torch.stack(torch.var_mean(x.float(), dim=_but_channels(x), correction=0))
        every = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(every, own)
        variances, means = torch.stack(every).unbind(dim=1)  # [world, c] each
        mean = means.mean(dim=0)
        var = (variances + (means - mean).square()).mean(dim=0)
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var)
        return F.batch_norm(x, mean, var, weight, bias, eps=eps), mean, var

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, var = ctx.saved_tensors
        upstream = gradient.float()
        standard = F.batch_norm(x, mean, var, eps=ctx.eps).float()
        own = torch.stack([each.sum(dim=_but_channels(x)) for each in (upstream * standard, upstream)])
        every = own.clone()
        dist.all_reduce(every)
        every /= x.numel() // x.shape[1] * dist.get_world_size()
        scale = weight.float() * (var + ctx.eps).rsqrt()
        along = (-1, *(1,) * (x.ndim - 2))
        of_var, of_mean, scale = (each.view(along) for each in (every[0], every[1], scale))
        by_x = scale * (upstream - of_mean - standard * of_var)
        return by_x.to(x.dtype), own[0], own[1], None


def _but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]
