"""Global magnitude pruning, as in *Stabilizing the Lottery Ticket Hypothesis* (Frankle, Dziugaite, Roy & Carbin 2019, arXiv:1903.01611)."""

from __future__ import annotations

from dataclasses import dataclass

from pruning import base, hparams


@dataclass
class PruningHparams(hparams.PruningHparams):
    """The shared hyperparameters only."""

    _name = "Hyperparameters of Global Magnitude Pruning"
    _description = "Removes the weights of smallest magnitude in the whole network."


class Strategy(base.Strategy[PruningHparams]):
    """Removes the weights of smallest magnitude, comparing all layers with each other."""

    @staticmethod
    def get_pruning_hparams() -> type[PruningHparams]:
        return PruningHparams

    @staticmethod
    def score(problem: base.Problem[PruningHparams]) -> base.Score:
        return magnitude_score(problem)


def magnitude_score(problem: base.Problem) -> base.Score:
    """The magnitude of each weight."""
    weights = problem.score_by_tensor(problem.model.state_dict())
    return lambda name, network: weights(name, network).abs()
