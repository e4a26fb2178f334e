"""Scripts that complete `python EC.py ...` in a shell: tables of words, from the parsers of all commands, and a few lines to read them.

All that a shell needs stands in the script, so that no Python starts when somebody presses TAB. Runs it looks up in the folder of results.
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

ROOT_KEY = "EC.py"  # of the commands themselves
DECIDING = ("platform", "pruning_strategy")  # flags whose value decides which other flags there are
SWITCHES = ("--pretrain",)  # that do
MODEL = "--default_hparams=digits_lenet"  # so that there are the flags that a model's defaults bring with them
WORD_A_LINE = r"%s\n"
STOOD_FOR = ("HASH", "BATCH")  # positional arguments that the shell looks up


def script(shell: str, commands: Commands) -> str:
    """The script for `bash` or `zsh`."""
    words, values, switches = _tables(commands)
    replaced = {
        "@words": _cases(words),
        "@switches": f"    {' | '.join(sorted(switches))}",
        "@values": _cases(values),
        "@root": local.ROOT,
    }
    text = _read("core.sh")
    for mark, content in replaced.items():
        text = text.replace(mark, content)
    return text + _read(f"{shell}.sh")


def _tables(commands: Commands) -> tuple[dict[str, list[str]], dict[str, list[str]], set[str]]:
    """What may stand where (by `command/subcommand`, or by the flag that it is there because of), values by flag, and flags without one."""
    words: dict[str, list[str]] = {ROOT_KEY: list(commands.runners)}
    values: dict[str, list[str]] = {}
    switches: set[str] = set()
    for path in _paths(commands):
        parser = _parser(commands, path)
        subcommands = commands.get(path[0]).subcommands() if len(path) == 1 else ()
        words["/".join(path)] = [*subcommands, *_words(commands, parser)]
        for key, arguments in _deciding(parser):
            other = _parser(commands, [*path, *arguments])
            more = [word for word in _words(commands, other) if word not in _words(commands, parser)]
            words[key] = list(dict.fromkeys([*words.get(key, ()), *more]))
            _collect(other, values, switches)
        _collect(parser, values, switches)
    return {key: found for key, found in words.items() if found}, values, switches


def _paths(commands: Commands) -> Iterator[list[str]]:
    """Every command, and every one of its subcommands."""
    for command, runner in commands.runners.items():
        yield [command]
        yield from ([command, subcommand] for subcommand in runner.subcommands())


def _parser(commands: Commands, path: Sequence[str]) -> ArgumentParser:
    """The parser of a command; one without flags where the command needs more to know them."""
    without = [] if commands.get(path[0]).computes else [path[1:]]
    for arguments in ([*path[1:], MODEL], *without):
        with contextlib.suppress(ConfigError):
            return commands.parser(path[0], arguments)
    return ArgumentParser(path[0], [])


def _deciding(parser: ArgumentParser) -> Iterator[tuple[str, list[str]]]:
    """Arguments that bring other flags with them."""
    for action in parser._actions:
        if action.dest in DECIDING:
            yield from ((f"--{action.dest}={value}", [f"--{action.dest}={value}"]) for value in parser.choices_of[action.dest])
        yield from ((flag, [flag]) for flag in SWITCHES if flag in action.option_strings)


def _words(commands: Commands, parser: ArgumentParser) -> list[str]:
    """Flags, and what stands for positional arguments that a shell can look up."""
    places = [action.metavar for action in parser._actions if not action.option_strings and action.metavar in STOOD_FOR]
    computing = [name for name, runner in commands.runners.items() if runner.computes]
    taken = [name for action in parser._actions if str(action.metavar).startswith("COMMAND") for name in computing]
    flags = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    return list(dict.fromkeys([*places, *taken, *flags]))


def _collect(parser: ArgumentParser, values: dict[str, list[str]], switches: set[str]) -> None:
    """Adds the values of the flags of a parser, and those flags that take none."""
    unlisted = _unlisted()
    for action in parser._actions:
        flags = [option for option in action.option_strings if option.startswith("--")]
        if action.nargs == 0:
            switches.update(flags)
            continue
        name = next((name for name in unlisted if action.dest.endswith(name)), None)
        found = unlisted[name] if name else [value for value in parser.choices_of.get(action.dest, ()) if value.isidentifier()]
        for flag in flags if found else ():
            values[flag] = list(dict.fromkeys([*values.get(flag, ()), *found]))


@functools.cache
def _unlisted() -> dict[str, list[str]]:
    """Values of flags whose help would be too long with them, or gives rules for them; by the end of the flag's name."""
    from cli.runs import query
    from models import registry as models

    names, columns = [name for pair in models.default_members().items() for name in pair if name.isidentifier()], sorted(query.names(()))
    teachers = [name for name in names if not name.startswith("students_")]
    return {"model_name": names, "default_hparams": names, "teacher_name": teachers, "sort": columns, "columns": columns}


def _cases(table: Mapping[str, Iterable[str]]) -> str:
    """Branches of a shell's `case`, each of which prints some words."""
    return "\n".join(f"    {shlex.quote(key)}) {shlex.join(['printf', WORD_A_LINE, *words])} ;;" for key, words in table.items())


def _read(name: str) -> str:
    with open(os.path.join(os.path.dirname(__file__), name), encoding="utf-8") as file:
        return file.read()
