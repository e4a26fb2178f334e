"""The base of every pruning strategy, and what strategies share: which layers may be pruned, how many weights go, and which are lowest.

A stack of students is pruned network by network, so that each keeps what it would keep alone; a plain network is a stack of one.
Axes: N networks, n weights that a layer has in one of them.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import torch
from torch.func import functional_call

from foundations.errors import ConfigError, unknown
from models.base import Model
from pruning import hparams
from pruning.mask import Mask

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]
Score = Callable[[str, int], torch.Tensor]  # of the weights of a layer, by name, of one network, by number: `[n]`; the lowest go first


@dataclass
class PruningHparams(hparams.PruningHparams):
    """What every strategy takes."""

    pruning_fraction: float = 0.2
    pruning_layers_to_ignore: str | None = None

    _pruning_fraction = "The share of the remaining weights that a pruning step removes."
    _pruning_layers_to_ignore = "Layers that are not pruned and do not count, such as fc.weight, joined by commas."

    def __post_init__(self):
        self.require_fraction("pruning_fraction")

    def require_fraction(self, field: str) -> None:
        """Raises a ConfigError unless a field lies strictly between 0 and 1."""
        self.require(field, 0 < getattr(self, field) < 1, "more than 0 and less than 1")


def prunable_layers(pruning_hparams: PruningHparams, model: Model) -> list[str]:
    """The prunable layers of a model without those to ignore.

    Raises:
        ConfigError: a layer to ignore is not there, or none is left.
    """
    names, text = model.prunable_layer_names, pruning_hparams.pruning_layers_to_ignore
    ignored = [name.strip() for name in text.split(",")] if text else []
    for name in ignored:
        if name not in names:
            raise unknown("--pruning_layers_to_ignore", name, names)
    left = [name for name in names if name not in ignored]
    if not left:
        raise ConfigError(f"--pruning_layers_to_ignore: {text} leaves nothing to prune; valid: some, but not all, of {', '.join(names)}")
    return left


@dataclass(frozen=True)
class Problem:
    """What a strategy is to prune.

    Attributes:
        hparams: the strategy's.
        model: the network with the weights to be judged, in any state; it is left as it is.
        mask: what has been left of it so far.
        layers: those that may be pruned.
        data: batches of examples and labels, where there are any.
        seed: of what is drawn.
    """

    hparams: PruningHparams
    model: Model
    mask: Mask
    layers: list[str]
    data: Batches | None = None
    seed: int = 0

    @property
    def networks(self) -> int:
        """N."""
        return getattr(self.model, "networks", 1)

    def remaining(self, layers: Sequence[str]) -> list[int]:
        """How many weights of some layers are left in each network, `[N]`."""
        return sum(self.mask[name].view(self.networks, -1).count_nonzero(1) for name in layers).tolist()

    def asked(self, layers: Sequence[str], fraction: float | Fraction | None = None) -> list[int]:
        """How many of these go: `ceil(fraction * remaining)`, `[N]`, with `--pruning_fraction` where no other fraction is given.

        A fraction is taken for the decimal that was written: 0.55 of 100 is 55, though the nearest float is a little more.
        """
        fraction = Fraction(str(self.hparams.pruning_fraction if fraction is None else fraction))
        return [math.ceil(fraction * count) for count in self.remaining(layers)]

    def rows(self, tensors: Mapping[str, torch.Tensor]) -> Score:
        """Tensors in the shapes of the layers as a score."""
        return lambda name, network: tensors[name].detach().reshape(self.networks, -1)[network]

    def kernels(self) -> dict[str, torch.Tensor]:
        """All prunable layers, the ignored ones too, as copies that a gradient can be taken of; what is pruned is 0."""
        state = self.model.state_dict()
        return {name: (state[name] * kept.to(state[name].device)).requires_grad_() for name, kept in self.mask.items()}

    def outputs(self, kernels: Mapping[str, torch.Tensor], examples: torch.Tensor) -> torch.Tensor:
        """What the model would put out in training with other kernels."""
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}  # batch statistics are not to be moved
        training = self.model.training
        try:
            return functional_call(self.model.train(), {**kernels, **buffers}, (examples,))
        finally:
            self.model.train(training)

    def batch(self, examples: int) -> tuple[torch.Tensor, torch.Tensor]:
        """So many examples and their labels (or all, where there are fewer), in the number format of the model and on its device.

        Raises:
            ConfigError: there are no data.
        """
        taken, count = [], 0
        for batch in self.data or ():
            taken.append(batch)
            count += len(batch[0])
            if count >= examples:
                break
        if not count:
            raise ConfigError(f"--pruning_strategy: {self.hparams.pruning_strategy} judges weights by examples, and was given none")
        like = next(self.model.parameters())
        inputs, labels = (torch.cat(parts)[:examples] for parts in zip(*taken, strict=True))
        return inputs.to(like), labels.to(like) if labels.is_floating_point() else labels.to(like.device)


class Strategy(abc.ABC):
    """A way to prune. A new one says how weights are scored, and where not all layers compete, how many go from which.

    Attributes:
        rewinds: whether what is left goes back to its early values before it is trained again.
        untrained: whether it judges the weights that training would start from rather than those that it ends with.
    """

    rewinds: ClassVar[bool] = True
    untrained: ClassVar[bool] = False

    @staticmethod
    def get_pruning_hparams() -> type[PruningHparams]:
        """The class of its hyperparameters, which are its flags."""
        return PruningHparams

    @classmethod
    def prune(
        cls,
        pruning_hparams: PruningHparams,
        trained_model: Model,
        current_mask: Mask | None = None,
        data: Batches | None = None,
        seed: int = 0,
    ) -> Mask:
        """One further pruning step.

        Args:
            pruning_hparams: how far, and what else the strategy takes.
            trained_model: the network; for strategies with `untrained`, with the weights that its training started from.
            current_mask: what earlier steps have left; everything when left out.
            data: batches of examples and labels, such as a loader; no more are taken than the strategy looks at.
            seed: of what is drawn. With the same one, later steps go on where earlier ones stopped, and what is left is as random.

        Returns:
            What is left: always a part of what was.

        Raises:
            ConfigError: a layer to ignore is not there, there are no data for a strategy that needs them, or a weight is not a number.
        """
        mask = Mask.ones_like(trained_model) if current_mask is None else current_mask
        mask.check_fits(trained_model)
        return cls.step(Problem(pruning_hparams, trained_model, mask, prunable_layers(pruning_hparams, trained_model), data, seed))

    @classmethod
    def step(cls, problem: Problem) -> Mask:
        """Takes what `quotas` asks for from the bottom of `score`."""
        mask, score = problem.mask, cls.score(problem)
        for layers, counts in cls.quotas(problem):
            mask = prune_lowest(mask, layers, score, counts)
        return mask

    @staticmethod
    @abc.abstractmethod
    def score(problem: Problem) -> Score:
        """How much each weight matters."""

    @staticmethod
    def quotas(problem: Problem) -> list[tuple[list[str], list[int]]]:
        """Layers that compete with each other, and how many weights they lose in each network, `[N]`."""
        return [(problem.layers, problem.asked(problem.layers))]


def prune_lowest(mask: Mask, layers: Sequence[str], score: Score, counts: Sequence[int]) -> Mask:
    """Takes away exactly the asked number of weights, those with the lowest scores among the ones left in some layers together.

    Equal scores go in the order of layers and of weights in them. One vector of scores is held at a time, and partitioned in place:
    O(n) and a single copy of the weights for scores that are computed as they are asked for.

    Args:
        mask: what is left so far.
        layers: where to take from.
        score: of the weights; it is asked for twice, and has to give the same.
        counts: how many weights go from each network, `[N]`, at most those left.

    Raises:
        ConfigError: a score is not a finite number.
    """
    kept = {name: mask[name].reshape(len(counts), -1).numpy().copy() for name in layers}
    for network, count in enumerate(counts):
        if count:
            _prune_network(kept, network, score, count)
    return Mask({**mask, **{name: rows.reshape(mask[name].shape) for name, rows in kept.items()}})


def _prune_network(kept: Mapping[str, np.ndarray], network: int, score: Score, count: int) -> None:
    """Sets the lowest `count` of the weights of a network that are left to False, in place; `kept` has `[N, n]` for each layer."""
    rows = {name: kept[name][network] for name in kept}
    scores = lambda name: score(name, network).detach().cpu().numpy()  # noqa: E731
    threshold, ties = _threshold(rows, scores, count)
    for name, row in rows.items():
        layer = scores(name)
        tied = np.flatnonzero(row & (layer == threshold))[:ties]
        row &= layer >= threshold
        row[tied] = False
        ties -= len(tied)


def _threshold(rows: Mapping[str, np.ndarray], scores: Callable[[str], np.ndarray], count: int) -> tuple[np.floating, int]:
    """The highest score among the lowest `count` of the weights left, and how many of the weights with just that score are among them."""
    values, start = np.empty(sum(map(np.count_nonzero, rows.values())), scores(next(iter(rows))).dtype), 0
    for name, row in rows.items():
        part = scores(name)[row]
        values[start : start + len(part)] = part
        start += len(part)
    if not np.isfinite([values.min(), values.max()]).all():
        raise ConfigError("the network cannot be pruned: some of its weights have no finite score; has its training diverged?")
    values.partition(count - 1)
    lowest = values[:count]
    return lowest[-1], count - np.count_nonzero(lowest < lowest[-1])
