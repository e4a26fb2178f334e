"""Random pruning to the layer densities of Erdos-Renyi graphs: *Scalable Training of Artificial Neural Networks with Adaptive Sparse
Connectivity* (Mocanu et al. 2018, arXiv:1707.04780), with kernels as in *Rigging the Lottery* (Evci et al. 2020, arXiv:1911.11134)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from pruning import base, hparams, random


@dataclass
class PruningHparams(hparams.PruningHparams):
    """Adds the power of the layer densities."""

    pruning_erk_power: float = 1.0

    _name = "Hyperparameters of Erdos-Renyi-Kernel Pruning"
    _description = "Removes random weights, a smaller share from smaller layers."
    _pruning_erk_power = "The power to which densities are raised before scaling: 0 makes all densities equal, 1 is as in the papers."

    def __post_init__(self):
        super().__post_init__()
        self.require("pruning_erk_power", 0 <= self.pruning_erk_power < math.inf, "a finite number, 0 or more")


class Strategy(base.Strategy[PruningHparams]):
    """Removes random weights, until the density of each layer is proportional to the sum of its dimensions over their product.

    The dimensions are fan-out, fan-in and, for a convolution, height and width of the kernel. No layer becomes denser than it is; the
    excess is distributed to the other layers. The total number of removed weights is exact: the numbers of kept weights are rounded up in
    the layers with the largest fractional parts.
    """

    @staticmethod
    def get_pruning_hparams() -> type[PruningHparams]:
        return PruningHparams

    @staticmethod
    def score(problem: base.Problem[PruningHparams]) -> base.Score:
        return random.uniform_score(problem)

    @staticmethod
    def quotas(problem: base.Problem[PruningHparams]) -> list[tuple[list[str], list[int]]]:
        layers = problem.layers
        shapes = [problem.mask[name].shape[hasattr(problem.model, "networks") :] for name in layers]
        shares = [math.prod(shape) * (sum(shape) / math.prod(shape)) ** problem.hparams.pruning_erk_power for shape in shapes]
        before = list(zip(*(problem.remaining([name]) for name in layers), strict=True))  # [N][layers]
        counts = problem.removal_counts(layers)
        after = [apportion(sum(sizes) - count, shares, sizes) for sizes, count in zip(before, counts, strict=True)]
        removed = [[size - kept for size, kept in zip(*pair, strict=True)] for pair in zip(before, after, strict=True)]
        return [([name], list(row)) for name, *row in zip(layers, *removed, strict=True)]


def apportion(total: int, shares: Sequence[float], limits: Sequence[int]) -> list[int]:
    """Integers that sum to `total`, each at most its limit and otherwise proportional to its share, in exact arithmetic.

    Args:
        total: the sum, at most the sum of the limits.
        shares: positive numbers.
        limits: the largest valid value of each integer.
    """
    weights, parts, free = [Fraction(share) for share in shares], [Fraction(limit) for limit in limits], set(range(len(shares)))
    scale = Fraction(0)
    while free:
        scale = (total - sum(parts[i] for i in range(len(parts)) if i not in free)) / sum((weights[i] for i in free), Fraction(0))
        full = {i for i in free if scale * weights[i] >= limits[i]}
        if not full:
            break
        free -= full
    for i in free:
        parts[i] = scale * weights[i]
    whole = [int(part) for part in parts]
    for i in sorted(range(len(parts)), key=lambda i: whole[i] - parts[i])[: total - sum(whole)]:
        whole[i] += 1
    return whole
