"""Updates that are captured once as a CUDA graph and replayed, for networks whose kernels take less time than their launches.

An update of a small network is some dozens of kernels of a few microseconds each, and Python takes longer to launch them than the GPU to
compute them. So a whole update, from the forward pass to the new weights, is captured as a CUDA graph. One launch replays the graph. A
replay reads and writes the same memory every time: each batch is copied to the same two tensors, and the learning rate is a tensor.

The first updates are not captured, because they allocate the state of the optimizer and workspaces. Batches of another size, such as the
last batch of an epoch, are not captured either. All these updates use the same kernels and the same learning rate as a replay.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from datasets.base import DataLoader
from foundations.errors import reason
from platforms.platform import get_platform
from training.arithmetic import Arithmetic

Result = TypeVar("Result")
Update = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]  # from examples, labels and their share of a batch to the loss
Capture = Callable[[Callable[[], torch.Tensor]], Callable[[], torch.Tensor]]  # from a computation to a function that repeats it

WARM_UP = 3  # updates before the one that is captured
OPTIMIZERS = (torch.optim.SGD, torch.optim.Adam)  # those whose fused kernels read the learning rate from a tensor


@contextlib.contextmanager
def updates(update: Update, optimizer: torch.optim.Optimizer, loader: DataLoader, computed: Arithmetic) -> Iterator[Update]:
    """The updates of a training run, captured if the device and the run allow it. The block is the training loop.

    If updates are captured, the block runs on a separate stream: a capture must not depend on work of the default stream.

    Args:
        update: takes a step of the optimizer on a batch.
        optimizer: the optimizer of the network.
        loader: the loader of the batches.
        computed: the arithmetic of the run.
    """
    device = get_platform().torch_device
    capture = capture_on(device)
    if capture is None or loader.is_stream or not computed.is_capturable or type(optimizer) not in OPTIMIZERS:
        yield update
        return
    with side_stream(device):
        yield CapturedUpdate(update, optimizer, min(loader.batch_size, len(loader.dataset)), capture)


def capture_on(device: torch.device) -> Capture | None:
    """The function that captures computations on a device; None if the device cannot capture any."""
    return cuda_graph if device.type == "cuda" else None


def cuda_graph(computation: Callable[[], Result]) -> Callable[[], Result]:
    """Captures a computation on the current stream, which must not be the default stream; nothing is computed before the first replay.

    Returns:
        A function that repeats the computation on the current content of the same memory. It overwrites the tensors of the result and
        returns them.

    Raises:
        RuntimeError: something in the computation cannot be captured.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
        result = computation()

    def replay() -> Result:
        graph.replay()
        return result

    return replay


class CapturedUpdate:
    """An update that is captured at the first whole batch after the warm-up. If the capture fails, it prints a note and updates are plain.

    A call returns the loss before the update, in a tensor that the next call may overwrite.

    Args:
        update: takes a step of the optimizer on a batch.
        optimizer: one of OPTIMIZERS; its learning rate is a number except during updates.
        batch_size: the number of examples in a whole batch.
        capture: the function that captures a computation.
    """

    def __init__(self, update: Update, optimizer: torch.optim.Optimizer, batch_size: int, capture: Capture):
        self._update, self._optimizer, self._batch_size = update, optimizer, batch_size
        self._capture: Capture | None = capture
        self._replay: Callable[[], torch.Tensor] | None = None
        self._inputs: tuple[torch.Tensor, torch.Tensor] | None = None
        self._whole_batches = 0
        device = optimizer.param_groups[0]["params"][0].device
        self._rate = torch.zeros(
            (), dtype=torch.float32 if device.type == "cuda" else torch.float64, device=device
        )  # the type that the fused kernels read
        self._rate_value = 0.0

    def __call__(self, examples: torch.Tensor, labels: torch.Tensor, share: float) -> torch.Tensor:
        self._set_rate()
        if len(examples) == self._batch_size:
            self._whole_batches += 1
            if self._replay is None and self._whole_batches > WARM_UP and self._capture is not None:
                self._record(self._capture, examples, labels)
            if self._replay is not None and self._inputs is not None:
                for place, values in zip(self._inputs, (examples, labels), strict=True):
                    place.copy_(values)
                return self._replay()
        return self._with_tensor_rate(examples, labels, share)

    def _set_rate(self) -> None:
        """Writes the learning rate to its tensor if it has changed."""
        rate = self._optimizer.param_groups[0]["lr"]
        if rate != self._rate_value:
            self._rate.fill_(rate)
            self._rate_value = rate

    def _record(self, capture: Capture, examples: torch.Tensor, labels: torch.Tensor) -> None:
        inputs = examples.clone(), labels.clone()
        try:
            self._replay = capture(lambda: self._with_tensor_rate(*inputs, 1.0, capturable=True))
            self._inputs = inputs
        except RuntimeError as error:
            self._capture = None
            print(f"Note: updates cannot be captured ({reason(error)}) and are slower", file=sys.stderr, flush=True)

    def _with_tensor_rate(self, examples: torch.Tensor, labels: torch.Tensor, share: float, **changes: object) -> torch.Tensor:
        """Runs the update with the learning rate as a tensor, and with changes to those settings that the optimizer has."""
        changes["lr"] = self._rate
        before = [dict(group) for group in self._optimizer.param_groups]
        for group in self._optimizer.param_groups:
            group.update({name: value for name, value in changes.items() if name in group})
        try:
            return self._update(examples, labels, share)
        finally:
            for group, settings in zip(self._optimizer.param_groups, before, strict=True):
                group.update(settings)


@contextlib.contextmanager
def side_stream(device: torch.device) -> Iterator[None]:
    """On a GPU, runs the block on a second stream, after earlier work of the default stream and before its later work."""
    if device.type != "cuda":
        yield
        return
    stream = _stream_of(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        torch.cuda.current_stream(device).wait_stream(stream)


@functools.cache
def _stream_of(device: torch.device) -> torch.cuda.Stream:
    """The stream for all runs on a device. Runs share it, and so the memory that the allocator keeps for it."""
    return torch.cuda.Stream(device)
