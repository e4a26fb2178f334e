"""The pruning hyperparameters that all strategies share."""

from __future__ import annotations

from dataclasses import dataclass

from foundations.hparams import Hparams


@dataclass
class PruningHparams(Hparams):
    """How a network is pruned. Each strategy has its own subclass."""

    pruning_strategy: str
    pruning_fraction: float = 0.2
    pruning_layers_to_ignore: str | None = None

    _name = "Pruning Hyperparameters"
    _description = "The pruning strategy and its hyperparameters."
    _pruning_strategy = "The pruning strategy."
    _pruning_fraction = "The fraction of the remaining weights that each pruning step removes."
    _pruning_layers_to_ignore = "Names of layers that are not pruned, such as fc.weight, joined by commas."

    def __post_init__(self):
        self.require_fraction("pruning_fraction")

    def require_fraction(self, field: str) -> None:
        """Raises a ConfigError unless a field lies strictly between 0 and 1."""
        self.require(field, 0 < getattr(self, field) < 1, "more than 0 and less than 1")
