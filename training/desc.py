"""The descriptor of a training run, whose hash names the run."""

from __future__ import annotations

import argparse
import dataclasses

from foundations.arguments import ArgumentParser
from foundations.dataset_hparams import DatasetHparams
from foundations.desc import Desc
from foundations.model_hparams import ModelHparams
from foundations.training_hparams import TrainingHparams


@dataclasses.dataclass
class TrainingDesc(Desc):
    """The hyperparameters of a dataset, of a model, and of its training."""

    dataset_hparams: DatasetHparams
    model_hparams: ModelHparams
    training_hparams: TrainingHparams

    @staticmethod
    def name_prefix() -> str:
        return "train"

    @staticmethod
    def add_args(parser: ArgumentParser, defaults: TrainingDesc | None = None) -> None:
        """Adds the flags of the three groups, with `defaults` as their default values."""
        from datasets import registry as datasets
        from models import registry as models
        from training import optimizers

        DatasetHparams.add_args(parser, defaults and defaults.dataset_hparams, choices=datasets.choices())
        ModelHparams.add_args(parser, defaults and defaults.model_hparams, choices=models.choices())
        TrainingHparams.add_args(parser, defaults and defaults.training_hparams, choices=optimizers.choices())

    @staticmethod
    def create_from_args(args: argparse.Namespace) -> TrainingDesc:
        """The descriptor of parsed flags, with the full name of the model."""
        from models import registry as models

        model_hparams = ModelHparams.create_from_args(args)
        model_hparams.model_name = models.resolve(model_hparams.model_name)
        return TrainingDesc(DatasetHparams.create_from_args(args), model_hparams, TrainingHparams.create_from_args(args))

    @staticmethod
    def default_for(model_name: str) -> TrainingDesc:
        """The descriptor of a model's default run."""
        from models import registry as models

        defaults = models.get_default_hparams(model_name)
        return TrainingDesc(defaults.dataset_hparams, defaults.model_hparams, defaults.training_hparams)
