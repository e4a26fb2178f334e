"""The default hyperparameters of a model family."""

from __future__ import annotations

import dataclasses

from foundations.dataset_hparams import DatasetHparams
from foundations.extraction_hparams import ExtractionHparams
from foundations.model_hparams import ModelHparams
from foundations.training_hparams import TrainingHparams


@dataclasses.dataclass
class DefaultHparams:
    """The values that `--default_hparams=NAME` sets. A workflow uses the groups that it needs.

    Models do not import pruning strategies, so pruning is plain data: the name of a strategy and the value of
    `pruning_layers_to_ignore` (None: the strategy's default). The other hyperparameters of the strategy have their own defaults.
    """

    dataset_hparams: DatasetHparams
    model_hparams: ModelHparams
    training_hparams: TrainingHparams
    extraction_hparams: ExtractionHparams | None = None
    pruning_strategy: str = "sparse_global"
    pruning_layers_to_ignore: str | None = None
