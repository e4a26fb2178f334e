"""Scripts that complete `python EC.py ...` in a shell: tables of words from the parsers of all commands, and functions that read them.

The script contains all flags and values, so that no Python starts when a user presses TAB. The script looks up runs in the results folder.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence

from cli.commands import Commands
from foundations.arguments import ArgumentParser
from foundations.errors import ConfigError
from platforms import local

ROOT_KEY = "EC.py"  # the key of the names of all commands
DECIDING_FLAGS = ("platform", "pruning_strategy")  # flags whose value decides which other flags exist
DECIDING_SWITCHES = ("--pretrain",)  # flags without a value that decide which other flags exist
MODEL = "--default_hparams=digits_lenet"  # a model, whose defaults add flags
PRINT_LINES = r"%s\n"
LOOKED_UP = ("HASH", "BATCH")  # positional arguments whose values the shell looks up


def script(shell: str, commands: Commands) -> str:
    """The completion script for `bash` or `zsh`."""
    words, values, switches = _tables(commands)
    replacements = {
        "@words": _cases(words),
        "@switches": f"    {' | '.join(sorted(switches))}",
        "@values": _cases(values),
        "@root": local.ROOT,
    }
    text = _read("core.sh")
    for mark, content in replacements.items():
        text = text.replace(mark, content)
    return text + _read(f"{shell}.sh")


def _tables(commands: Commands) -> tuple[dict[str, list[str]], dict[str, list[str]], set[str]]:
    """The words, the values and the switches of all commands.

    Returns:
        The words that may follow `command/subcommand`, and the words that a deciding flag adds.
        The values of each flag.
        The flags that take no value.
    """
    words: dict[str, list[str]] = {ROOT_KEY: list(commands.runners)}
    values: dict[str, list[str]] = {}
    switches: set[str] = set()
    for path in _paths(commands):
        parser = _parser(commands, path)
        subcommands = commands.get(path[0]).subcommands() if len(path) == 1 else ()
        words["/".join(path)] = [*subcommands, *_words(commands, parser)]
        for key, arguments in _deciding_arguments(parser):
            extended = _parser(commands, [*path, *arguments])
            added = [word for word in _words(commands, extended) if word not in _words(commands, parser)]
            words[key] = list(dict.fromkeys([*words.get(key, ()), *added]))
            _collect(extended, values, switches)
        _collect(parser, values, switches)
    return {key: entries for key, entries in words.items() if entries}, values, switches


def _paths(commands: Commands) -> Iterator[list[str]]:
    """Every command, and every subcommand of a command."""
    for command, runner in commands.runners.items():
        yield [command]
        yield from ([command, subcommand] for subcommand in runner.subcommands())


def _parser(commands: Commands, path: Sequence[str]) -> ArgumentParser:
    """The parser of a command. The parser has no flags if the command needs more arguments to decide on its flags."""
    without_model = [] if commands.get(path[0]).computes else [path[1:]]
    for arguments in ([*path[1:], MODEL], *without_model):
        with contextlib.suppress(ConfigError):
            return commands.parser(path[0], arguments)
    return ArgumentParser(path[0], [])


def _deciding_arguments(parser: ArgumentParser) -> Iterator[tuple[str, list[str]]]:
    """The keys and the arguments that add flags to a parser."""
    for action in parser._actions:
        if action.dest in DECIDING_FLAGS:
            yield from ((f"--{action.dest}={value}", [f"--{action.dest}={value}"]) for value in parser.choices_of[action.dest])
        yield from ((flag, [flag]) for flag in DECIDING_SWITCHES if flag in action.option_strings)


def _words(commands: Commands, parser: ArgumentParser) -> list[str]:
    """The flags of a parser, the positional arguments that the shell looks up, and the names of nested commands."""
    looked_up = [str(action.metavar) for action in parser._actions if not action.option_strings and action.metavar in LOOKED_UP]
    takes_command = any(str(action.metavar).startswith("COMMAND") for action in parser._actions)
    flags = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    return list(dict.fromkeys([*looked_up, *(commands.computing if takes_command else ()), *flags]))


def _collect(parser: ArgumentParser, values: dict[str, list[str]], switches: set[str]) -> None:
    """Adds the values of a parser's flags to `values`, and the flags without a value to `switches`."""
    unlisted = _unlisted_values()
    for action in parser._actions:
        flags = [option for option in action.option_strings if option.startswith("--")]
        if action.nargs == 0:
            switches.update(flags)
            continue
        name = next((name for name in unlisted if action.dest.endswith(name)), None)
        choices = unlisted[name] if name else [value for value in parser.choices_of.get(action.dest, ()) if value.isidentifier()]
        for flag in flags if choices else ():
            values[flag] = list(dict.fromkeys([*values.get(flag, ()), *choices]))


@functools.cache
def _unlisted_values() -> dict[str, list[str]]:
    """Values that the help of a flag does not list, because the list is long or the help gives a rule; by the end of the flag's name."""
    from cli.runs import query
    from models import registry as models

    names = [name for pair in models.default_members().items() for name in pair if name.isidentifier()]
    teachers = [name for name in names if not name.startswith("students_")]
    columns = sorted(query.known_names(()))
    return {"model_name": names, "default_hparams": names, "teacher_name": teachers, "sort": columns, "columns": columns}


def _cases(table: Mapping[str, Iterable[str]]) -> str:
    """The branches of a shell's `case` statement. Each branch prints the words of one key."""
    return "\n".join(f"    {shlex.quote(key)}) {shlex.join(['printf', PRINT_LINES, *words])} ;;" for key, words in table.items())


def _read(name: str) -> str:
    """The text of a file of this package."""
    with open(os.path.join(os.path.dirname(__file__), name), encoding="utf-8") as file:
        return file.read()
