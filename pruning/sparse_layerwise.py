"""Magnitude pruning of each layer by itself, at the same fraction in all layers."""

from __future__ import annotations

from dataclasses import dataclass

from pruning import base, hparams, magnitude


@dataclass
class PruningHparams(hparams.PruningHparams):
    """The shared hyperparameters only."""

    _name = "Hyperparameters of Layer-Wise Magnitude Pruning"
    _description = "Removes the weights of smallest magnitude in each layer, the same fraction from all layers."


class Strategy(magnitude.Strategy[PruningHparams]):
    """Removes the weights of smallest magnitude from each layer separately. Masks equal those of OpenLTH's strategy of this name.

    That strategy keeps the weights at the threshold, so that exactly `ceil(fraction * n)` weights are removed unless weights are equal.
    OpenLTH also ignores layers whose name is a part of a name to ignore, which is a bug of its and is not followed here.
    """

    keeps_threshold = True

    @staticmethod
    def get_pruning_hparams() -> type[PruningHparams]:
        return PruningHparams

    @staticmethod
    def groups(problem: base.Problem[PruningHparams]) -> list[magnitude.Group]:
        return [magnitude.Group([name], [name], problem.hparams.pruning_fraction) for name in problem.layers]
