"""How good a model is on a dataset."""

from __future__ import annotations

import torch

from datasets.base import DataLoader
from models.base import Model
from platforms.platform import get_platform
from training.arithmetic import data_parallel
from training.sharing import Share

LEAST_BATCH = 1024  # examples at a time, where training takes fewer


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
    totals: dict[str, torch.Tensor | float] = {}
    examples = 0
    if get_platform().world_size > 1 and not isinstance(model, Share):
        loader = loader.sharded(get_platform().rank, get_platform().world_size)
    for inputs, labels in loader.in_order(_batch_size(model, loader, device)):
        inputs, labels = inputs.to(device), labels.to(device)
        outputs = forward(inputs)
        for name, value in _measure(model, outputs, labels).items():
            total = value.double() * len(labels) if len(labels) else torch.zeros_like(value, dtype=torch.float64)  # the mean of nothing
            totals[name] = totals.get(name, 0.0) + total
        examples += len(labels)
    return {name: value.tolist() for name, value in _means(model, totals, examples).items()}


def _means(model: Model, totals: dict[str, torch.Tensor], examples: int) -> dict[str, torch.Tensor]:
    """The means of what all processes of the job have added up: on their examples, or of their networks on all examples."""
    if isinstance(model, Share):
        shares = {name: total / examples for name, total in totals.items()}
        return {
            name: model.gathered(value) if value.dim() else get_platform().all_reduce_sum(value * model.fraction)
            for name, value in shares.items()
        }
    if get_platform().world_size > 1:
        examples = get_platform().all_reduce_sum(torch.tensor(examples))
    return {name: get_platform().all_reduce_sum(total) / examples for name, total in totals.items()}


def _batch_size(model: Model, loader: DataLoader, device: torch.device) -> int:
    """Examples at a time: more than in training, which keeps all activations; not of convolutions on a CPU, which prefer its caches."""
    if loader.is_stream or (model.channels is not None and device.type == "cpu"):
        return loader.batch_size
    return max(loader.batch_size, LEAST_BATCH)


def _measure(model: Model, outputs: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    measured = {}
    if hasattr(model, "individual_losses"):
        losses = model.individual_losses(outputs, labels)
        measured |= {"loss": losses.mean(), "individual_losses": losses}
    else:
        measured["loss"] = model.loss_criterion(outputs, labels)
    if not labels.is_floating_point():
        measured["accuracy"] = (outputs.argmax(-1) == labels).double().mean()
    return measured
