"""The base of every workflow that the command line offers, and a call of one."""

from __future__ import annotations

import abc
import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from foundations.arguments import ArgumentParser


class Runner(abc.ABC):
    """A workflow: its flags, and what happens when it runs. `computes` says whether it takes a platform, and its flags.

    The module of a runner imports nothing heavy at its top (torch, scipy, matplotlib), for the welcome lists them all;
    what `run` needs, `run` imports.
    """

    computes: ClassVar[bool] = True

    @staticmethod
    @abc.abstractmethod
    def description() -> str:
        """One line for the list of commands."""

    @staticmethod
    def examples() -> Sequence[str]:
        """Two commands that show what it is for, without `python EC.py`; they work as they are written, in their order."""
        return ()

    @staticmethod
    def subcommands() -> Sequence[str]:
        """The words that may stand before its flags, and decide which there are."""
        return ()

    @staticmethod
    @abc.abstractmethod
    def add_args(parser: ArgumentParser) -> None:
        """Adds the workflow's flags."""

    @staticmethod
    @abc.abstractmethod
    def create_from_args(args: argparse.Namespace) -> Runner:
        """Builds the runner, and checks all that can be checked before anything is written.

        Raises:
            ConfigError: a flag is missing or its value cannot be run.
        """

    @property
    @abc.abstractmethod
    def output_location(self) -> str:
        """The folder of the results, which no other run shares."""

    @property
    def is_finished(self) -> bool:
        """Whether it is known, without running, that nothing is left to do."""
        return False

    def display_output_location(self) -> None:
        """Prints the folder of the results, and nothing else."""
        print(self.output_location)

    @abc.abstractmethod
    def run(self) -> None:
        """Does the work, from wherever an earlier run left it."""


@dataclass(frozen=True)
class Job:
    """A call of the command line: what a platform runs, or passes on.

    Attributes:
        command: the name of the workflow.
        arguments: its flags and their values as they were given, without those that the platform alone reads.
        create: makes the runner, checked; keyword arguments stand in for values of flags.
        only_display: whether no more is asked for than the folder of the results.
    """

    command: str
    arguments: Sequence[str]
    create: Callable[..., Runner]
    only_display: bool = False

    def __call__(self, **changes: object) -> None:
        """Runs it here."""
        runner = self.create(**changes)
        if self.only_display:
            runner.display_output_location()
        else:
            runner.run()
