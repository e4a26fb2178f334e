"""Magnitude pruning at a lower fraction in the output layer, after *The Lottery Ticket Hypothesis* (Frankle & Carbin 2019,
arXiv:1803.03635)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pruning import base, hparams, magnitude


@dataclass
class PruningHparams(hparams.PruningHparams):
    """Adds separate fractions for convolutional layers and for the output layer, and whether layers are pruned separately."""

    pruning_conv_fraction: float | None = None
    pruning_output_fraction: float | None = None
    pruning_layerwise: bool = False

    _name = "Hyperparameters of Magnitude Pruning with an Output Fraction"
    _description = "Removes the weights of smallest magnitude, half as large a fraction from the output layer."
    _pruning_conv_fraction = (
        "The fraction for convolutional layers (if left out, --pruning_fraction; the paper uses 0.1 or 0.15 together with 0.2)."
    )
    _pruning_output_fraction = "The fraction for the output layer (if left out, half of --pruning_fraction)."
    _pruning_layerwise = "Prune each layer separately, as in the paper, instead of all layers before the output layer together."

    def __post_init__(self):
        super().__post_init__()
        for field in ("pruning_conv_fraction", "pruning_output_fraction"):
            if getattr(self, field) is not None:
                self.require_fraction(field)


class Strategy(magnitude.Strategy[PruningHparams]):
    """Removes the weights of smallest magnitude from the output layer, at half the fraction, and from all other layers together.

    With default hyperparameters, masks equal those of the published Expand-and-Cluster code. The paper prunes each layer separately
    instead, which is `--pruning_layerwise`, and convolutional layers at a fraction of their own; with such a fraction, they form a group.
    Ignored layers count for the group to which they would belong.
    """

    @staticmethod
    def get_pruning_hparams() -> type[PruningHparams]:
        return PruningHparams

    @staticmethod
    def groups(problem: base.Problem[PruningHparams]) -> list[magnitude.Group]:
        hparams, output = problem.hparams, problem.model.output_layer_names
        if hparams.pruning_layerwise:
            return [magnitude.Group([name], [name], _fraction(problem, name)) for name in problem.layers]
        groups: dict[tuple[bool, bool], list[str]] = {}
        for name, kept in problem.mask.items():
            is_separate_convolution = hparams.pruning_conv_fraction is not None and _is_convolution(kept)
            groups.setdefault((name in output, is_separate_convolution), []).append(name)
        pairs = [([name for name in counted if name in problem.layers], counted) for counted in groups.values()]
        return [magnitude.Group(layers, counted, _fraction(problem, layers[0])) for layers, counted in pairs if layers]


def _fraction(problem: base.Problem[PruningHparams], name: str) -> float:
    """The fraction that is removed from the group of a layer."""
    hparams = problem.hparams
    if name in problem.model.output_layer_names:
        return hparams.pruning_output_fraction or hparams.pruning_fraction / 2
    if hparams.pruning_conv_fraction is not None and _is_convolution(problem.mask[name]):
        return hparams.pruning_conv_fraction
    return hparams.pruning_fraction


def _is_convolution(kept: torch.Tensor) -> bool:
    """Whether a mask is that of a convolution `[outputs, inputs, height, width]`."""
    return kept.dim() == 4
