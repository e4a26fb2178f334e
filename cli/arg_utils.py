"""A parser that speaks in one line, and that can look ahead."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Collection, Sequence

from foundations.errors import ConfigError, did_you_mean


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser whose errors are ConfigErrors.

    It knows its arguments from the start, because some of them (`--default_hparams`, `--platform`) decide which other flags there are.
    """

    def __init__(self, prog: str, arguments: Sequence[str], description: str = ""):
        formatter = lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=_help_width())  # noqa: E731
        super().__init__(prog=prog, description=description, formatter_class=formatter, allow_abbrev=False)
        self._negative_number_matcher = re.compile(r"-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$", re.IGNORECASE)  # argparse knows no -1e-3
        self.arguments = list(arguments)

    def peek(self, flag: str, default: str | None = None) -> str | None:
        """The value of `--flag VALUE` or `--flag=VALUE` among the arguments, before they are parsed."""
        value = default
        for place, argument in enumerate(self.arguments):
            if argument == f"--{flag}" and place + 1 < len(self.arguments):
                value = self.arguments[place + 1]
            elif argument.startswith(f"--{flag}="):
                value = argument.split("=", 1)[1]
        return value

    def parse(self) -> argparse.Namespace:
        """Parses the arguments.

        Raises:
            ConfigError: a flag is not known, or its value is not of its type.
        """
        args, extra = self.parse_known_args(self.arguments)
        if extra:
            flags = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
            hint = did_you_mean(extra[0].split("=")[0], flags)
            raise ConfigError(f"{extra[0]} is no argument of {self.prog}{hint}; see {self.prog} --help")
        return args

    def without(self, names: Collection[str]) -> list[str]:
        """The arguments as they were given, without some flags and their values; to be called when they are known to parse."""
        reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        for action in self._actions:
            if action.dest in names:
                reader._add_action(action)
        return reader.parse_known_args(self.arguments)[1]

    def error(self, message: str):
        """Raises what argparse would print together with its usage."""
        raise ConfigError(message.removeprefix("argument "))


def _help_width() -> int:
    return max(80, min(140, shutil.get_terminal_size(fallback=(120, 24)).columns))
