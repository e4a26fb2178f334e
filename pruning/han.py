"""Magnitude pruning without rewinding, as in *Learning both Weights and Connections for Efficient Neural Networks* (Han, Pool, Tran & Dally
2015, arXiv:1506.02626)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pruning import base, hparams, magnitude


@dataclass
class PruningHparams(hparams.PruningHparams):
    """Adds whether magnitudes are relative to their layer."""

    pruning_relative: bool = False

    _name = "Hyperparameters of Magnitude Pruning without Rewinding"
    _description = "Removes the weights of smallest magnitude in the whole network; the remaining weights keep their trained values."
    _pruning_fraction = "The fraction of the remaining weights, ignored layers included, that each pruning step removes."
    _pruning_relative = "Compare magnitudes relative to the standard deviation of their layer, as in the paper."


class Strategy(magnitude.Strategy[PruningHparams]):
    """Removes the weights of smallest magnitude, comparing all layers with each other. The remaining weights keep their trained values.

    Masks equal those of the published Expand-and-Cluster code, which prunes like `sparse_global`. In the paper, the threshold of a layer is
    a quality parameter times the standard deviation of its weights. `--pruning_relative` does that, with one quality parameter for all
    layers, which follows from the number of weights to remove.
    """

    rewinds = False

    @staticmethod
    def get_pruning_hparams() -> type[PruningHparams]:
        return PruningHparams

    @staticmethod
    def groups(problem: base.Problem[PruningHparams]) -> list[magnitude.Group]:
        return [magnitude.Group(problem.layers, list(problem.mask), problem.hparams.pruning_fraction)]

    @staticmethod
    def score(problem: base.Problem[PruningHparams]) -> base.Score:
        magnitudes = magnitude.Strategy.score(problem)
        if not problem.hparams.pruning_relative:
            return magnitudes
        weights, kept = problem.score_by_tensor(problem.model.state_dict()), problem.score_by_tensor(problem.mask)

        def score(name: str, network: int) -> torch.Tensor:
            row = weights(name, network)
            deviation = row[kept(name, network).to(row.device)].std(correction=0)
            return row.abs() / deviation.clamp_min(torch.finfo(row.dtype).eps)

        return score
