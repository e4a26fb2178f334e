"""The base of all pruning strategies, and what they share: prunable layers, numbers of weights to remove, and removal by score.

A stack of students is pruned network by network, so that each network keeps the same weights as if it were pruned alone. A plain network is
treated as a stack of one.
Axes: N networks, n weights of a layer in one network.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch.func import functional_call

from foundations.errors import ConfigError, unknown
from models.base import Model
from pruning.hparams import PruningHparams
from pruning.mask import Mask

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]
Score = Callable[[str, int], torch.Tensor]  # (layer name, network index) -> scores `[n]`; weights with the lowest scores are removed first
H = TypeVar("H", bound=PruningHparams)
H_co = TypeVar("H_co", bound=PruningHparams, covariant=True)


def prunable_layers(pruning_hparams: PruningHparams, model: Model) -> list[str]:
    """The names of a model's prunable layers, without the ignored ones.

    Raises:
        ConfigError: the model has no such layer to ignore, or all layers are ignored.
    """
    names, text = model.prunable_layer_names, pruning_hparams.pruning_layers_to_ignore
    ignored = [name.strip() for name in text.split(",")] if text else []
    for name in ignored:
        if name not in names:
            raise unknown("--pruning_layers_to_ignore", name, names)
    layers = [name for name in names if name not in ignored]
    if not layers:
        raise ConfigError(f"--pruning_layers_to_ignore: {text} leaves nothing to prune; valid: some, but not all, of {', '.join(names)}")
    return layers


@dataclass(frozen=True)
class Problem(Generic[H_co]):
    """The input of one pruning step.

    Attributes:
        hparams: the hyperparameters of the strategy.
        model: the network whose weights are scored. Strategies do not change it, and its weights need not be masked yet.
        mask: the weights that earlier steps have kept.
        layers: the names of the layers that may be pruned.
        data: batches of examples and labels; None where there are no data.
        seed: the seed of random strategies.
    """

    hparams: H_co
    model: Model
    mask: Mask
    layers: list[str]
    data: Batches | None = None
    seed: int = 0

    @staticmethod
    def of(pruning_hparams: H, model: Model, mask: Mask) -> Problem[H]:
        """The problem of the layers that the hyperparameters do not ignore, without data. The model may be on the meta device."""
        return Problem(pruning_hparams, model, mask, prunable_layers(pruning_hparams, model))

    @property
    def networks(self) -> int:
        """The number of networks N."""
        return getattr(self.model, "networks", 1)

    def remaining(self, layers: Sequence[str]) -> list[int]:
        """The number of remaining weights of some layers in each network, `[N]`."""
        return torch.stack([self.mask[name].view(self.networks, -1).count_nonzero(1) for name in layers]).sum(0).tolist()

    def removal_counts(self, layers: Sequence[str], fraction: float | Fraction | None = None) -> list[int]:
        """The number of weights to remove from some layers in each network: `ceil(fraction * remaining)`, `[N]`.

        The default fraction is `--pruning_fraction`. A float stands for its decimal text: 0.55 of 100 is 55, although the nearest float is
        slightly larger than 0.55.
        """
        exact = Fraction(str(self.hparams.pruning_fraction if fraction is None else fraction))
        return [math.ceil(exact * count) for count in self.remaining(layers)]

    def score_by_tensor(self, tensors: Mapping[str, torch.Tensor]) -> Score:
        """The score that reads its values from tensors in the shapes of the layers."""
        return lambda name, network: tensors[name].detach().reshape(self.networks, -1)[network]

    def masked_kernels(self) -> dict[str, torch.Tensor]:
        """Copies of all prunable layers, including the ignored ones, with pruned weights set to 0. The copies require gradients."""
        state = self.model.state_dict()
        return {name: (state[name] * kept.to(state[name].device)).requires_grad_() for name, kept in self.mask.items()}

    def outputs(self, kernels: Mapping[str, torch.Tensor], examples: torch.Tensor) -> torch.Tensor:
        """The outputs of the model in training mode, with its prunable layers replaced by `kernels`."""
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}  # the call must not update batch statistics
        training = self.model.training
        try:
            return functional_call(self.model.train(), {**kernels, **buffers}, (examples,))
        finally:
            self.model.train(training)

    def batch(self, examples: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The first `examples` examples with their labels (or all, if there are fewer), in the model's dtype and on its device.

        Raises:
            ConfigError: there are no data.
        """
        batches, count = [], 0
        for batch in self.data or ():
            batches.append(batch)
            count += len(batch[0])
            if count >= examples:
                break
        if not count:
            raise ConfigError(f"--pruning_strategy: {self.hparams.pruning_strategy} scores weights by examples, but there are none")
        like = next(self.model.parameters())
        inputs, labels = (torch.cat(parts)[:examples] for parts in zip(*batches, strict=True))
        return inputs.to(like), labels.to(like) if labels.is_floating_point() else labels.to(like.device)


