"""Magnitude pruning with thresholds that follow each layer's spread, without rewinding, as in *Learning both Weights and Connections for
Efficient Neural Networks* (Han, Pool, Tran & Dally 2015, arXiv:1506.02626)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pruning import base


@dataclass
class PruningHparams(base.PruningHparams):
    """Nothing beyond what every strategy takes."""

    _name = "Hyperparameters of Magnitude Pruning without Rewinding"
    _description = "The weights go that are smallest beside the others of their layer; the rest are trained on from where they are."


class Strategy(base.Strategy):
    """A weight goes when its magnitude is below a quality parameter, the same for all layers, times the standard deviation of its layer.

    The quality parameter is the one at which the asked number goes. The weights that are left are trained on with the values they have.
    """

    rewinds = False

    @staticmethod
    def get_pruning_hparams() -> type[PruningHparams]:
        return PruningHparams

    @staticmethod
    def score(problem: base.Problem) -> base.Score:
        weights, left = problem.rows(problem.model.state_dict()), problem.rows(problem.mask)

        def score(name: str, network: int) -> torch.Tensor:
            row = weights(name, network)
            spread = row[left(name, network).to(row.device)].std(correction=0)
            return row.abs() / spread.clamp_min(torch.finfo(row.dtype).eps)

        return score
