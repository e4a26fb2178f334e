"""The base of every branch: an ablation of the networks of a lottery ticket experiment.

A branch is a subclass with a `branch_function(self, ...)`. The arguments of this function are the flags of the branch, and name its folder.
An argument is annotated with bool, int, float or str (any of them `| None`), with a `Literal` of strings, or with a bundle of
hyperparameters. Its help text is in the docstring under `Args:`. For a bundle of dataset or training hyperparameters, flags that are left
out have the values of the trunk.
"""

from __future__ import annotations

import abc
import argparse
import dataclasses
import inspect
import os
import types
from collections.abc import Callable
from typing import ClassVar

from datasets import registry as datasets
from datasets.base import DataLoader
from foundations import paths
from foundations.arguments import ArgumentParser
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError
from foundations.hparams import Hparams
from foundations.runner import Runner
from foundations.seeds import derive
from foundations.step import Step
from foundations.training_hparams import TrainingHparams
from lottery import report
from lottery import runner as trunk_runner
from lottery.branch.arguments import BranchArguments, LevelRangeArgs, arguments_of, trunk_command
from lottery.branch.desc import BranchDesc
from lottery.desc import LotteryDesc, inherit, unset_defaults
from lottery.trunk import Trunk
from models import registry as models
from models.base import Model
from platforms.platform import get_platform
from platforms.system import locks, provenance
from pruning.mask import Mask
from pruning.pruned_model import PrunedModel
from training import adoption, batches, optimizers, plotting, run_records, teachers
from training import job as training_job
from training.desc import TrainingDesc
from training.job import JobArgs
from training.train import standard_train

INHERITED = (DatasetHparams, TrainingHparams)


