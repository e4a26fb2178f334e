"""The commands of `EC.py`. A new one is a line here."""

import argparse
from collections.abc import Sequence

from cli import arg_utils
from cli.runs.runner import RunsRunner
from extraction.runner import ExtractionRunner
from foundations.errors import unknown
from foundations.runner import Job, Runner
from lottery.branch.runner import LotteryBranchRunner
from lottery.runner import LotteryRunner
from platforms import registry as platforms
from platforms.base import Platform
from training.runner import TrainingRunner

registered_runners: dict[str, type[Runner]] = {
    "train": TrainingRunner,
    "extract": ExtractionRunner,
    "lottery": LotteryRunner,
    "lottery_branch": LotteryBranchRunner,
    "runs": RunsRunner,
}


def get(name: str) -> type[Runner]:
    """The runner behind a command.

    Raises:
        ConfigError: there is no such command.
    """
    if name not in registered_runners:
        raise unknown("command", name, registered_runners)
    return registered_runners[name]


def platform_class(arguments: Sequence[str]) -> type[Platform]:
    """The platform that some arguments name, which are not checked any further.

    Raises:
        ConfigError: there is no such platform.
    """
    return platforms.get(arg_utils.ArgumentParser("", arguments).peek("platform", "local"))


def parse(command: str, arguments: Sequence[str]) -> tuple[Platform, Job]:
    """The platform that the arguments of a command name, and what it is to run.

    Raises:
        ConfigError: there is no such command, or an argument that it does not take.
    """
    runner_class, platform = get(command), platform_class(arguments)
    parser = arg_utils.ArgumentParser(f"EC.py {command}", arguments, runner_class.description())

    valid = ", ".join(platforms.registered_platforms)
    parser.add_argument("--platform", default="local", metavar="STR", help=f"The platform (one of: {valid}; default: local).")
    runner_class.add_args(parser)
    platform.add_args(parser)
    args = parser.parse()

    def create(**changes: object) -> Runner:
        return runner_class.create_from_args(argparse.Namespace(**vars(args) | changes))

    passed_on = parser.without({"platform", *platform.own_flags()})
    return platform.create_from_args(args), Job(command, passed_on, create, args.display_output_location)


def welcome() -> str:
    """What is printed when no command is given."""
    rule = "=" * 80
    commands = "\n".join(f"    * EC.py {name} [...] => {runner.description()}" for name, runner in registered_runners.items())
    return f"{rule}\nWelcome to Expand-and-Cluster!\n{rule}\nChoose a command to run:\n{commands}\n{rule}"
