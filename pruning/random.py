"""Random pruning, the baseline of every other strategy (*The Unreasonable Effectiveness of Random Pruning*, Liu et al. 2022,
arXiv:2202.02643)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from foundations.seeds import derive
from pruning import base


@dataclass
class PruningHparams(base.PruningHparams):
    """Whether layers compete."""

    pruning_layerwise: bool = False

    _name = "Hyperparameters of Random Pruning"
    _description = "Weights go by chance."
    _pruning_layerwise = "Take the same share from each layer, rather than from all of them together."


class Strategy(base.Strategy):
    """Each weight is as likely to go as any other, be it of all layers or of its own."""

    @staticmethod
    def get_pruning_hparams() -> type[PruningHparams]:
        return PruningHparams

    @staticmethod
    def score(problem: base.Problem) -> base.Score:
        """Uniform noise from a stream for each layer and network, drawn on the CPU so that it is the same on every device."""

        def score(name: str, network: int) -> torch.Tensor:
            generator = torch.Generator().manual_seed(derive(problem.seed, "random pruning", name, network))
            return torch.rand(problem.mask[name].numel() // problem.networks, generator=generator)

        return score

    @staticmethod
    def quotas(problem: base.Problem) -> list[tuple[list[str], list[int]]]:
        groups = [[name] for name in problem.layers] if problem.hparams.pruning_layerwise else [problem.layers]
        return [(group, problem.asked(group)) for group in groups]
