"""The arguments of branches: hyperparameters from the signature of a function, ranges of levels, and the command of the trunk."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import re
import shlex
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from foundations import limits, ranges
from foundations.errors import ConfigError, unknown
from foundations.hparams import Hparams


@dataclasses.dataclass
class LevelRangeArgs(Hparams):
    """The levels of the trunk that a branch starts from."""

    levels: str

    _name = "Levels"
    _description = "The levels of the pruning experiment whose tickets the branch uses."
    _levels = "Levels and ranges of levels, such as 0-2,5."

    def __post_init__(self):
        self.require("levels", self.numbers()[-1] <= limits.LEVELS, f"levels up to {limits.LEVELS:,}")

    def numbers(self) -> list[int]:
        """The numbers of the levels, in increasing order."""
        return ranges.parse_list(self.levels, self._error, "--levels")

    def _error(self, part: str, is_decreasing: bool) -> ConfigError:
        valid = "increasing ranges, such as 0-2" if is_decreasing else "levels and ranges of levels, such as 0-2,5"
        return ConfigError(f"--levels: {self.levels} is out of range; valid: {valid}")


class BranchArguments(Hparams):
    """The base of the arguments of branch functions. `arguments_of` makes a subclass with one field per argument.

    Attributes:
        choices: the valid values of the arguments that have a closed list of values.
    """

    choices: ClassVar[Mapping[str, Sequence[str]]] = {}

    _name = "Branch Hyperparameters"
    _description = "The hyperparameters of this branch."

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """The value of an argument; the fields are known only at run time."""


def arguments_of(function: Callable, validate: Callable[[BranchArguments], None]) -> type[BranchArguments]:
    """The class of the arguments of a branch function; `validate` raises a ConfigError for values out of range."""
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

    namespace = {f"_{name}": text for name, text in texts.items()} | {"__post_init__": check, "choices": choices}
    return dataclasses.make_dataclass("Arguments", fields, bases=(BranchArguments,), namespace=namespace)


def _help_of(function: Callable) -> dict[str, str]:
    """The help text of each argument, from the docstring of a function."""
    section = (inspect.getdoc(function) or "").partition("Args:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE)
    return {name: text[0].upper() + " ".join(text[1:].split()) for name, text in entries}


def trunk_command(arguments: Sequence[str], own: Sequence[str]) -> str:
    """The command that runs the trunk of a branch, without `--levels`.

    Args:
        arguments: the command-line arguments of the branch, after its name.
        own: the names of the hyperparameters of the branch.
    """
    flags: list[list[str]] = []
    for argument in arguments:
        if argument.startswith("-") or not flags:
            flags.append([])
        flags[-1].append(argument)
    names = "|".join(["levels", "display_output_location", *own])
    kept = [flag for flag in flags if not re.fullmatch(rf"--(no-)?({names})(_\w+)?(=.*)?", flag[0])]
    return shlex.join(["python", "EC.py", "lottery", *itertools.chain.from_iterable(kept)])
