"""The command `lottery_branch`, whose first argument is the name of a branch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from foundations.arguments import ArgumentParser
from foundations.errors import ConfigError
from foundations.runner import Runner


class LotteryBranchRunner(Runner):
    """The command itself. It has no instances: `create_from_args` returns the runner of the named branch."""

    @staticmethod
    def description() -> str:
        return "Run a branch of a pruning experiment: an ablation of its tickets."

    @staticmethod
    def examples() -> Sequence[str]:
        return _examples("randomly_reinitialize")

    @staticmethod
    def subcommands() -> Sequence[str]:
        from lottery.branch import registry

        return list(registry.registered_branches)

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        from lottery.branch import registry

        name = next(iter(parser.arguments), "--help")
        if name in ("--help", "-h"):
            print(registry.welcome(parser.examples))
            raise SystemExit(0)
        if name.startswith("-"):
            raise ConfigError(f"the name of a branch must come before {name}; valid: {', '.join(registry.registered_branches)}")
        branch = registry.get(name)
        parser.description, parser.examples = branch.description(), _examples(name)
        parser.add_argument("branch", metavar=name, help=argparse.SUPPRESS)
        branch.add_args(parser)

    @staticmethod
    def create_from_args(args: argparse.Namespace) -> Runner:
        from lottery.branch import registry

        return registry.get(args.branch).create_from_args(args)


def _examples(name: str) -> Sequence[str]:
    """The commands of an experiment and of a branch of it."""
    model = "--default_hparams=digits_lenet_300_100"
    return f"lottery {model} --levels=3", f"lottery_branch {name} {model} --levels=0-3"