@dataclasses.dataclass
class Branch(Runner, abc.ABC):
    """A branch of some levels of a trunk. Within `branch_function`, `level` is the current level."""

    name: ClassVar[str]
    Arguments: ClassVar[type[BranchArguments]]

    desc: BranchDesc
    job: JobArgs
    levels: list[int]
    shape: tuple[int, int]
    prepare: Callable[[], None]
    level: int = dataclasses.field(default=0, init=False)
    _trunk: Trunk | None = dataclasses.field(default=None, init=False)

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.name = cls.__module__.rpartition(".")[2]
        cls.Arguments = arguments_of(cls.branch_function, cls.validate)

    @abc.abstractmethod
    def branch_function(self) -> None:
        """Runs one level of the branch in `branch_root`, and resumes it if it was interrupted."""

    @classmethod
    def description(cls) -> str:
        return (inspect.getdoc(cls) or cls.name).splitlines()[0]

    @staticmethod
    def validate(arguments: BranchArguments) -> None:
        """Raises a ConfigError for arguments out of range (`arguments.require`). Arguments with a closed list are checked before."""

    # For use in `branch_function`.

    @property
    def trunk(self) -> Trunk:
        """The experiment that the branch belongs to, with its seed and its data."""
        assert self._trunk is not None, "the trunk is opened before branch_function is called"
        return self._trunk

    @property
    def lottery_desc(self) -> LotteryDesc:
        """The hyperparameters of the trunk."""
        return self.desc.lottery_desc

    @property
    def arguments(self) -> BranchArguments:
        """The arguments of `branch_function`."""
        assert isinstance(self.desc.branch_hparams, BranchArguments)
        return self.desc.branch_hparams

    @property
    def level_root(self) -> str:
        """The folder of the current level of the trunk."""
        return self.location(self.level, trunk=True)

    @property
    def branch_root(self) -> str:
        """The folder of the current level of the branch."""
        return self.location(self.level)

    @property
    def mask(self) -> Mask:
        """The mask of the current level."""
        return self.trunk.read_mask(self.level)

    def ticket(self) -> Model:
        """The network with the initial weights of the current level; pruned weights are 0."""
        model = self.trunk.new(self.trunk.seed)
        models.load_weights(paths.model(self.level_root, self.trunk.start), model)
        return model

    def derived_seed(self, seed: int | None, *purpose: object) -> int:
        """A seed for a random stream of the branch, derived from `seed`, or from the seed of the run if `seed` is None."""
        return derive(self.trunk.seed if seed is None else seed, self.name, *purpose)

    def loaders(self) -> tuple[DataLoader, DataLoader]:
        """New loaders of the trunk's training and test set."""
        return datasets.get_both(self.lottery_desc.dataset_hparams, self.lottery_desc.training_hparams, self.trunk.seed)

    def train(
        self,
        model: Model,
        mask: Mask,
        loaders: tuple[DataLoader, DataLoader] | None = None,
        training_hparams: TrainingHparams | None = None,
        from_zero: bool = False,
        location: str | None = None,
    ) -> PrunedModel:
        """Trains a network with a mask. Arguments that are left out have the values of the trunk.

        Args:
            model: the network; it is changed in place.
            mask: the remaining weights.
            loaders: the loaders of the training and the test set.
            training_hparams: the hyperparameters of training.
            from_zero: whether to train from step 0 instead of the step at which the trunk's levels start.
            location: the run folder; the folder of the branch if left out.

        Returns:
            The trained network.

        Raises:
            ConfigError: training would start at its end or later, or a batch is too small for the model.
        """
        loaders, training_hparams = loaders or self.trunk.loaders, training_hparams or self.lottery_desc.training_hparams
        location = location or self.branch_root
        start = Step(0 if from_zero else self.trunk.start.iteration, len(loaders[0]))
        if start >= Step.from_str(training_hparams.training_steps, len(loaders[0])):
            raise ConfigError(
                f"{self.name}: levels start at {start}, but training ends at {training_hparams.training_steps}; valid: more training steps"
            )
        batches.check(self.lottery_desc.model_hparams, self.shape[1], training_hparams, loaders[0], start)
        run_records.record(self.desc, self.branch_root, self.trunk.seed, self.shape)
        provenance.record(self.branch_root, self.trunk.seed)
        mask.save(location)
        pruned = PrunedModel(model, mask)
        identity = training_job.identity(self.desc, self.trunk.seed, self.job)
        standard_train(training_hparams, pruned, loaders, location, dataclasses.replace(self.trunk.plan, start=start, identity=identity))
        return pruned

    # For subclasses to override.

    @staticmethod
    def is_complete(location: str) -> bool:
        """Whether the level with this folder is complete."""
        return run_records.is_finished(location)

    def report(self) -> None:
        """Reports the outcomes of all levels."""
        outcomes = [report.read(level, self.location(level)) for level in self.levels]
        if not self.job.quiet:
            print(report.table(outcomes))
        trunk_runner.compare(self.lottery_desc, self.job.global_seed, verbose=not self.job.quiet)

    # The interface of a runner.

    @classmethod
    def add_args(cls, parser: ArgumentParser) -> None:
        training_job.add_job_args(parser)
        LevelRangeArgs.add_args(parser)
        fields = cls.Arguments.hyperparameters()
        defaults = {field.name: unset_defaults(kind) if kind in INHERITED else field.default for field, kind in fields}
        choices = datasets.choices() | optimizers.choices() | dict(cls.Arguments.choices)
        cls.Arguments.add_args(parser, types.SimpleNamespace(**defaults), choices=choices)
        name = parser.peek("default_hparams")
        LotteryDesc.add_args(parser, LotteryDesc.default_for(name) if name else None)
        parser.set_defaults(trunk_command=trunk_command(parser.arguments[1:], [field.name for field, _ in fields]))

    @classmethod
    def create_from_args(cls, args: argparse.Namespace) -> Branch:
        """The branch that the flags describe, on its trunk. Hyperparameters that are left out are those of the trunk."""
        levels, job = LevelRangeArgs.create_from_args(args).numbers(), JobArgs.create_from_args(args)
        lottery_desc, shape, _, prepare_trunk = trunk_runner.check(LotteryDesc.create_from_args(args), job)
        trunk = {DatasetHparams: lottery_desc.dataset_hparams, TrainingHparams: lottery_desc.training_hparams}
        for field, kind in cls.Arguments.hyperparameters():
            if kind in INHERITED:
                bundle = inherit(args, field.name, trunk[kind])
                vars(args).update({f"{field.name}_{name}": value for name, value in vars(bundle).items()})
        arguments, prepare_own = check(cls.Arguments.create_from_args(args), lottery_desc, shape, job)

        def prepare() -> None:
            prepare_trunk()
            prepare_own()

        desc = teachers.settle(BranchDesc(lottery_desc, cls.name, arguments), job.global_seed)
        branch = cls(desc, job, levels, shape, prepare)
        if not job.display_output_location:
            branch._require_trunk(args.trunk_command)
            if not branch.is_finished and (obstacle := branch.obstacle):
                raise ConfigError(obstacle)
        return branch

    def _require_trunk(self, command: str) -> None:
        """Raises a ConfigError unless the levels of the trunk are trained; `command` trains them."""
        has_started = get_platform().exists(paths.hparams_dict(self.location(0, trunk=True)))
        source = None if has_started else adoption.find(self.lottery_desc, self.job.global_seed)
        for level in self.levels:
            original = source and os.path.join(source, f"level_{level}", "main")
            if not run_records.is_finished(self.location(level, trunk=True)) and not (original and run_records.is_finished(original)):
                command = f"{command} --levels={self.levels[-1]}"
                raise ConfigError(f"level {level} is not trained ({self.location(level, trunk=True)}); train it first: {command}")

    def location(self, level: int, trunk: bool = False) -> str:
        """The folder of a level of the branch or of the trunk."""
        desc = self.lottery_desc if trunk else self.desc
        return desc.run_path(get_platform().root, self.job.global_seed, level)

    @property
    def output_location(self) -> str:
        """The folder of the last level."""
        return self.location(self.levels[-1])

    @property
    def is_finished(self) -> bool:
        return all(self.is_complete(self.location(level)) for level in self.levels)

    def display_output_location(self) -> None:
        for level in self.levels:
            print(self.location(level))

    def run(self) -> None:
        """Runs the branch in each of its levels that is not complete, and reports."""
        title = f"Running the Branch {self.name} (Seed {self.job.global_seed})"
        location = f"{self.desc.hashname} in each level of {self.lottery_desc.seed_path(get_platform().root, self.job.global_seed)}"
        if not self.job.quiet:
            print(self.desc.banner(title, location), flush=True)
            teachers.print_remark(self.desc)
        self._adopt_trunk()
        for level in self.levels:
            self.level = level
            if self.is_complete(self.branch_root):
                plotting.draw_missing_curves(self.branch_root)
            else:
                with locks.held(self.branch_root):
                    self._run_level()
            locks.remove_dead(self.branch_root)
        self.report()

    def _adopt_trunk(self) -> None:
        """Copies the trunk if only another program has trained it."""
        if not run_records.is_finished(self.location(self.levels[0], trunk=True)):
            with locks.held(self.lottery_desc.seed_path(get_platform().root, self.job.global_seed)):
                adoption.adopt(self.lottery_desc, self.job.global_seed, self.shape, self.job.quiet)

    def _run_level(self) -> None:
        """Runs the current level, unless another process has completed it while this one waited for the lock."""
        if self.is_complete(self.branch_root):
            return
        if self._trunk is None:
            self.prepare()
            self._trunk = Trunk.open(self.lottery_desc, self.job, self.shape)
        if not self.job.quiet:
            print(f"Level {self.level}: {self.mask.unpruned:,} of {self.mask.total:,} weights ({self.mask.density:.2%})", flush=True)
        self.branch_function(**vars(self.desc.branch_hparams))


