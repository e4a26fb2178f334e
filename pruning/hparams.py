"""The hyperparameters of pruning that every strategy extends."""

from __future__ import annotations

from dataclasses import dataclass

from foundations.hparams import Hparams


@dataclass
class PruningHparams(Hparams):
    """How a network is pruned; each strategy has its own subclass."""

    pruning_strategy: str

    _name = "Pruning Hyperparameters"
    _description = "The strategy, and what it takes."
    _pruning_strategy = "The pruning strategy."
