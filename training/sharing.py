"""How the processes of a job share a training run.

The networks of a stack are divided among them, and train as they would in one process: in the same bits but where torch's fused Adam treats
the last few numbers of a tensor apart, and where it multiplies the matrices of a single network otherwise than those of several. Of any
other model every process sees a part of each batch, and the gradients are added up. What neither suits, the primary process trains by
itself: plain networks with optimizers that look at curvature, and stacks with fewer networks than processes or with one loss scale for
all (fp16).
"""

from __future__ import annotations

import enum
from collections.abc import Callable

import torch

from foundations.training_hparams import TrainingHparams
from models.base import Model
from models.wrapper import Wrapper
from platforms.platform import get_platform
from training.optimizers import SECOND_ORDER


class Parallelism(enum.Enum):
    """What each process of a job does in a training run."""

    ALL = "everything"
    NETWORKS = "some networks of the stack"
    EXAMPLES = "a part of every batch"
    PRIMARY = "everything or nothing"


def parallelism_of(training_hparams: TrainingHparams, model: Model) -> Parallelism:
    """How a training run is shared."""
    processes = get_platform().world_size
    if processes == 1:
        return Parallelism.ALL
    if hasattr(model, "networks"):
        return Parallelism.NETWORKS if model.networks >= processes and training_hparams.arithmetic != "fp16" else Parallelism.PRIMARY
    return Parallelism.PRIMARY if training_hparams.optimizer_name in SECOND_ORDER else Parallelism.EXAMPLES


def on_primary(model: Model, train: Callable[[], int]) -> int:
    """Has the primary process train a model by itself, and gives its weights, and what `train` returns, to all."""
    result = get_platform().on_primary(train)
    for values in model.state_dict().values():
        get_platform().broadcast(values)
    return result


class Share(Wrapper):
    """The networks of a stack that this process trains; what is saved of them, and loaded, is of all.

    `state_dict` and `whole` gather what is on all processes, all of which have to call them.

    Args:
        stack: students, pruned or not; it is left as it is.
    """

    def __init__(self, stack: Model):
        rank, count, networks = get_platform().rank, get_platform().world_size, stack.networks
        bounds = [networks * place // count for place in range(count + 1)]
        super().__init__(stack.part(bounds[rank], bounds[rank + 1]))
        self.bounds = bounds
        self.first, self.end = bounds[rank], bounds[rank + 1]

    @property
    def fraction(self) -> float:
        """The share of the networks."""
        return (self.end - self.first) / self.bounds[-1]

    def state_dict(self, *args, **options) -> dict[str, torch.Tensor]:
        return {name: self.gathered(values) for name, values in self.model.state_dict(*args, **options).items()}

    def load_state_dict(self, state: dict[str, torch.Tensor], *args, **options):
        return self.model.load_state_dict({name: values[self.first : self.end] for name, values in state.items()}, *args, **options)

    def gathered(self, values: torch.Tensor) -> torch.Tensor:
        """Values of all networks, of whose first axis this process has the part that belongs to its own."""
        sizes = [end - first for first, end in zip(self.bounds, self.bounds[1:], strict=False)]
        parts = [values.new_empty(size, *values.shape[1:]) for size in sizes]
        parts[get_platform().rank] = values.detach().contiguous()
        for process, part in enumerate(parts):
            get_platform().broadcast(part, process)
        return torch.cat(parts)

    def whole(self, state: dict) -> dict:
        """The state of an optimizer of all networks, from those of the processes' optimizers."""
        return _changed(state, self.gathered)

    def own(self, state: dict) -> dict:
        """The inverse of `whole`: the state of an optimizer of this process's networks."""
        return _changed(state, lambda values: values[self.first : self.end])


def _changed(value: object, change: Callable[[torch.Tensor], torch.Tensor], name: str = "") -> object:
    """The state of an optimizer with a change to whatever has a value for each network: tensors with axes, and the list of dampings."""
    if isinstance(value, torch.Tensor):
        return change(value) if value.dim() else value
    if name == "damping":
        return change(torch.tensor(value, dtype=torch.float64)).tolist()
    if isinstance(value, dict):
        return {key: _changed(each, change, key) for key, each in value.items()}
    if isinstance(value, list):
        return [_changed(each, change) for each in value]
    return value
