"""Magnitude pruning with thresholds proportional to each layer's standard deviation, without rewinding, as in *Learning both Weights and
Connections for Efficient Neural Networks* (Han, Pool, Tran & Dally 2015, arXiv:1506.02626)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pruning import base, hparams


@dataclass
class PruningHparams(hparams.PruningHparams):
    """The shared hyperparameters only."""

    _name = "Hyperparameters of Magnitude Pruning without Rewinding"
    _description = "Removes the weights that are smallest relative to their layer; the remaining weights keep their trained values."


class Strategy(base.Strategy[PruningHparams]):
    """Removes a weight if its magnitude is less than a quality parameter times the standard deviation of its layer.

    The quality parameter is the same for all layers, and follows from the number of weights to remove. The remaining weights keep their
    trained values.
    """

    rewinds = False

    @staticmethod
    def get_pruning_hparams() -> type[PruningHparams]:
        return PruningHparams

    @staticmethod
    def score(problem: base.Problem[PruningHparams]) -> base.Score:
        weights, kept = problem.score_by_tensor(problem.model.state_dict()), problem.score_by_tensor(problem.mask)

        def score(name: str, network: int) -> torch.Tensor:
            row = weights(name, network)
            deviation = row[kept(name, network).to(row.device)].std(correction=0)
            return row.abs() / deviation.clamp_min(torch.finfo(row.dtype).eps)

        return score
