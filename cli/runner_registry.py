"""The commands of `EC.py`. A new one is a line here."""

from extraction.runner import ExtractionRunner
from foundations.errors import unknown
from foundations.runner import Runner
from lottery.branch.runner import LotteryBranchRunner
from lottery.runner import LotteryRunner
from training.runner import TrainingRunner

registered_runners: dict[str, type[Runner]] = {
    "train": TrainingRunner,
    "extract": ExtractionRunner,
    "lottery": LotteryRunner,
    "lottery_branch": LotteryBranchRunner,
}


def get(name: str) -> type[Runner]:
    """The runner behind a command.

    Raises:
        ConfigError: there is no such command.
    """
    if name not in registered_runners:
        raise unknown("command", name, registered_runners)
    return registered_runners[name]


def welcome() -> str:
    """What is printed when no command is given."""
    rule = "=" * 80
    commands = "\n".join(f"    * EC.py {name} [...] => {runner.description()}" for name, runner in registered_runners.items())
    return f"{rule}\nWelcome to Expand-and-Cluster!\n{rule}\nChoose a command to run:\n{commands}\n{rule}"
