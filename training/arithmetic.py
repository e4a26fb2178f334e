"""The number format that a training step computes in: `--precision`, and `--apex_fp16`, which is fp16 under its older name.

Weights, inputs, losses and evaluations are float32, or float64 with `--precision float64`. In 16 bits the forward and the backward pass
use torch's mixed precision, which keeps sensitive operations in float32. fp16 has few exponent bits: the loss is scaled so that
gradients do not underflow, and an update whose gradients overflow is skipped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from foundations.errors import ConfigError
from foundations.training_hparams import PRECISIONS, TrainingHparams
from models.base import Model
from platforms.platform import get_platform

SIXTEEN_BITS = {"bf16": torch.bfloat16, "fp16": torch.float16}
TENSOR_CORES = ("tf32", "bf16", "fp16")  # formats that GPUs multiply in tensor cores, whose convolutions read channels last
CAPTURABLE = ("float32", "tf32", "bf16")  # formats of updates that need nothing from the CPU; rates of captured updates are float32
TF32_CAPABILITY = (8, 0)  # of NVIDIA GPUs that have tf32


class MixedPrecision(nn.Module):
    """A network whose layers compute in 16 bits; its outputs are in the format of its inputs."""

    def __init__(self, network: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, self.dtype):
            outputs = self.network(x)
        return outputs.to(x.dtype)


class Arithmetic:
    """The forward pass and the loss scaling of a training run.

    Args:
        training_hparams: how to train.
        model: the model, on the platform's device and in the stored precision.
        joint: whether all processes of the job train the model together.

    Attributes:
        forward: the model's forward pass, in the number format of the arithmetic and on all devices of the platform.
        scaler: scales the losses of fp16; disabled for all other formats.
        is_capturable: whether an update can be captured: it uses one device and needs nothing from the CPU.
    """

    def __init__(self, training_hparams: TrainingHparams, model: Model, joint: bool = False):
        name = training_hparams.arithmetic
        forward = MixedPrecision(model, SIXTEEN_BITS[name]) if name in SIXTEEN_BITS else model
        self.forward = get_platform().wrap_distributed(forward) if joint else data_parallel(model, forward)
        self.is_capturable = name in CAPTURABLE and self.forward is forward
        self.scaler = torch.amp.GradScaler(get_platform().torch_device.type, enabled=name == "fp16")

    def update(self, optimizer: torch.optim.Optimizer, objective) -> torch.Tensor:
        """Takes a step of an optimizer on an objective (`training.train.Objective`) and returns the loss before it."""
        if not self.scaler.is_enabled():
            return optimizer.step(objective)
        loss = objective()
        self.scaler.step(optimizer)
        self.scaler.update()
        return loss


def data_parallel(model: Model, forward: nn.Module | None = None) -> nn.Module:
    """The forward pass of a model, or a variant of it, on all devices of the platform.

    Only convolutional networks use several devices: for fully connected ones, copying the batches takes longer than computing.
    """
    forward = model if forward is None else forward
    return forward if model.channels is None else get_platform().data_parallel(forward)


def check(training_hparams: TrainingHparams) -> None:
    """Raises a ConfigError if the platform's device does not support the number format."""
    if training_hparams.arithmetic == "tf32" and not _has_tf32(get_platform().torch_device):
        others = ", ".join(name for name in PRECISIONS if name != "tf32")
        raise ConfigError(
            f"--precision: tf32 needs an NVIDIA GPU of the Ampere generation or later, and this machine has none; valid here: {others}"
        )


def _has_tf32(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= TF32_CAPABILITY


@contextlib.contextmanager
def channels_last(training_hparams: TrainingHparams, model: Model) -> Iterator[None]:
    """Within the block, stores the kernels of a convolutional network channels last, if a GPU uses its tensor cores for them."""
    on_gpu = next(model.parameters()).device.type == "cuda"
    wanted = on_gpu and model.channels is not None and training_hparams.arithmetic in TENSOR_CORES
    if wanted:
        model.to(memory_format=torch.channels_last)
    try:
        yield
    finally:
        if wanted:
            model.to(memory_format=torch.contiguous_format)


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Within the block, allows or forbids tf32 for float32 products on GPUs. (torch's default allows it for convolutions only.)"""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before  # pyright: ignore[reportAttributeAccessIssue]
