"""The hyperparameters that a model family trains well with."""

from __future__ import annotations

import dataclasses

from foundations.dataset_hparams import DatasetHparams
from foundations.extraction_hparams import ExtractionHparams
from foundations.model_hparams import ModelHparams
from foundations.training_hparams import TrainingHparams


@dataclasses.dataclass
class DefaultHparams:
    """What `--default_hparams=NAME` fills in. A workflow takes the groups that it needs.

    Pruning is given as plain data, because models do not know the strategies: the name of a strategy and, where it is not None, the value
    of `pruning_layers_to_ignore`. The other hyperparameters of the strategy have their own defaults.
    """

    dataset_hparams: DatasetHparams
    model_hparams: ModelHparams
    training_hparams: TrainingHparams
    extraction_hparams: ExtractionHparams | None = None
    pruning_strategy: str = "sparse_global"
    pruning_layers_to_ignore: str | None = None
