"""Arguments of branches: from the signature of a function to flags, from flags to levels, and back to a command."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import re
import shlex
import typing
from collections.abc import Callable, Sequence

from foundations import ranges
from foundations.errors import ConfigError, unknown
from foundations.hparams import Hparams


@dataclasses.dataclass
class LevelRangeArgs(Hparams):
    """Which levels of the trunk."""

    levels: str

    _name = "Levels"
    _description = "The levels of the trunk to branch off."
    _levels = "Levels and ranges of them, such as 0-2,5."

    def __post_init__(self):
        self.chosen()

    def chosen(self) -> list[int]:
        """The levels one by one."""
        return ranges.parse_list(self.levels, self._refusal)

    def _refusal(self, part: str, falls: bool) -> ConfigError:
        valid = "ranges that rise, such as 0-2" if falls else "levels and ranges of them, such as 0-2,5"
        return ConfigError(f"--levels: {self.levels} is out of range; valid: {valid}")


def arguments_of(function: Callable, validate: Callable[[Hparams], None]) -> type[Hparams]:
    """The arguments of a branch function as a class of hyperparameters, whose `choices` are the values of those with a closed list."""
    hints, texts = typing.get_type_hints(function), _help_of(function)
    fields, choices = [], {}
    for name, parameter in itertools.islice(inspect.signature(function).parameters.items(), 1, None):
        kind = hints[name]
        if typing.get_origin(kind) is typing.Literal:
            choices[name], kind = typing.get_args(kind), str
        default = () if parameter.default is parameter.empty else (dataclasses.field(default=parameter.default),)
        fields.append((name, kind, *default))

    def check(self) -> None:
        for name, valid in choices.items():
            if getattr(self, name) not in valid:
                raise unknown(f"--{name}", getattr(self, name), valid)
        validate(self)

    heading = {"_name": "Branch Hyperparameters", "_description": "What this branch takes.", "__post_init__": check, "choices": choices}
    namespace = heading | {f"_{name}": text for name, text in texts.items()}
    return dataclasses.make_dataclass("Arguments", fields, bases=(Hparams,), namespace=namespace)


def _help_of(function: Callable) -> dict[str, str]:
    """What the docstring of a function says of its arguments."""
    section = (inspect.getdoc(function) or "").partition("Args:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE)
    return {name: text[0].upper() + " ".join(text[1:].split()) for name, text in entries}


def trunk_command(arguments: Sequence[str], own: Sequence[str]) -> str:
    """The command of the trunk of a branch, without `--levels`, from the arguments after the branch's name.

    Args:
        arguments: as they were given.
        own: the names of the arguments of the branch.
    """
    flags: list[list[str]] = []
    for argument in arguments:
        if argument.startswith("-") or not flags:
            flags.append([])
        flags[-1].append(argument)
    names = "|".join(["levels", "display_output_location", *own])
    kept = [flag for flag in flags if not re.fullmatch(rf"--(no-)?({names})(_\w+)?(=.*)?", flag[0])]
    return shlex.join(["python", "EC.py", "lottery", *itertools.chain.from_iterable(kept)])
