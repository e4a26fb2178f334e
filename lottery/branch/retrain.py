"""Tickets that are trained with other hyperparameters or on other data."""

from __future__ import annotations

from datasets import registry as datasets
from foundations.dataset_hparams import DatasetHparams
from foundations.training_hparams import TrainingHparams
from lottery.branch import base


class Branch(base.Branch):
    """Retrain the model with different hyperparameters.

    Masks and initial weights are those of the levels.
    """

    def branch_function(self, retrain_d: DatasetHparams, retrain_t: TrainingHparams, start_at_step_zero: bool = False) -> None:
        """Trains the initial weights of the level with other hyperparameters.

        Args:
            start_at_step_zero: train from step 0, even if the experiment starts at a later step.
        """
        loaders = datasets.get_both(retrain_d, retrain_t, self.trunk.seed)
        self.train(self.ticket(), self.mask, loaders, retrain_t, start_at_step_zero)
