"""Random pruning, the baseline for all other strategies (*The Unreasonable Effectiveness of Random Pruning*, Liu et al. 2022,
arXiv:2202.02643)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from foundations.seeds import derive
from pruning import base, hparams


@dataclass
class PruningHparams(hparams.PruningHparams):
    """Adds whether layers are pruned separately."""

    pruning_layerwise: bool = False

    _name = "Hyperparameters of Random Pruning"
    _description = "Removes random weights."
    _pruning_layerwise = "Remove the same fraction from each layer, instead of from all layers together."


class Strategy(base.Strategy[PruningHparams]):
    """Removes each weight with equal probability, from all layers together or from each layer separately."""

    @staticmethod
    def get_pruning_hparams() -> type[PruningHparams]:
        return PruningHparams

    @staticmethod
    def score(problem: base.Problem[PruningHparams]) -> base.Score:
        return uniform_score(problem)

    @staticmethod
    def quotas(problem: base.Problem[PruningHparams]) -> list[tuple[list[str], list[int]]]:
        groups = [[name] for name in problem.layers] if problem.hparams.pruning_layerwise else [problem.layers]
        return [(group, problem.removal_counts(group)) for group in groups]


def uniform_score(problem: base.Problem) -> base.Score:
    """Uniform noise with one random stream for each layer and network, drawn on the CPU so that it is the same on every device."""

    def score(name: str, network: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(derive(problem.seed, "random pruning", name, network))
        return torch.rand(problem.mask[name].numel() // problem.networks, generator=generator)

    return score
