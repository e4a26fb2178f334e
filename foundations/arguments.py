"""The parser of the command line: its errors are one line, and it can read a flag before all flags are known."""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
from collections.abc import Collection, Iterable, Sequence
from typing import NoReturn

from foundations.errors import ConfigError, did_you_mean
from foundations.former_flags import explanation

NEGATIVE = re.compile(r"-\.?\d")  # how a value begins that is no flag: -1e-3, -4:4, -1,0,1 (argparse alone accepts plain numbers)


class ArgumentParser(argparse.ArgumentParser):
    """An argparse parser whose errors are ConfigErrors.

    The parser receives the arguments when it is made, because some of them (`--default_hparams`, `--platform`) decide which other flags
    exist.

    Attributes:
        arguments: the arguments of the command line.
        examples: the commands, without `python EC.py`, that help shows first.
        choices_of: the valid values of each flag, by its name without dashes. Shells complete these values.
    """

    def __init__(self, prog: str, arguments: Sequence[str], description: str = "", examples: Sequence[str] = ()):
        super().__init__(prog=prog, description=description, formatter_class=_Formatter, allow_abbrev=False)
        self.examples = examples
        self._negative_number_matcher = NEGATIVE
        self.arguments = list(arguments)
        self.choices_of: dict[str, Sequence[str]] = {}

    def peek(self, flag: str, default: str | None = None) -> str | None:
        """The value of `--flag VALUE` or `--flag=VALUE`, read before the arguments are parsed."""
        value = default
        for index, argument in enumerate(self.arguments):
            if argument == f"--{flag}" and index + 1 < len(self.arguments):
                value = self.arguments[index + 1]
            elif argument.startswith(f"--{flag}="):
                value = argument.split("=", 1)[1]
        return value

    def parse(self) -> argparse.Namespace:
        """Parses the arguments.

        Raises:
            ConfigError: a flag is unknown, or its value has the wrong type.
        """
        args, extra = self.parse_known_args(self.arguments)
        if extra:
            flags = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
            name = extra[0].split("=")[0]
            former = explanation(name.removeprefix("--"), [flag.removeprefix("--") for flag in flags]) if name.startswith("--") else None
            problem = former or f"{extra[0]} is not an argument of {self.prog}{did_you_mean(name, flags)}"
            raise ConfigError(f"{problem}; see {self.prog} --help")
        return args

    def arguments_without(self, names: Collection[str]) -> list[str]:
        """The arguments of the command line without the flags `names` and their values. Call `parse` first: it reports errors."""
        reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        reader._negative_number_matcher = NEGATIVE
        for action in self._actions:
            if action.dest in names:
                reader._add_action(action)
        return reader.parse_known_args(self.arguments)[1]

    def format_help(self) -> str:
        """The text of `--help`: usage, description, examples, then the flags by group."""
        head, flags = self._get_formatter(), self._get_formatter()
        head.add_usage(self.usage, self._actions, [])
        head.add_text(self.description)
        for group in self._action_groups:
            flags.start_section(group.title)
            flags.add_text(group.description)
            flags.add_arguments(group._group_actions)
            flags.end_section()
        flags.add_text(self.epilog)
        examples = "".join(f"  python EC.py {example}\n" for example in self.examples)
        return "\n".join(filter(None, [head.format_help(), examples and f"examples:\n{examples}", flags.format_help()]))

    def error(self, message: str) -> NoReturn:
        """Raises a ConfigError with the message that argparse would print."""
        raise ConfigError(message.removeprefix("argument "))


class _Formatter(argparse.HelpFormatter):
    """Help as wide as the terminal, with a short usage line. It shows `--no-FLAG` only for switches that are on by default."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=34, width=_help_width())

    def add_usage(self, usage: str | None, actions: Iterable[argparse.Action], groups: Iterable, prefix: str | None = None) -> None:
        words = [action for action in actions if not action.option_strings]
        if all(action.nargs != argparse.REMAINDER for action in words):
            words.append(argparse.Action([], "flags", metavar="[--FLAG VALUE ...]"))
        shown = [word if word.help != argparse.SUPPRESS else argparse.Action([], word.dest, metavar=word.metavar) for word in words]
        super().add_usage(usage, shown, [], prefix)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Wraps each line by itself. The rest of an indented line continues below its second column."""
        filled = []
        for line in text.splitlines():
            first = re.findall(r"^(?: +\S+ +)?", line)[0]
            hanging = indent + " " * len(first)
            filled.append(textwrap.fill(line[len(first) :], width, initial_indent=indent + first, subsequent_indent=hanging))
        return "\n".join(filled)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, argparse.BooleanOptionalAction) and action.default is False:
            return action.option_strings[0]
        return super()._format_action_invocation(action)


def _help_width() -> int:
    return max(80, min(140, shutil.get_terminal_size(fallback=(120, 24)).columns))