def check(arguments: Hparams, lottery_desc: LotteryDesc, shape: tuple[int, int], job: JobArgs) -> tuple[Hparams, Callable[[], None]]:
    """Checks the dataset and training hyperparameters among the arguments of a branch.

    Returns:
        The arguments, with datasets in their canonical form, and a function that prepares these datasets.

    Raises:
        ConfigError: the networks of the trunk cannot be trained this way.
    """
    datasets_hparams = {name: value for name, value in vars(arguments).items() if isinstance(value, DatasetHparams)}
    trainings_hparams = {name: value for name, value in vars(arguments).items() if isinstance(value, TrainingHparams)}
    for name, training in trainings_hparams.items():
        trunk_runner.check_training(training, f"{name}_")
    changes, preparations = {}, []
    training = next(iter(trainings_hparams.values()), lottery_desc.training_hparams)
    for name, dataset in datasets_hparams.items():
        try:
            checked = training_job.check(TrainingDesc(dataset, lottery_desc.model_hparams, training), job)
        except ConfigError as error:
            raise ConfigError(f"--{name}: {error}") from None
        if checked.shape != shape:
            raise ConfigError(
                f"--{name}_dataset_name: {dataset.dataset_name} has shape {checked.shape}; the networks of the experiment need {shape}"
            )
        changes[name] = checked.dataset_hparams
        preparations.append(checked.prepare)

    def prepare() -> None:
        for prepare_dataset in preparations:
            prepare_dataset()

    return dataclasses.replace(arguments, **changes), prepare
