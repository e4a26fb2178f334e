"""The descriptor of an extraction, which names its folders: one for the students, one for the network that is recovered from them."""

from __future__ import annotations

import argparse
import dataclasses
import os

from foundations.arguments import ArgumentParser
from foundations.desc import existing_folder, fingerprint
from foundations.extraction_hparams import LINKAGES, SEEDS, ExtractionHparams
from foundations.hparams import Hparams
from foundations.seeds import NOT_CHOSEN
from training.desc import TrainingDesc


@dataclasses.dataclass
class ExtractionDesc(TrainingDesc):
    """Students, the teacher that they imitate, their training, and how the network is recovered from them.

    The name of the folder `extract_<md5>` depends on everything that trains the students. Inside a run, the name of the folder
    `clustering_<md5>` depends on the hyperparameters of the extraction alone, so that many extractions share the students.
    """

    extraction_hparams: ExtractionHparams

    @staticmethod
    def name_prefix() -> str:
        return "extract"

    def bundles(self) -> dict[str, Hparams]:
        return {name: bundle for name, bundle in super().bundles().items() if name != "extraction_hparams"}

    @property
    def clustering_hashname(self) -> str:
        """The name of the folder of results."""
        return f"clustering_{fingerprint(self.extraction_hparams)}"

    def clustering_path(self, root: str, seed: int = NOT_CHOSEN) -> str:
        """The folder of results of the run with a given seed."""
        older = f"clustering_{fingerprint(self.extraction_hparams, text=Hparams.text_as_written)}"
        return existing_folder(*(os.path.join(self.run_path(root, seed), name) for name in (self.clustering_hashname, older)))

    @staticmethod
    def add_args(parser: ArgumentParser, defaults: ExtractionDesc | None = None) -> None:
        from datasets.image_registry import registered_images
        from training import optimizers

        TrainingDesc.add_args(parser, defaults)
        choices = {"finetune_optimizer": optimizers.OPTIMIZERS, "linkage": LINKAGES, "boruta": list(registered_images), "seeds_from": SEEDS}
        ExtractionHparams.add_args(parser, defaults and defaults.extraction_hparams, choices=choices)

    @staticmethod
    def create_from_args(args: argparse.Namespace) -> ExtractionDesc:
        training, extraction_hparams = TrainingDesc.create_from_args(args), ExtractionHparams.create_from_args(args)
        return ExtractionDesc(training.dataset_hparams, training.model_hparams, training.training_hparams, extraction_hparams)

    @staticmethod
    def default_for(model_name: str) -> ExtractionDesc:
        from models import registry as models

        defaults = models.get_default_hparams(model_name)
        training = defaults.dataset_hparams, defaults.model_hparams, defaults.training_hparams
        return ExtractionDesc(*training, defaults.extraction_hparams or ExtractionHparams())
