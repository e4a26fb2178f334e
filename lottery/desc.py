"""What names a lottery ticket experiment: training, pruning, and what comes before the first level."""

from __future__ import annotations

import argparse
import dataclasses
import os
import types

from foundations import step
from foundations.arguments import ArgumentParser
from foundations.dataset_hparams import DatasetHparams
from foundations.desc import display_text
from foundations.errors import ConfigError
from foundations.hparams import Hparams
from foundations.seeds import NOT_CHOSEN
from foundations.step import Step
from foundations.training_hparams import TrainingHparams
from pruning.hparams import PruningHparams
from training.desc import TrainingDesc

PRETRAIN = "pretrain"  # what the flags of pretraining, its fields and its folder begin with


@dataclasses.dataclass
class PretrainingArgs(Hparams):
    """The two ways to say what comes before level 0."""

    rewinding_steps: str | None = None
    pretrain: bool = False

    _name = "Rewinding and Pretraining"
    _description = "What weights are rewound to. Without these, it is their values at initialisation."
    _rewinding_steps = "Rewind to the weights at this step of training, such as 500it or 2ep."
    _pretrain = (
        "Rewind to the weights after a training of its own: --help then lists its --pretrain_ flags. Left out, they are as for training."
    )

    def __post_init__(self):
        if self.rewinding_steps is not None:
            step.parse(self.rewinding_steps, "--rewinding_steps")
            self.require("rewinding_steps", not self.pretrain, "none beside --pretrain, which has --pretrain_training_steps")


@dataclasses.dataclass
class LotteryDesc(TrainingDesc):
    """How networks are trained and pruned in turn.

    Where there are hyperparameters of pretraining, weights are rewound to what it ends with, and training goes on from the step that
    pretraining has reached. Rewinding to a step of training is pretraining with the same hyperparameters for as long.
    """

    pruning_hparams: PruningHparams
    pretrain_dataset_hparams: DatasetHparams | None = None
    pretrain_training_hparams: TrainingHparams | None = None

    @staticmethod
    def name_prefix() -> str:
        return "lottery"

    def run_path(self, root: str, seed: int = NOT_CHOSEN, level: int | str = 0, experiment: str = "main") -> str:
        """The folder of a level, by number or `pretrain`; `experiment` is `main` or the name of a branch."""
        return os.path.join(self.seed_path(root, seed), f"level_{level}", experiment)

    def seed_path(self, root: str, seed: int = NOT_CHOSEN) -> str:
        """The folder of all levels."""
        return os.path.join(root, self.hashname, f"seed_{seed}")

    @property
    def pretrain_desc(self) -> TrainingDesc | None:
        """Pretraining as a training run of its own; None where there is none."""
        if self.pretrain_training_hparams is None:
            return None
        return TrainingDesc(self.pretrain_dataset_hparams, self.model_hparams, self.pretrain_training_hparams)

    @property
    def rewinds_to_training(self) -> bool:
        """Whether pretraining is the beginning of training itself."""
        as_long = dataclasses.replace(self.pretrain_training_hparams, training_steps=self.training_hparams.training_steps)
        return (self.pretrain_dataset_hparams, as_long) == (self.dataset_hparams, self.training_hparams)

    def start_step(self, iterations_per_epoch: int) -> Step:
        """The step of training that levels start from.

        Raises:
            ConfigError: it is the last or later.
        """
        if self.pretrain_training_hparams is None:
            return Step.zero(iterations_per_epoch)
        texts = self.pretrain_training_hparams.training_steps, self.training_hparams.training_steps
        start, end = (Step.from_str(text, iterations_per_epoch) for text in texts)
        if start >= end:
            raise ConfigError(f"--pretrain_training_steps or --rewinding_steps: {texts[0]} leaves nothing of the {texts[1]} of training")
        return start

    @property
    def display(self) -> str:
        main = display_text([self.dataset_hparams, self.model_hparams, self.training_hparams, self.pruning_hparams])
        if self.pretrain_training_hparams is None:
            return main
        if self.rewinds_to_training:
            return f"{main}\nRewinding\n    * rewinding_steps => {self.pretrain_training_hparams.training_steps}"
        before = display_text([self.pretrain_dataset_hparams, self.pretrain_training_hparams])
        return f"{main}\nPretraining\n{before.replace('    * ', f'    * {PRETRAIN}_')}"

    @property
    def log(self) -> str:
        return self.display

    @staticmethod
    def add_args(parser: ArgumentParser, defaults: LotteryDesc | None = None) -> None:
        from datasets import registry as datasets
        from pruning import registry as pruning
        from training import optimizers

        TrainingDesc.add_args(parser, defaults)
        pruning.add_args(parser, defaults and defaults.pruning_hparams)
        PretrainingArgs.add_args(parser)
        if "--pretrain" in parser.arguments:
            DatasetHparams.add_args(parser, left_out(DatasetHparams), PRETRAIN, datasets.choices())
            TrainingHparams.add_args(parser, left_out(TrainingHparams), PRETRAIN, optimizers.choices())

    @staticmethod
    def create_from_args(args: argparse.Namespace) -> LotteryDesc:
        from pruning import registry as pruning

        training = TrainingDesc.create_from_args(args)
        return LotteryDesc(*vars(training).values(), pruning.create_from_args(args), *_pretraining(args, training))

    @staticmethod
    def default_for(model_name: str) -> LotteryDesc:
        from models import registry as models
        from pruning import registry as pruning

        defaults = models.get_default_hparams(model_name)
        pruning_hparams = pruning.default_hparams(defaults.pruning_strategy, defaults.pruning_layers_to_ignore)
        return LotteryDesc(*vars(TrainingDesc.default_for(model_name)).values(), pruning_hparams)


def left_out(kind: type[Hparams]) -> types.SimpleNamespace:
    """Defaults for the flags of a bundle that say of each whether it was given: None where it was not."""
    return types.SimpleNamespace(**{field.name: None for field in dataclasses.fields(kind)})


def inherit(args: argparse.Namespace, prefix: str, bundle: Hparams) -> Hparams:
    """The bundle that the flags `--prefix_field` describe, which were added with `left_out`; those not given are as in another bundle.

    Another dataset takes over the size of the batches only.
    """
    name = getattr(args, f"{prefix}_dataset_name", None)
    if isinstance(bundle, DatasetHparams) and name not in (None, bundle.dataset_name):
        bundle = DatasetHparams(name, bundle.batch_size)
    fields = [(f"{prefix}_{field.name}", getattr(bundle, field.name)) for field in dataclasses.fields(bundle)]
    given = {flag: getattr(args, flag) for flag, _ in fields if getattr(args, flag) is not None}
    return type(bundle).create_from_args(argparse.Namespace(**dict(fields) | given), prefix)


def _pretraining(args: argparse.Namespace, training: TrainingDesc) -> tuple[DatasetHparams | None, TrainingHparams | None]:
    """What the flags say of the time before level 0."""
    chosen = PretrainingArgs.create_from_args(args)
    if chosen.pretrain:
        if args.pretrain_training_steps is None:
            raise ConfigError("--pretrain_training_steps is required with --pretrain")
        return inherit(args, PRETRAIN, training.dataset_hparams), inherit(args, PRETRAIN, training.training_hparams)
    if chosen.rewinding_steps is None or not any(step.parse(chosen.rewinding_steps)):
        return None, None
    steps = dataclasses.replace(training.training_hparams, training_steps=chosen.rewinding_steps)
    return dataclasses.replace(training.dataset_hparams), steps
