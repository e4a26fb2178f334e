"""The command `completion`: prints a script that makes a shell complete commands, flags, values and names of runs."""

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
    """A script for one of SHELLS."""

    computes = False

    shell: str

    @staticmethod
    def description() -> str:
        return f"Print what makes TAB complete commands, flags, values and hashes: {', '.join(SHELLS)}."

    @staticmethod
    def examples() -> Sequence[str]:
        return tuple(f"completion {shell} > ~/.ec_completion.{shell}" for shell in SHELLS)

    @staticmethod
    def subcommands() -> Sequence[str]:
        return SHELLS

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        parser.add_argument("shell", metavar="SHELL", help=f"One of: {', '.join(SHELLS)}.")
        parser.epilog = (
            "`source` that file in the start file of the shell (~/.bashrc or ~/.zshrc), and write it anew when there are new commands or "
            'flags. For one session only: eval "$(python EC.py completion bash)".'
        )

    @staticmethod
    def create_from_args(args: argparse.Namespace) -> CompletionRunner:
        if args.shell not in SHELLS:
            raise unknown("shell", args.shell, SHELLS)
        return CompletionRunner(args.shell)

    @property
    def output_location(self) -> str:
        """The folder of all results, whose runs are completed."""
        return get_platform().root

    def run(self) -> None:
        from cli.completion.script import script

        print(script(self.shell, self.commands))
