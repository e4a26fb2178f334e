"""The command `lottery`: trains a network, prunes it, rewinds the remaining weights, and trains again, level by level."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foundations import limits, paths
from foundations.arguments import ArgumentParser
from foundations.errors import ConfigError
from foundations.hparams import Hparams
from foundations.runner import Runner
from foundations.training_hparams import TrainingHparams
from lottery.desc import PRETRAIN, LotteryDesc
from platforms.platform import get_platform
from platforms.system import locks
from training import adoption, run_records, teachers
from training import job as training_job
from training.job import JobArgs

if TYPE_CHECKING:
    from lottery.report import Outcome


@dataclass
class LevelArgs(Hparams):
    """The number of levels."""

    levels: int

    _name = "Levels"
    _description = "Level 0 trains the whole network. Each further level prunes it, rewinds the remaining weights, and trains them."
    _levels = "The number of times to prune, rewind and train again."

    def __post_init__(self):
        valid = f"0 to {limits.LEVELS:,}, because each level is a training run"
        self.require("levels", 0 <= self.levels <= limits.LEVELS, valid)


@dataclass
class LotteryRunner(Runner):
    """One experiment, from level 0 to level `levels`.

    Attributes:
        desc: its hyperparameters, in canonical form.
        job: the settings of this run.
        levels: the last level.
        shape: the values per example and the outputs that the model needs.
        pretrain_shape: the same for pretraining; None without pretraining.
        prepare: prepares the datasets, for example by training a teacher.
    """

    desc: LotteryDesc
    job: JobArgs
    levels: int
    shape: tuple[int, int]
    pretrain_shape: tuple[int, int] | None
    prepare: Callable[[], None]

    @staticmethod
    def description() -> str:
        return "Run a pruning experiment: lottery tickets, level by level."

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        training_job.add_job_args(parser)
        LevelArgs.add_args(parser)
        name = parser.peek("default_hparams")
        LotteryDesc.add_args(parser, LotteryDesc.default_for(name) if name else None)

    @staticmethod
    def create_from_args(args: argparse.Namespace) -> LotteryRunner:
        levels, job = LevelArgs.create_from_args(args).levels, JobArgs.create_from_args(args)
        desc, shape, pretrain_shape, prepare = check(LotteryDesc.create_from_args(args), job)
        runner = LotteryRunner(desc, job, levels, shape, pretrain_shape, prepare)
        if not job.display_output_location and not runner.is_finished:
            runner.check_levels()
        return runner

    def check_levels(self) -> None:
        """Raises a ConfigError if the levels of an earlier start cannot be continued, or if there are too few weights for all levels."""
        from models import registry as models
        from pruning import registry as pruning

        if obstacle := self.obstacle:
            raise ConfigError(obstacle)
        hparams, outline = self.desc.pruning_hparams, models.meta_model(self.desc.model_hparams, self.shape[1])
        last = pruning.get(hparams).last_level(hparams, outline, self.levels)
        if last < self.levels:
            raise ConfigError(
                f"--levels: {self.levels} is out of range; valid: {last} or less, because --pruning_fraction {hparams.pruning_fraction} of "
                f"the weights of {self.desc.model_hparams.model_name} can be removed {last} times from layers that are not ignored"
            )

    @property
    def obstacle(self) -> str | None:
        from lottery import outdated

        return outdated.reason(self.desc, self.job.global_seed, range(self.levels + 1))

    @staticmethod
    def examples() -> Sequence[str]:
        experiment = "lottery --default_hparams=digits_lenet_300_100 --levels=3"
        return experiment, f"{experiment} --rewinding_steps=100it --pruning_strategy=snip"

    def location(self, level: int) -> str:
        """The folder of a level."""
        return self.desc.run_path(get_platform().root, self.job.global_seed, level)

    @property
    def output_location(self) -> str:
        """The folder of the last level."""
        return self.location(self.levels)

    @property
    def is_finished(self) -> bool:
        return all(run_records.is_finished(self.location(level)) for level in range(self.levels + 1))

    def display_output_location(self) -> None:
        for level in range(self.levels + 1):
            print(self.location(level))

    def run(self) -> None:
        """Trains and prunes level after level, and reports. Levels that are finished are not repeated."""
        from lottery import report
        from training.plotting import draw_missing_curves

        folder = self.desc.seed_path(get_platform().root, self.job.global_seed)
        if not self.job.quiet:
            title = f"Running a Lottery Ticket Experiment (Seed {self.job.global_seed})"
            print(self.desc.banner(title, folder), flush=True)
            teachers.print_remark(self.desc)
        if self.is_finished:
            for level in range(self.levels + 1):
                draw_missing_curves(self.location(level))
        else:
            from training import arithmetic

            for training_hparams in filter(None, (self.desc.training_hparams, self.desc.pretrain_training_hparams)):
                arithmetic.check(training_hparams)
            with locks.held(folder):
                adoption.adopt(self.desc, self.job.global_seed, self.shape, self.job.quiet)
                if not self.is_finished:
                    self._train()
        locks.remove_dead(folder)
        outcomes = [report.read(level, self.location(level)) for level in range(self.levels + 1)]
        self._draw(outcomes, paths.levels(folder, self.levels))
        compare(self.desc, self.job.global_seed, verbose=not self.job.quiet)

    def _draw(self, outcomes: Sequence[Outcome], picture: str) -> None:
        """Prints the outcomes, and draws them unless the picture exists."""
        from lottery import plotting, report
        from training.plotting import attempt

        drawn = get_platform().exists(picture) or attempt(picture, lambda: plotting.tickets(outcomes, picture))
        if not drawn:
            report.write(outcomes, os.path.dirname(picture))
        if not self.job.quiet:
            print("\n".join([report.table(outcomes), *([f"Picture: {picture}"] if drawn else [])]))

    def _train(self) -> None:
        from lottery.trunk import Trunk

        self.prepare()
        Trunk.open(self.desc, self.job, self.shape, self.pretrain_shape).train(self.levels)


def compare(desc: LotteryDesc, seed: int, verbose: bool) -> None:
    """Draws and prints a comparison of the tickets and their branches over all seeds, if there is more than one run.

    The picture is written to the folder of the given seed only, because other processes may be running the other seeds. Seeds whose masks
    an earlier version of this program made are left out, and named, unless all seeds are such seeds.
    """
    from lottery import outdated, plotting, report
    from training.plotting import attempt

    experiments = report.experiments(desc)
    left_out = outdated.seeds(desc) if report.is_uneven(experiments) else []
    if left_out and report.TICKETS in (even := report.experiments(desc, left_out)):
        experiments = even
        if verbose:
            print(f"Not in the comparison: seed {', '.join(map(str, left_out))}, pruned by an earlier version to other numbers of weights")
    if report.is_single_run(experiments):
        return
    path = paths.comparison(desc.seed_path(get_platform().root, seed))
    drawn = attempt(path, lambda: plotting.comparison(experiments, path))
    if verbose:
        print("\n".join([report.comparison(experiments), *([f"Picture: {path}"] if drawn else [])]))


def check(desc: LotteryDesc, job: JobArgs) -> tuple[LotteryDesc, tuple[int, int], tuple[int, int] | None, Callable[[], None]]:
    """Checks that an experiment can be run. Writes nothing.

    Returns:
        The descriptor in its canonical form; the shapes of the datasets of training and of pretraining; a function that prepares the
        datasets.

    Raises:
        ConfigError: the experiment cannot be run.
    """
    from models import registry as models
    from pruning import registry as pruning

    check_training(desc.training_hparams)
    pretraining = desc.pretrain_desc
    if pretraining is not None:
        check_training(pretraining.training_hparams, f"{PRETRAIN}_")
    dataset = training_job.check(desc, job)
    dataset_hparams, shape = dataset.dataset_hparams, dataset.shape
    queries = dataset_hparams.datagen
    desc.check_start(dataset.teacher.training_pairs(queries) if dataset.teacher else None)
    pruning.check(desc.pruning_hparams, models.meta_model(desc.model_hparams, shape[1]))
    if pretraining is None:
        desc = teachers.settle(dataclasses.replace(desc, dataset_hparams=dataset_hparams), job.global_seed)
        return desc, shape, None, dataset.prepare
    try:
        pretrain_dataset = training_job.check(pretraining, job)
    except ConfigError as error:
        raise ConfigError(f"pretraining: {error}") from None
    desc = dataclasses.replace(desc, dataset_hparams=dataset_hparams, pretrain_dataset_hparams=pretrain_dataset.dataset_hparams)

    def prepare() -> None:
        dataset.prepare()
        pretrain_dataset.prepare()

    return teachers.settle(desc, job.global_seed), shape, pretrain_dataset.shape, prepare


def check_training(training_hparams: TrainingHparams, prefix: str = "") -> None:
    """Raises a ConfigError for training hyperparameters that pruned networks do not support; `prefix` is the prefix of the flags."""
    from training import optimizers

    training_job.refuse_polishing(training_hparams, prefix)
    reason = optimizers.ambiguity(training_hparams)
    if prefix and reason:  # without a prefix, `training.job.check` raises the error
        raise ConfigError(reason.replace("--", f"--{prefix}"))
    for name in ("further_training", "extra_training"):
        if getattr(training_hparams, name) is not None:
            raise ConfigError(f"--{prefix}{name}: finished levels cannot be trained further; use a larger --{prefix}training_steps instead")
