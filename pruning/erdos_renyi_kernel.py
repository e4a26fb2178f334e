"""Random pruning to the layer densities of Erdos-Renyi graphs: *Scalable Training of Artificial Neural Networks with Adaptive Sparse
Connectivity* (Mocanu et al. 2018, arXiv:1707.04780), with kernels as in *Rigging the Lottery* (Evci et al. 2020, arXiv:1911.11134)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from pruning import base, random


@dataclass
class PruningHparams(base.PruningHparams):
    """How far densities differ between layers."""

    pruning_erk_power: float = 1.0

    _name = "Hyperparameters of Erdos-Renyi-Kernel Pruning"
    _description = "Weights go by chance, fewer of a layer the smaller it is."
    _pruning_erk_power = "The power that densities are raised to before they are scaled: 0 makes them equal, 1 is that of the papers."

    def __post_init__(self):
        super().__post_init__()
        self.require("pruning_erk_power", 0 <= self.pruning_erk_power < math.inf, "a finite number, 0 or more")


class Strategy(random.Strategy):
    """Random weights go, until the density of each layer is proportional to the sum of its dimensions over their product.

    The dimensions are fan-out, fan-in and, of a convolution, height and width of the kernel. A layer cannot be denser than it is; what it
    would have had above that goes to the others. Weights in all are as many as asked for: parts of a weight are given to the layers where
    they are largest.
    """

    @staticmethod
    def get_pruning_hparams() -> type[PruningHparams]:
        return PruningHparams

    @staticmethod
    def quotas(problem: base.Problem) -> list[tuple[list[str], list[int]]]:
        layers = problem.layers
        shapes = [problem.mask[name].shape[hasattr(problem.model, "networks") :] for name in layers]
        shares = [math.prod(shape) * (sum(shape) / math.prod(shape)) ** problem.hparams.pruning_erk_power for shape in shapes]
        left = list(zip(*(problem.remaining([name]) for name in layers), strict=True))  # [N][layers]
        kept = [allot(sum(have) - gone, shares, have) for have, gone in zip(left, problem.asked(layers), strict=True)]
        lost = [[has - keeps for has, keeps in zip(*pair, strict=True)] for pair in zip(left, kept, strict=True)]
        return [([name], list(counts)) for name, *counts in zip(layers, *lost, strict=True)]


def allot(total: int, shares: Sequence[float], limits: Sequence[int]) -> list[int]:
    """Whole numbers that sum to `total`, each at most its limit and otherwise proportional to its share, in exact arithmetic.

    Args:
        total: at most the sum of the limits.
        shares: positive numbers.
        limits: the largest number that each may be.
    """
    shares, parts, free = [Fraction(share) for share in shares], [Fraction(limit) for limit in limits], set(range(len(shares)))
    while free:
        scale = (total - sum(parts[i] for i in range(len(parts)) if i not in free)) / sum(shares[i] for i in free)
        full = {i for i in free if scale * shares[i] >= limits[i]}
        if not full:
            break
        free -= full
    for i in free:
        parts[i] = scale * shares[i]
    whole = [int(part) for part in parts]
    for i in sorted(range(len(parts)), key=lambda i: whole[i] - parts[i])[: total - sum(whole)]:
        whole[i] += 1
    return whole
