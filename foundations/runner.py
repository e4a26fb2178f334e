"""The base of every workflow that the command line offers."""

from __future__ import annotations

import abc
import argparse


class Runner(abc.ABC):
    """A workflow: its flags, and what happens when it runs.

    The module of a runner imports nothing heavy at its top (torch, scipy, matplotlib), for the welcome lists them all;
    what `run` needs, `run` imports.
    """

    @staticmethod
    @abc.abstractmethod
    def description() -> str:
        """One line for the list of commands."""

    @staticmethod
    @abc.abstractmethod
    def add_args(parser: argparse.ArgumentParser) -> None:
        """Adds the workflow's flags."""

    @staticmethod
    @abc.abstractmethod
    def create_from_args(args: argparse.Namespace) -> Runner:
        """Builds the runner, and checks all that can be checked before anything is written.

        Raises:
            ConfigError: a flag is missing or its value cannot be run.
        """

    @abc.abstractmethod
    def display_output_location(self) -> None:
        """Prints the folder of the results, and nothing else."""

    @abc.abstractmethod
    def run(self) -> None:
        """Does the work, from wherever an earlier run left it."""