class Strategy(abc.ABC, Generic[H]):
    """A pruning strategy. A subclass defines `score`. It defines `quotas` as well if not all layers compete with each other.

    Attributes:
        rewinds: whether the remaining weights are rewound to their early values before they are trained again.
        scores_initial_weights: whether the strategy scores the weights at the start of training instead of the trained weights.
    """

    rewinds: ClassVar[bool] = True
    scores_initial_weights: ClassVar[bool] = False

    @staticmethod
    def get_pruning_hparams() -> type[PruningHparams]:
        """The class of the strategy's hyperparameters, whose fields are its flags."""
        return PruningHparams

    @classmethod
    def prune(
        cls,
        pruning_hparams: H,
        trained_model: Model,
        current_mask: Mask | None = None,
        data: Batches | None = None,
        seed: int = 0,
    ) -> Mask:
        """Runs one pruning step.

        Args:
            pruning_hparams: the hyperparameters of the strategy.
            trained_model: the trained network; for strategies with `scores_initial_weights`, the network at the start of training.
            current_mask: the weights that earlier steps have kept; all weights if left out.
            data: batches of examples and labels, such as a loader. Only as many batches are read as the strategy needs.
            seed: the seed of random strategies. With one seed for all steps, several steps give as random a mask as a single step.

        Returns:
            The mask of the remaining weights, a subset of the current mask.

        Raises:
            ConfigError: a layer to ignore does not exist, a strategy that needs data has none, or a score is not finite.
        """
        mask = Mask.ones_like(trained_model) if current_mask is None else current_mask
        mask.check_fits(trained_model)
        return cls.step(Problem(pruning_hparams, trained_model, mask, prunable_layers(pruning_hparams, trained_model), data, seed))

    @classmethod
    def step(cls, problem: Problem[H]) -> Mask:
        """Removes the numbers of weights in `quotas`, lowest scores first."""
        mask, score = problem.mask, cls.score(problem)
        for layers, counts in cls.quotas(problem):
            mask = prune_lowest(mask, layers, score, counts)
        return mask

    @classmethod
    def surplus(cls, pruning_hparams: H, model: Model, before: Mask, after: Mask) -> int:
        """The number of weights that one step from a mask to the next has kept although this version of the strategy removes more.

        It is 0 unless an earlier version of the strategy made the later mask. The model may be on the meta device.
        """
        return 0

    @classmethod
    def last_level(cls, pruning_hparams: H, model: Model, levels: int) -> int:
        """The number of steps, at most `levels`, after which no weight is left to prune. The model may be on the meta device."""
        return levels

    @staticmethod
    @abc.abstractmethod
    def score(problem: Problem[H]) -> Score:
        """The importance of each weight."""

    @staticmethod
    def quotas(problem: Problem[H]) -> list[tuple[list[str], list[int]]]:
        """Groups of layers that compete with each other, and the number of weights to remove from each group in each network, `[N]`."""
        return [(problem.layers, problem.removal_counts(problem.layers))]


def prune_lowest(mask: Mask, layers: Sequence[str], score: Score, counts: Sequence[int]) -> Mask:
    """Removes exactly `counts` weights: those with the lowest scores among the remaining weights of all given layers.

    Ties are broken by the order of the layers, then by the order of the weights in a layer. Only one vector of scores is in memory at a
    time, and it is partitioned in place: O(n) time and a single copy of the weights if scores are computed on demand.

    Args:
        mask: the current mask.
        layers: the names of the layers to prune.
        score: the scores of the weights. It is called twice for each layer, and must return the same values.
        counts: the number of weights to remove from each network, `[N]`, at most the number of remaining weights.

    Raises:
        ConfigError: a score is not finite.
    """
    kept = rows(mask, layers, len(counts))
    for network, count in enumerate(counts):
        if count:
            _prune_network({name: kept[name][network] for name in kept}, network, score, count)
    return with_rows(mask, kept)


def rows(mask: Mask, layers: Sequence[str], networks: int) -> dict[str, np.ndarray]:
    """Copies of the masks of some layers, `[N, n]` for each layer."""
    return {name: mask[name].reshape(networks, -1).numpy().copy() for name in layers}


def with_rows(mask: Mask, kept: Mapping[str, np.ndarray]) -> Mask:
    """A mask with other values in some layers, given as `[N, n]` for each layer."""
    return Mask({**mask, **{name: values.reshape(mask[name].shape) for name, values in kept.items()}})


def as_array(scores: torch.Tensor) -> np.ndarray:
    """Scores in the memory of the CPU."""
    return scores.detach().cpu().numpy()


def remaining_scores(kept: Mapping[str, np.ndarray], score: Score, network: int) -> np.ndarray:
    """The scores of the remaining weights of a network, one layer after another; `kept` has `[n]` for each layer.

    Raises:
        ConfigError: a score is not finite.
    """
    values, start = None, 0
    for name, row in kept.items():
        part = as_array(score(name, network))[row]
        values = np.empty(sum(map(np.count_nonzero, kept.values())), part.dtype) if values is None else values
        values[start : start + len(part)] = part
        start += len(part)
    assert values is not None, "a group has a layer"
    if not np.isfinite([values.min(), values.max()]).all():
        raise ConfigError("the network cannot be pruned: some of its weights have no finite score; training may have diverged")
    return values


def _prune_network(kept: Mapping[str, np.ndarray], network: int, score: Score, count: int) -> None:
    """Sets the lowest `count` remaining weights of a network to False, in place; `kept` has `[n]` for each layer."""
    values = remaining_scores(kept, score, network)
    values.partition(count - 1)
    lowest = values[:count]
    threshold, ties = lowest[-1], count - int(np.count_nonzero(lowest < lowest[-1]))
    for name, row in kept.items():
        scores = as_array(score(name, network))
        tied = np.flatnonzero(row & (scores == threshold))[:ties]
        row &= scores >= threshold
        row[tied] = False
        ties -= len(tied)
