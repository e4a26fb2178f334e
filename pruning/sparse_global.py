"""Global magnitude pruning, as in *Stabilizing the Lottery Ticket Hypothesis* (Frankle, Dziugaite, Roy & Carbin 2019, arXiv:1903.01611)."""

from __future__ import annotations

from dataclasses import dataclass

from pruning import base, hparams, magnitude


@dataclass
class PruningHparams(hparams.PruningHparams):
    """The shared hyperparameters only."""

    _name = "Hyperparameters of Global Magnitude Pruning"
    _description = "Removes the weights of smallest magnitude in the whole network."
    _pruning_fraction = "The fraction of the remaining weights, ignored layers included, that each pruning step removes."


class Strategy(magnitude.Strategy[PruningHparams]):
    """Removes the weights of smallest magnitude, comparing all layers with each other. Masks equal those of OpenLTH.

    Weights of ignored layers are counted, although they are not removed.
    """

    @staticmethod
    def get_pruning_hparams() -> type[PruningHparams]:
        return PruningHparams

    @staticmethod
    def groups(problem: base.Problem[PruningHparams]) -> list[magnitude.Group]:
        return [magnitude.Group(problem.layers, list(problem.mask), problem.hparams.pruning_fraction)]
