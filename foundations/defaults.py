"""The hyperparameters that a model family trains well with."""

from __future__ import annotations

import dataclasses

from foundations.hparams import DatasetHparams, ExtractionHparams, ModelHparams, PruningHparams, TrainingHparams


@dataclasses.dataclass
class DefaultHparams:
    """What `--default_hparams=NAME` fills in. A workflow takes the groups that it needs."""

    dataset_hparams: DatasetHparams
    model_hparams: ModelHparams
    training_hparams: TrainingHparams
    extraction_hparams: ExtractionHparams | None = None
    pruning_hparams: PruningHparams | None = None
