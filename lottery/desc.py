"""The descriptor of a lottery ticket experiment: training, pruning, and rewinding or pretraining."""

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
from foundations.hparams import Bundle, Hparams
from foundations.seeds import NOT_CHOSEN
from foundations.step import Step
from foundations.training_hparams import TrainingHparams
from pruning.hparams import PruningHparams
from training.desc import TrainingDesc

PRETRAIN = "pretrain"  # the prefix of the flags and fields of pretraining, and the level name of its folder


@dataclasses.dataclass
class PretrainingArgs(Hparams):
    """The two ways to choose the weights that levels are rewound to."""

    rewinding_steps: str | None = None
    pretrain: bool = False

    _name = "Rewinding and Pretraining"
    _description = "The weights that levels are rewound to. Without these flags, these are the weights at initialisation."
    _rewinding_steps = "Rewind to the weights at this step of training, such as 500it or 2ep."
    _pretrain = (
        "Rewind to the weights after a separate pretraining. With this flag, --help lists the --pretrain_ flags; their defaults are "
        "those of training."
    )

    def __post_init__(self):
        if self.rewinding_steps is not None:
            step.parse(self.rewinding_steps, "--rewinding_steps")
            self.require("rewinding_steps", not self.pretrain, "no value together with --pretrain, which uses --pretrain_training_steps")


