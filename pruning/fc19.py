"""Layer-wise magnitude pruning, as in *The Lottery Ticket Hypothesis* (Frankle & Carbin 2019, arXiv:1803.03635)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from pruning import base, hparams, sparse_global


@dataclass
class PruningHparams(hparams.PruningHparams):
    """Adds separate fractions for convolutional layers and for the output layer."""

    pruning_conv_fraction: float | None = None
    pruning_output_fraction: float | None = None

    _name = "Hyperparameters of Layer-Wise Magnitude Pruning"
    _description = "Removes the weights of smallest magnitude from each layer, half as large a fraction from the output layer."
    _pruning_conv_fraction = (
        "The fraction for convolutional layers (if left out, --pruning_fraction; the paper uses 0.1 or 0.15 together with 0.2)."
    )
    _pruning_output_fraction = "The fraction for the output layer (if left out, half of --pruning_fraction)."

    def __post_init__(self):
        super().__post_init__()
        for field in ("pruning_conv_fraction", "pruning_output_fraction"):
            if getattr(self, field) is not None:
                self.require_fraction(field)


class Strategy(base.Strategy[PruningHparams]):
    """Removes the weights of smallest magnitude from each layer separately.

    The output layer has few weights and is pruned at half the fraction. Convolutional layers can have a fraction of their own.
    """

    @staticmethod
    def get_pruning_hparams() -> type[PruningHparams]:
        return PruningHparams

    @staticmethod
    def score(problem: base.Problem[PruningHparams]) -> base.Score:
        return sparse_global.magnitude_score(problem)

    @staticmethod
    def quotas(problem: base.Problem[PruningHparams]) -> list[tuple[list[str], list[int]]]:
        return [([name], problem.removal_counts([name], _fraction(problem, name))) for name in problem.layers]


def _fraction(problem: base.Problem[PruningHparams], name: str) -> float | Fraction | None:
    """The fraction that is removed from a layer; None stands for `--pruning_fraction`."""
    hparams = problem.hparams
    if name in problem.model.output_layer_names:
        return hparams.pruning_output_fraction or Fraction(str(hparams.pruning_fraction)) / 2
    return hparams.pruning_conv_fraction if problem.mask[name].dim() == 4 else None
