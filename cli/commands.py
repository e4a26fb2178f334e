"""The table of commands: the runner and the parser of each command. `EC.py` fills the table.

Commands that list or run other commands (`sweep`, `runs`, `completion`) receive the table instead of importing it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from foundations.arguments import ArgumentParser
from foundations.errors import unknown
from foundations.runner import Job, Runner
from platforms import local
from platforms import registry as platforms
from platforms.base import Platform

FIRST_STEPS = """A first network, recovered in seconds:  python EC.py extract --default_hparams=students_digits_lenet
Flags of a command, with examples:      python EC.py extract --help"""


@dataclass(frozen=True)
class Commands:
    """The commands of `EC.py`.

    Attributes:
        runners: the runner class of each command, by the command's name.
    """

    runners: Mapping[str, type[Runner]]

    @property
    def computing(self) -> list[str]:
        """The names of the commands that train networks, and therefore take a platform and its flags."""
        return [name for name, runner in self.runners.items() if runner.computes]

    def get(self, name: str) -> type[Runner]:
        """The runner class of a command.

        Raises:
            ConfigError: the command does not exist.
        """
        if name not in self.runners:
            raise unknown("command", name, self.runners)
        return self.runners[name]

    def parser(self, command: str, arguments: Sequence[str]) -> ArgumentParser:
        """The parser of a command. Some arguments, such as `--platform`, decide which flags the parser accepts.

        Raises:
            ConfigError: the command does not exist, or an argument that decides about flags is invalid.
        """
        runner_class, platform = self.get(command), platform_class(arguments)
        parser = ArgumentParser(f"EC.py {command}", arguments, runner_class.description(), runner_class.examples())
        if runner_class.computes:
            valid = list(platforms.registered_platforms)
            text = f"Where the command runs. Add --help to list the flags of a platform. (one of: {', '.join(valid)}; default: local)"
            parser.add_argument("--platform", default="local", metavar="STR", help=text)
            parser.choices_of["platform"] = valid
        if issubclass(runner_class, CommandsRunner):
            parser.choices_of["command"] = self.computing
        runner_class.add_args(parser)
        if runner_class.computes:
            platform.add_args(parser)
        return parser

    def parse(self, command: str, arguments: Sequence[str]) -> tuple[Platform, Job]:
        """The platform that the arguments name, and the job to run on it. A command without platforms runs on the local platform.

        Raises:
            ConfigError: the command does not exist, or it does not take one of the arguments.
        """
        runner_class, parser = self.get(command), self.parser(command, arguments)
        args = parser.parse()

        def create(**changes: object) -> Runner:
            runner = runner_class.create_from_args(argparse.Namespace(**vars(args) | changes))
            if isinstance(runner, CommandsRunner):
                runner.commands = self
            return runner

        if not runner_class.computes:
            return local.Platform(), Job(command, list(arguments), create)
        platform = platform_class(arguments)
        passed_on = parser.arguments_without({"platform", *platform.submission_flags()})
        return platform.create_from_args(args), Job(command, passed_on, create, args.display_output_location)

    def welcome(self) -> str:
        """The text that `EC.py` prints without a command."""
        rule = "=" * 80
        lines = "\n".join(f"    * EC.py {name} [...] => {runner.description()}" for name, runner in self.runners.items())
        return f"{rule}\nWelcome to Expand-and-Cluster!\n{rule}\nChoose a command to run:\n{lines}\n{rule}\n{FIRST_STEPS}"


class CommandsRunner(Runner):
    """The base of commands that run or describe other commands.

    `add_args` finds the names of the commands that compute in `parser.choices_of["command"]`.

    Attributes:
        commands: the table of commands. `Commands.parse` sets it before the command runs.
    """

    commands: Commands


def platform_class(arguments: Sequence[str]) -> type[Platform]:
    """The platform class that the arguments name. Other arguments are not checked.

    Raises:
        ConfigError: the platform does not exist.
    """
    name = ArgumentParser("", arguments).peek("platform", "local")
    assert name is not None  # the default
    return platforms.get(name)