@dataclasses.dataclass
class LotteryDesc(TrainingDesc):
    """How networks are alternately trained and pruned.

    With hyperparameters of pretraining, weights are rewound to the end of pretraining, and training continues from the last step of
    pretraining. Rewinding to a step of training is pretraining with the same hyperparameters up to that step.
    """

    pruning_hparams: PruningHparams
    pretrain_dataset_hparams: DatasetHparams | None = None
    pretrain_training_hparams: TrainingHparams | None = None

    @staticmethod
    def name_prefix() -> str:
        return "lottery"

    def run_path(self, root: str, seed: int = NOT_CHOSEN, level: int | str = 0, experiment: str = "main") -> str:
        """The folder of a level (a number or `pretrain`); `experiment` is `main` or the name of a branch's folder."""
        return os.path.join(self.seed_path(root, seed), f"level_{level}", experiment)

    @property
    def pretrain_desc(self) -> TrainingDesc | None:
        """Pretraining as a separate training run; None if there is no pretraining."""
        if self.pretrain_dataset_hparams is None or self.pretrain_training_hparams is None:
            return None
        return TrainingDesc(self.pretrain_dataset_hparams, self.model_hparams, self.pretrain_training_hparams)

    @property
    def rewinds_to_training(self) -> bool:
        """Whether pretraining is identical to the first steps of training."""
        pretraining = self.pretrain_desc
        if pretraining is None:
            return False
        same_length = dataclasses.replace(pretraining.training_hparams, training_steps=self.training_hparams.training_steps)
        return (pretraining.dataset_hparams, same_length) == (self.dataset_hparams, self.training_hparams)

    def check_start(self, examples: int | None) -> None:
        """Checks the step of training at which levels start, as far as it is known; `examples` is the number of training examples.

        Raises:
            ConfigError: training ends at this step or earlier.
        """
        if examples is not None:
            self.start_step(-(-examples // self.dataset_hparams.batch_size))
        elif self.pretrain_training_hparams is not None:
            start, end = (step.parse(each.training_steps) for each in (self.pretrain_training_hparams, self.training_hparams))
            if start[0] >= end[0] and start[1] >= end[1]:  # for any number of iterations in an epoch
                self.start_step(1)

    def start_step(self, iterations_per_epoch: int) -> Step:
        """The step of training at which levels start.

        Raises:
            ConfigError: training ends at this step or earlier.
        """
        if self.pretrain_training_hparams is None:
            return Step.zero(iterations_per_epoch)
        texts = self.pretrain_training_hparams.training_steps, self.training_hparams.training_steps
        start, end = (Step.from_str(text, iterations_per_epoch) for text in texts)
        if start >= end:
            raise ConfigError(
                f"--pretrain_training_steps or --rewinding_steps: {texts[0]} is out of range; valid: less than the {texts[1]} of training"
            )
        return start

    @property
    def display(self) -> str:
        main = display_text([self.dataset_hparams, self.model_hparams, self.training_hparams, self.pruning_hparams])
        if self.pretrain_training_hparams is None:
            return main
        if self.rewinds_to_training:
            return f"{main}\nRewinding\n    * rewinding_steps => {self.pretrain_training_hparams.training_steps}"
        pretraining = display_text([self.pretrain_dataset_hparams, self.pretrain_training_hparams])
        return f"{main}\nPretraining\n{pretraining.replace('    * ', f'    * {PRETRAIN}_')}"

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
            DatasetHparams.add_args(parser, unset_defaults(DatasetHparams), PRETRAIN, datasets.choices())
            TrainingHparams.add_args(parser, unset_defaults(TrainingHparams), PRETRAIN, optimizers.choices())

    @staticmethod
    def create_from_args(args: argparse.Namespace) -> LotteryDesc:
        from pruning import registry as pruning

        training = TrainingDesc.create_from_args(args)
        pruning_hparams = pruning.create_from_args(args)
        hparams = training.dataset_hparams, training.model_hparams, training.training_hparams
        return LotteryDesc(*hparams, pruning_hparams, *_pretraining(args, training))

    @staticmethod
    def default_for(model_name: str) -> LotteryDesc:
        from models import registry as models
        from pruning import registry as pruning

        defaults = models.get_default_hparams(model_name)
        pruning_hparams = pruning.default_hparams(defaults.pruning_strategy, defaults.pruning_layers_to_ignore)
        return LotteryDesc(defaults.dataset_hparams, defaults.model_hparams, defaults.training_hparams, pruning_hparams)


def unset_defaults(hparams_class: type[Hparams]) -> types.SimpleNamespace:
    """The default None for each flag of a bundle, so that `inherit` can recognise flags without a value."""
    return types.SimpleNamespace(**{field.name: None for field in dataclasses.fields(hparams_class)})


def inherit(args: argparse.Namespace, prefix: str, bundle: Bundle) -> Bundle:
    """The bundle that the flags `--prefix_field` describe. Flags without a value get the values of another bundle.

    The flags must have been added with `unset_defaults`. If they name another dataset, only the batch size is inherited.
    """
    source: Hparams = bundle
    name = getattr(args, f"{prefix}_dataset_name", None)
    if isinstance(bundle, DatasetHparams) and name not in (None, bundle.dataset_name):
        source = DatasetHparams(name, bundle.batch_size)
    inherited = {f"{prefix}_{field.name}": getattr(source, field.name) for field in dataclasses.fields(source)}
    chosen = {flag: getattr(args, flag) for flag in inherited if getattr(args, flag) is not None}
    return type(bundle).create_from_args(argparse.Namespace(**inherited | chosen), prefix)


def _pretraining(args: argparse.Namespace, training: TrainingDesc) -> tuple[DatasetHparams | None, TrainingHparams | None]:
    """The hyperparameters of pretraining from the flags; None if there is no pretraining."""
    pretraining = PretrainingArgs.create_from_args(args)
    if pretraining.pretrain:
        if args.pretrain_training_steps is None:
            raise ConfigError("--pretrain_training_steps is required with --pretrain")
        return inherit(args, PRETRAIN, training.dataset_hparams), inherit(args, PRETRAIN, training.training_hparams)
    if pretraining.rewinding_steps is None or not any(step.parse(pretraining.rewinding_steps)):
        return None, None
    training_hparams = dataclasses.replace(training.training_hparams, training_steps=pretraining.rewinding_steps)
    return dataclasses.replace(training.dataset_hparams), training_hparams
