"""The command `completion`: prints a script with which a shell completes commands, flags, values and hashes of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cli.commands import CommandsRunner
from foundations.arguments import ArgumentParser
from foundations.errors import unknown
from platforms.platform import get_platform

if TYPE_CHECKING:
    import argparse

SHELLS = ("bash", "zsh")


@dataclass
class CompletionRunner(CommandsRunner):
    """Prints the completion script of a shell.

    Attributes:
        shell: one of SHELLS.
    """

    computes = False

    shell: str

    @staticmethod
    def description() -> str:
        return f"Print a script with which TAB completes commands, flags, values and hashes: {', '.join(SHELLS)}."

    @staticmethod
    def examples() -> Sequence[str]:
        return tuple(f"completion {shell} > ~/.ec_completion.{shell}" for shell in SHELLS)

    @staticmethod
    def subcommands() -> Sequence[str]:
        return SHELLS

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        parser.add_argument("shell", metavar="SHELL", help=f"The shell, one of: {', '.join(SHELLS)}.")
        parser.epilog = (
            "Add `source FILE` to the start file of the shell (~/.bashrc or ~/.zshrc), and print the script again after commands or flags "
            'have changed. For one session only: eval "$(python EC.py completion bash)".'
        )

    @staticmethod
    def create_from_args(args: argparse.Namespace) -> CompletionRunner:
        if args.shell not in SHELLS:
            raise unknown("shell", args.shell, SHELLS)
        return CompletionRunner(args.shell)

    @property
    def output_location(self) -> str:
        """The folder of all results. The script completes the hashes of its runs."""
        return get_platform().root

    def run(self) -> None:
        """Prints the script."""
        from cli.completion.script import script

        print(script(self.shell, self.commands))
