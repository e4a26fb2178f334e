"""The command `train`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from foundations.arguments import ArgumentParser
from foundations.runner import Runner
from training.desc import TrainingDesc
from training.job import JobArgs, TrainingRun, add_job_args


@dataclass
class TrainingRunner(TrainingRun, Runner):
    """A training run as a command."""

    @staticmethod
    def description() -> str:
        return "Train a model."

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        add_job_args(parser)
        name = parser.peek("default_hparams")
        TrainingDesc.add_args(parser, TrainingDesc.default_for(name) if name else None)

    @staticmethod
    def create_from_args(args: argparse.Namespace) -> TrainingRunner:
        return TrainingRunner.create(TrainingDesc.create_from_args(args), JobArgs.create_from_args(args))

    @staticmethod
    def examples() -> Sequence[str]:
        model = "train --default_hparams=digits_lenet_16"
        return model, f"{model} --act_fun tanh --lr 0.05 --training_steps 60ep --warmup_steps 5ep"
