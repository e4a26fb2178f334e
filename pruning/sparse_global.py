"""Global magnitude pruning, as in *Stabilizing the Lottery Ticket Hypothesis* (Frankle, Dziugaite, Roy & Carbin 2019, arXiv:1903.01611)."""

from __future__ import annotations

from dataclasses import dataclass

from pruning import base


@dataclass
class PruningHparams(base.PruningHparams):
    """Nothing beyond what every strategy takes."""

    _name = "Hyperparameters of Global Magnitude Pruning"
    _description = "The smallest weights go, wherever they are."


class Strategy(base.Strategy):
    """The weights of smallest magnitude go, all layers taken together."""

    @staticmethod
    def get_pruning_hparams() -> type[PruningHparams]:
        return PruningHparams

    @staticmethod
    def score(problem: base.Problem) -> base.Score:
        weights = problem.rows(problem.model.state_dict())
        return lambda name, network: weights(name, network).abs()
