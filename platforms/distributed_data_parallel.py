"""Data-parallel networks: each process has a part of each batch, and the result equals that of one process with the whole batch.

This module has no `from __future__ import annotations`: torch checks the annotations of communication hooks, which must not be strings.
"""

import warnings

import torch
from torch import distributed, nn
from torch.distributed import GradBucket  # pyright: ignore[reportPrivateImportUsage]

AXES = (0, 2, 3)  # the axes over which BatchNorm averages images [B, C, H, W]


def wrap_distributed(network: nn.Module) -> nn.Module:
    """The forward pass of a network in training. After the backward pass gradients are the sums over the processes.

    The network must be on the device of the process, in its final number format. In training BatchNorm layers use the statistics of whole
    batches. Their buffers are then equal in all processes and need no broadcast.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = BatchNorm  # the same object, so that the network and its optimizer still refer to it
    with warnings.catch_warnings():  # torch warns that it will rename the argument
        warnings.simplefilter("ignore", FutureWarning)
        parallel = nn.parallel.DistributedDataParallel(network, broadcast_buffers=False)
    parallel.register_comm_hook(None, _sum)
    return parallel


def _sum(state: None, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    """The communication hook that sums gradients. By default torch averages them."""
    return distributed.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda future: future.value()[0])


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm over whole batches of which each process has a part `[b, C, H, W]`, on CPUs and on GPUs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        assert self.num_batches_tracked is not None and self.running_mean is not None and self.running_var is not None
        assert self.momentum is not None
        y, mean, variance, count = _Normalised.apply(x, self.weight, self.bias, self.eps)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            unbiased = variance * count / (count - 1).clamp_min(1)  # `training.batches` refuses batches with a single value
            self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)
        return y


class _Normalised(torch.autograd.Function):
    """`weight * (x - mean) / sqrt(variance + eps) + bias` with the moments of whole batches. Also returns mean, variance and count."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> tuple[torch.Tensor, ...]:
        exact = x.to(weight.dtype)  # more digits than a 16-bit x has
        mean, variance, count = _moments(exact)
        inverse = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, inverse, count)
        ctx.mark_non_differentiable(mean, variance, count)
        y = (exact - _per_channel(mean)) * _per_channel(inverse * weight) + _per_channel(bias)
        return y.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx, gradient: torch.Tensor, *_) -> tuple[torch.Tensor | None, ...]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        slope = gradient.to(weight.dtype)
        normal = (x.to(weight.dtype) - _per_channel(mean)) * _per_channel(inverse)
        own = torch.stack([(slope * normal).sum(AXES), slope.sum(AXES)])
        along, level = sums = own / count
        distributed.all_reduce(sums)
        back = _per_channel(inverse * weight) * (slope - _per_channel(level) - normal * _per_channel(along))
        return back.to(x.dtype), *own, None


def _moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean `[C]`, variance `[C]` and number of values `[1]` over the parts of all processes (Chan, Golub & LeVeque 1979)."""
    count = x.new_full((1,), x.numel() / x.shape[1])
    mean = x.sum(AXES) / count.clamp_min(1)  # the mean of an empty part is 0
    own = torch.cat([count, mean, (x - _per_channel(mean)).square().sum(AXES)])
    parts = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, own)
    counts, means, squares = torch.stack(parts).split([1, x.shape[1], x.shape[1]], 1)
    whole = counts.sum(0)
    mean = (counts * means).sum(0) / whole
    return mean, (squares + counts * (means - mean).square()).sum(0) / whole, whole


def _per_channel(values: torch.Tensor) -> torch.Tensor:
    """Values `[C]` of channels, reshaped to `[C, 1, 1]` to broadcast over images."""
    return values.view(-1, 1, 1)
