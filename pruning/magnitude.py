"""Magnitude pruning with the thresholds of OpenLTH and of the published Expand-and-Cluster code.

A group of layers shares one threshold. Let n be the number of remaining weights that count for the group: those of its layers, and for some
strategies those of ignored layers. The remaining weights of the group are sorted by score. The threshold is the score at place
`ceil(fraction * n)`, counted from 0. Only weights with a higher score are kept: `ceil(fraction * n) + 1` weights are removed, and with them
all weights whose score equals the threshold. `fraction * n` is computed in float64, as in OpenLTH: 0.55 of 100 weights are 56, because the
float 0.55 is slightly larger than its text.

Both ancestors end with an IndexError where a group has too few weights for its threshold; here this is a ConfigError. Weights that are not
finite are refused as well; the ancestors keep infinite weights and remove NaN.
Axes: N networks, n weights of a layer in one network.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from foundations.errors import ConfigError
from models.base import Model
from pruning import base
from pruning.base import H
from pruning.mask import Mask


@dataclass(frozen=True)
class Group:
    """Layers that share a threshold.

    Attributes:
        layers: the names of the layers to prune.
        counted: the names of the layers whose remaining weights are counted.
        fraction: the fraction of the counted weights to remove.
    """

    layers: list[str]
    counted: list[str]
    fraction: float

    def place(self, remaining: int) -> int:
        """The place of the threshold in increasing order, counted from 0, if this number of counted weights remains."""
        return math.ceil(self.fraction * remaining)

    def places(self, problem: base.Problem) -> list[int]:
        """The place of the threshold in each network, `[N]`."""
        return [self.place(remaining) for remaining in problem.remaining(self.counted)]


class Strategy(base.Strategy[H]):
    """A strategy with thresholds. A subclass defines `groups`. Scores are the magnitudes of the weights, unless it defines `score`.

    Attributes:
        keeps_threshold: whether weights whose score equals the threshold are kept.
    """

    keeps_threshold: ClassVar[bool] = False

    @staticmethod
    @abc.abstractmethod
    def groups(problem: base.Problem[H]) -> list[Group]:
        """The groups of layers with their fractions. No layer is in two groups, and groups without layers are left out."""

    @staticmethod
    def score(problem: base.Problem[H]) -> base.Score:
        """The magnitude of each weight."""
        weights = problem.score_by_tensor(problem.model.state_dict())
        return lambda name, network: weights(name, network).abs()

    @classmethod
    def step(cls, problem: base.Problem[H]) -> Mask:
        """Removes the weights below, and at, the threshold of each group."""
        mask, score = problem.mask, cls.score(problem)
        for group in cls.groups(problem):
            mask = prune_to_threshold(mask, group.layers, score, group.places(problem), cls.keeps_threshold)
        return mask

    @classmethod
    def surplus(cls, pruning_hparams: H, model: Model, before: Mask, after: Mask) -> int:
        if cls.keeps_threshold:
            return 0
        earlier, later = (base.Problem.of(pruning_hparams, model, mask) for mask in (before, after))
        surplus = 0
        for group in cls.groups(earlier):
            columns = group.places(earlier), earlier.remaining(group.layers), later.remaining(group.layers)
            surplus += sum(max(0, left - max(0, size - place - 1)) for place, size, left in zip(*columns, strict=True))
        return surplus

    @classmethod
    def last_level(cls, pruning_hparams: H, model: Model, levels: int) -> int:
        if cls.keeps_threshold:
            return levels
        problem = base.Problem.of(pruning_hparams, model, Mask.ones_like(model))
        for group in cls.groups(problem):
            size, counted, level = problem.remaining(group.layers)[0], problem.remaining(group.counted)[0], 0
            while level < levels and group.place(counted) < size:
                removed = group.place(counted) + 1
                size, counted, level = size - removed, counted - removed, level + 1
            levels = level
        return levels


def prune_to_threshold(mask: Mask, layers: Sequence[str], score: base.Score, places: Sequence[int], keeps_threshold: bool = False) -> Mask:
    """Keeps the remaining weights of some layers whose scores are higher than that at a place in their increasing order.

    O(n) time, with a single copy of the weights if scores are computed on demand.

    Args:
        mask: the current mask.
        layers: the names of the layers to prune.
        score: the scores of the weights. It is called twice for each layer, and must return the same values.
        places: the place of the threshold among the remaining weights of these layers, counted from 0, in each network, `[N]`.
        keeps_threshold: whether weights whose score equals the threshold are kept.

    Raises:
        ConfigError: a score is not finite, or no weight is at that place.
    """
    kept = base.rows(mask, layers, len(places))
    for network, place in enumerate(places):
        own = {name: kept[name][network] for name in kept}
        remaining = sum(int(row.sum()) for row in own.values())
        if place >= remaining:
            raise ConfigError(
                f"the network cannot be pruned again: weight {place + 1:,} in order of size would be the threshold, but there are only "
                f"{remaining:,} in {', '.join(layers)}; valid: fewer --levels or a smaller --pruning_fraction"
            )
        values = base.remaining_scores(own, score, network)
        values.partition(place)
        for name, row in own.items():
            scores = base.as_array(score(name, network))
            row &= scores >= values[place] if keeps_threshold else scores > values[place]
    return base.with_rows(mask, kept)
