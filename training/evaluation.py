"""Loss and accuracy of a model on a dataset."""

from __future__ import annotations

import torch

from datasets.base import DataLoader
from models.base import Model
from platforms.platform import get_platform
from training.arithmetic import data_parallel
from training.sharing import StackShard

MIN_BATCH = 1024  # examples in a batch of an evaluation, where training uses fewer


@torch.no_grad()
def evaluate(model: Model, loader: DataLoader) -> dict[str, float | list[float]]:
    """Means over all examples of a loader, in the number format of the weights.

    Returns:
        `loss`; `accuracy` in [0, 1] where the labels are classes; for students `individual_losses` (a list of N), with `loss` and
        `accuracy` their means over the students.
    """
    model.eval()
    device = next(model.parameters()).device
    forward = data_parallel(model)
    totals: dict[str, torch.Tensor] = {}
    examples = 0
    if get_platform().world_size > 1 and not isinstance(model, StackShard):
        loader = loader.sharded(get_platform().rank, get_platform().world_size)
    for inputs, labels in loader.in_order(_batch_size(model, loader, device)):
        inputs, labels = inputs.to(device), labels.to(device)
        outputs = forward(inputs)
        for name, value in _measure(model, outputs, labels).items():
            total = (
                value.double() * len(labels) if len(labels) else torch.zeros_like(value, dtype=torch.float64)
            )  # the mean of no examples is NaN
            totals[name] = totals[name] + total if name in totals else total + 0.0  # 0.0 turns -0.0 into 0.0
        examples += len(labels)
    return {name: value.tolist() for name, value in _means(model, totals, examples).items()}


def _means(model: Model, totals: dict[str, torch.Tensor], examples: int) -> dict[str, torch.Tensor]:
    """The means over the examples, from the totals of all processes: each has some of the examples, or some of the networks."""
    if isinstance(model, StackShard):
        shares = {name: total / examples for name, total in totals.items()}
        return {
            name: model.gathered(value) if value.dim() else get_platform().all_reduce_sum(value * model.fraction)
            for name, value in shares.items()
        }
    count: torch.Tensor | int = examples
    if get_platform().world_size > 1:
        count = get_platform().all_reduce_sum(torch.tensor(examples))
    return {name: get_platform().all_reduce_sum(total) / count for name, total in totals.items()}


def _batch_size(model: Model, loader: DataLoader, device: torch.device) -> int:
    """Examples in a batch: more than in training, except for convolutions on a CPU, which are faster if a batch fits its caches."""
    if loader.is_stream or (model.channels is not None and device.type == "cpu"):
        return loader.batch_size
    return max(loader.batch_size, MIN_BATCH)


def _measure(model: Model, outputs: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """The metrics of a batch."""
    measured = {}
    individual_losses = getattr(model, "individual_losses", None)
    if individual_losses is not None:
        losses = individual_losses(outputs, labels)
        measured |= {"loss": losses.mean(), "individual_losses": losses}
    else:
        measured["loss"] = model.loss_criterion(outputs, labels)
    if not labels.is_floating_point():
        measured["accuracy"] = (outputs.argmax(-1) == labels).double().mean()
    return measured
