"""The commands of `EC.py`. A new one is a line here."""

import argparse
from collections.abc import Sequence

from cli.completion.runner import CompletionRunner
from cli.plot.runner import PlotRunner
from cli.runs.runner import RunsRunner
from cli.sweep.runner import SweepRunner
from extraction.runner import ExtractionRunner
from foundations.arguments import ArgumentParser
from foundations.errors import unknown
from foundations.runner import Job, Runner
from lottery.branch.runner import LotteryBranchRunner
from lottery.runner import LotteryRunner
from platforms import local
from platforms import registry as platforms
from platforms.base import Platform
from training.runner import TrainingRunner

registered_runners: dict[str, type[Runner]] = {
    "train": TrainingRunner,
    "extract": ExtractionRunner,
    "lottery": LotteryRunner,
    "lottery_branch": LotteryBranchRunner,
    "sweep": SweepRunner,
    "runs": RunsRunner,
    "plot": PlotRunner,
    "completion": CompletionRunner,
}

FIRST_STEPS = """A first network, recovered in seconds:  python EC.py extract --default_hparams=students_digits_lenet
Flags of a command, with examples:      python EC.py extract --help"""


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
    return platforms.get(ArgumentParser("", arguments).peek("platform", "local"))


def parser(command: str, arguments: Sequence[str]) -> ArgumentParser:
    """What reads the arguments of a command; some of them decide which flags there are.

    Raises:
        ConfigError: there is no such command, or one of the arguments that decide does not make sense.
    """
    runner_class, platform = get(command), platform_class(arguments)
    made = ArgumentParser(f"EC.py {command}", arguments, runner_class.description(), runner_class.examples())
    if runner_class.computes:
        valid = list(platforms.registered_platforms)
        text = f"Where the command runs; --help beside it lists the flags of that platform. (one of: {', '.join(valid)}; default: local)"
        made.add_argument("--platform", default="local", metavar="STR", help=text).values = valid
    runner_class.add_args(made)
    if runner_class.computes:
        platform.add_args(made)
    return made


def parse(command: str, arguments: Sequence[str]) -> tuple[Platform, Job]:
    """The platform that the arguments of a command name, or the local one where it takes none, and what it is to run.

    Raises:
        ConfigError: there is no such command, or an argument that it does not take.
    """
    runner_class, reader = get(command), parser(command, arguments)
    args = reader.parse()

    def create(**changes: object) -> Runner:
        return runner_class.create_from_args(argparse.Namespace(**vars(args) | changes))

    if not runner_class.computes:
        return local.Platform(), Job(command, list(arguments), create)
    platform = platform_class(arguments)
    passed_on = reader.without({"platform", *platform.own_flags()})
    return platform.create_from_args(args), Job(command, passed_on, create, args.display_output_location)


def welcome() -> str:
    """What is printed when no command is given."""
    rule = "=" * 80
    commands = "\n".join(f"    * EC.py {name} [...] => {runner.description()}" for name, runner in registered_runners.items())
    return f"{rule}\nWelcome to Expand-and-Cluster!\n{rule}\nChoose a command to run:\n{commands}\n{rule}\n{FIRST_STEPS}"
