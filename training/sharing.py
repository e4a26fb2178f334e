"""How the processes of a job divide a training run.

The networks of a stack are divided among the processes. The results are bitwise those of one process, except where torch's fused Adam
treats the last few numbers of a tensor differently, and where torch multiplies the matrices of one network differently from those of
several. For any other model every process computes a part of each batch, and the gradients are summed. The primary process alone trains
plain networks with second-order optimizers, stacks with fewer networks than processes, and stacks in fp16, which has one loss scale for
all networks.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Protocol, cast

import torch

from foundations.training_hparams import TrainingHparams
from models.base import Model
from models.wrapper import Wrapper
from platforms.platform import get_platform
from training.optimizers import SECOND_ORDER


class Stack(Protocol):
    """A model of several networks of one shape."""

    networks: int

    def part(self, first: int, end: int) -> Model:
        """The networks `first` to `end - 1`, as a stack."""
        ...


class Parallelism(enum.Enum):
    """What each process of a job does in a training run."""

    ALL = "everything"
    NETWORKS = "some networks of the stack"
    EXAMPLES = "a part of every batch"
    PRIMARY = "everything or nothing"


def parallelism_of(training_hparams: TrainingHparams, model: Model) -> Parallelism:
    """How the processes of the job divide a training run."""
    processes = get_platform().world_size
    if processes == 1:
        return Parallelism.ALL
    networks = getattr(model, "networks", None)
    if networks is not None:
        return Parallelism.NETWORKS if networks >= processes and training_hparams.arithmetic != "fp16" else Parallelism.PRIMARY
    return Parallelism.PRIMARY if training_hparams.optimizer_name in SECOND_ORDER else Parallelism.EXAMPLES


def on_primary(model: Model, train: Callable[[], int]) -> int:
    """Trains a model on the primary process alone, and broadcasts its weights and the result of `train`."""
    result = get_platform().on_primary(train)
    for values in model.state_dict().values():
        get_platform().broadcast(values)
    return result


class StackShard(Wrapper):
    """The networks of a stack that this process trains. States that are saved and loaded contain all networks.

    `state_dict` and `gather_optimizer_state` gather tensors from all processes, so every process must call them.

    Args:
        stack: students, pruned or not; the shard does not change it.
    """

    def __init__(self, stack: Model):
        full, rank, count = cast("Stack", stack), get_platform().rank, get_platform().world_size
        bounds = [full.networks * process // count for process in range(count + 1)]
        super().__init__(full.part(bounds[rank], bounds[rank + 1]))
        self.bounds = bounds
        self.first, self.end = bounds[rank], bounds[rank + 1]

    @property
    def fraction(self) -> float:
        """The fraction of the networks that this process trains."""
        return (self.end - self.first) / self.bounds[-1]

    def state_dict(self, *args, **options) -> dict[str, torch.Tensor]:
        return {name: self.gathered(values) for name, values in self.model.state_dict(*args, **options).items()}

    def load_state_dict(self, state: dict[str, torch.Tensor], *args, **options):
        return self.model.load_state_dict({name: values[self.first : self.end] for name, values in state.items()}, *args, **options)

    def gathered(self, values: torch.Tensor) -> torch.Tensor:
        """The values of all networks, along the first axis, from those of this process's networks."""
        sizes = [end - first for first, end in zip(self.bounds, self.bounds[1:], strict=False)]
        parts = [values.new_empty(size, *values.shape[1:]) for size in sizes]
        parts[get_platform().rank] = values.detach().contiguous()
        for process, part in enumerate(parts):
            get_platform().broadcast(part, process)
        return torch.cat(parts)

    def gather_optimizer_state(self, state: dict) -> dict:
        """The optimizer state of all networks, from the optimizer states of all processes."""
        return _map_networks(state, self.gathered)

    def shard_optimizer_state(self, state: dict) -> dict:
        """The optimizer state of this process's networks, from that of all networks: the inverse of `gather_optimizer_state`."""
        return _map_networks(state, lambda values: values[self.first : self.end])


def _map_networks(value: Any, change: Callable[[torch.Tensor], torch.Tensor], name: str = "") -> Any:
    """An optimizer state, with `change` applied to values that have a network axis: tensors with axes, and the list of dampings."""
    if isinstance(value, torch.Tensor):
        return change(value) if value.dim() else value
    if name == "damping":
        return change(torch.tensor(value, dtype=torch.float64)).tolist()
    if isinstance(value, dict):
        return {key: _map_networks(item, change, key) for key, item in value.items()}
    if isinstance(value, list):
        return [_map_networks(item, change) for item in value]
    return value
