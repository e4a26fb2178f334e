"""Layer-wise magnitude pruning, as in *The Lottery Ticket Hypothesis* (Frankle & Carbin 2019, arXiv:1803.03635)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from pruning import base, sparse_global


@dataclass
class PruningHparams(base.PruningHparams):
    """A rate for each kind of layer."""

    pruning_conv_fraction: float | None = None
    pruning_output_fraction: float | None = None

    _name = "Hyperparameters of Layer-Wise Magnitude Pruning"
    _description = "The smallest weights of each layer go, those of the output layer at half the rate."
    _pruning_conv_fraction = "The share for convolutional layers (when left out, --pruning_fraction; the paper has 0.1 or 0.15 beside 0.2)."
    _pruning_output_fraction = "The share for the output layer (when left out, half of --pruning_fraction)."

    def __post_init__(self):
        super().__post_init__()
        for field in ("pruning_conv_fraction", "pruning_output_fraction"):
            if getattr(self, field) is not None:
                self.require_fraction(field)


class Strategy(sparse_global.Strategy):
    """The weights of smallest magnitude go from every layer by itself.

    The output layer has few weights and loses them at half the rate; convolutional layers can have a rate of their own.
    """

    @staticmethod
    def get_pruning_hparams() -> type[PruningHparams]:
        return PruningHparams

    @staticmethod
    def quotas(problem: base.Problem) -> list[tuple[list[str], list[int]]]:
        return [([name], problem.asked([name], _fraction(problem, name))) for name in problem.layers]


def _fraction(problem: base.Problem, name: str) -> float | Fraction | None:
    """The share that a layer loses; None stands for `--pruning_fraction`."""
    hparams = problem.hparams
    if name in problem.model.output_layer_names:
        return hparams.pruning_output_fraction or Fraction(str(hparams.pruning_fraction)) / 2
    return hparams.pruning_conv_fraction if problem.mask[name].dim() == 4 else None
