"""The table of commands as a value: their runners, their parsers, and what some arguments ask for. `EC.py` fills it in."""

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
        runners: the runner of each command, by name.
    """

    runners: Mapping[str, type[Runner]]

    def get(self, name: str) -> type[Runner]:
        """The runner of a command.

        Raises:
            ConfigError: there is no such command.
        """
        if name not in self.runners:
            raise unknown("command", name, self.runners)
        return self.runners[name]

    def parser(self, command: str, arguments: Sequence[str]) -> ArgumentParser:
        """The parser of the arguments of a command; some arguments decide which flags there are.

        Raises:
            ConfigError: there is no such command, or an argument that decides is invalid.
        """
        runner_class, platform = self.get(command), platform_class(arguments)
        made = ArgumentParser(f"EC.py {command}", arguments, runner_class.description(), runner_class.examples())
        if runner_class.computes:
            valid = list(platforms.registered_platforms)
            text = (
                f"Where the command runs; --help beside it lists the flags of that platform. (one of: {', '.join(valid)}; default: local)"
            )
            made.add_argument("--platform", default="local", metavar="STR", help=text)
            made.choices_of["platform"] = valid
        runner_class.add_args(made)
        if runner_class.computes:
            platform.add_args(made)
        return made

    def parse(self, command: str, arguments: Sequence[str]) -> tuple[Platform, Job]:
        """The platform that the arguments of a command name, or the local one where it takes none, and the job to run there.

        Raises:
            ConfigError: there is no such command, or an argument that it does not take.
        """
        runner_class, reader = self.get(command), self.parser(command, arguments)
        args = reader.parse()

        def create(**changes: object) -> Runner:
            runner = runner_class.create_from_args(argparse.Namespace(**vars(args) | changes))
            if isinstance(runner, CommandsRunner):
                runner.commands = self
            return runner

        if not runner_class.computes:
            return local.Platform(), Job(command, list(arguments), create)
        platform = platform_class(arguments)
        passed_on = reader.arguments_without({"platform", *platform.submission_flags()})
        return platform.create_from_args(args), Job(command, passed_on, create, args.display_output_location)

    def welcome(self) -> str:
        """The text that is printed when no command is given."""
        rule = "=" * 80
        lines = "\n".join(f"    * EC.py {name} [...] => {runner.description()}" for name, runner in self.runners.items())
        return f"{rule}\nWelcome to Expand-and-Cluster!\n{rule}\nChoose a command to run:\n{lines}\n{rule}\n{FIRST_STEPS}"


class CommandsRunner(Runner):
    """The base of workflows that run or describe other commands.

    Attributes:
        commands: the table of commands, which `Commands.parse` sets before the workflow runs.
    """

    commands: Commands


def platform_class(arguments: Sequence[str]) -> type[Platform]:
    """The platform that some arguments name; the other arguments are not checked.

    Raises:
        ConfigError: there is no such platform.
    """
    return platforms.get(ArgumentParser("", arguments).peek("platform", "local"))
