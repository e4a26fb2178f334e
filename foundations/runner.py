"""The base class of the workflows of the command line, and one call of a workflow."""

from __future__ import annotations

import abc
import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from foundations.arguments import ArgumentParser


class Runner(abc.ABC):
    """A workflow: its flags and its work.

    The welcome text lists all runners, so the module of a runner imports no slow library (torch, scipy, matplotlib) at its top; `run`
    imports what it needs.

    Attributes:
        computes: whether the workflow runs on a platform and so has the flags of the platform.
    """

    computes: ClassVar[bool] = True

    @staticmethod
    @abc.abstractmethod
    def description() -> str:
        """The line of the workflow in the list of commands."""

    @staticmethod
    def examples() -> Sequence[str]:
        """Two example commands, without `python EC.py`. They work as they are written, one after the other."""
        return ()

    @staticmethod
    def subcommands() -> Sequence[str]:
        """The words that are valid before the flags. The word determines which flags exist."""
        return ()

    @staticmethod
    @abc.abstractmethod
    def add_args(parser: ArgumentParser) -> None:
        """Adds the workflow's flags."""

    @staticmethod
    @abc.abstractmethod
    def create_from_args(args: argparse.Namespace) -> Runner:
        """Makes the runner. It checks everything that can be checked before files are written.

        Raises:
            ConfigError: a flag is missing or has an invalid value.
        """

    @property
    @abc.abstractmethod
    def output_location(self) -> str:
        """The folder of the results. No other run uses it."""

    @property
    def is_finished(self) -> bool:
        """Whether the results are complete, as far as that is known without running."""
        return False

    @property
    def obstacle(self) -> str | None:
        """The reason why unfinished results of an earlier start cannot be continued; None if they can, or if there are none."""
        return None

    def display_output_location(self) -> None:
        """Prints only the folder of the results."""
        print(self.output_location)

    @abc.abstractmethod
    def run(self) -> None:
        """Does the work. It resumes from the results of an earlier start."""


@dataclass(frozen=True)
class Job:
    """A call of a workflow by the command line. A platform runs it, or submits it to other machines.

    Attributes:
        command: the name of the workflow.
        arguments: the flags and values of the command line, without the flags that only the platform uses.
        create: makes and checks the runner. Keyword arguments replace the values of flags.
        only_display: whether only the folder of the results is printed.
    """

    command: str
    arguments: Sequence[str]
    create: Callable[..., Runner]
    only_display: bool = False

    def __call__(self, **changes: object) -> None:
        """Runs the workflow in this process. `changes` replace the values of flags."""
        runner = self.create(**changes)
        if self.only_display:
            runner.display_output_location()
        else:
            runner.run()
