"""The arguments of a sweep: the flags that have several values, and the combinations of these values.

A flag that occurs more than once has all of its values: a shell turns `--lr={0.1,0.2}` into `--lr=0.1 --lr=0.2`. Commas separate values as
well, and `0-4` and `0-8:2` are ranges of whole numbers, unless a single value may be such a text: in LISTS and in flags of platforms.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from foundations import ranges
from foundations.errors import ConfigError

LISTS = ("milestone_steps", "others_frozen_exceptions", "pruning_layers_to_ignore", "levels", "arrays")  # the ends of their names
MOST_RUNS = 10_000  # a larger sweep is probably a typing error
BRANCH = "branch"  # the name under which the positional argument of `lottery_branch` is stored


@dataclass(frozen=True)
class Flag:
    """A flag with one value, as the user wrote it.

    Attributes:
        name: the name without dashes.
        value: the value; None for a switch.
        arguments: the one or two arguments of the command line that set the flag.
    """

    name: str
    value: str | None
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Combination:
    """One command of a sweep.

    Attributes:
        flags: the flags of the command, each once.
        varied: the values of the flags that have several values in the sweep, by name.
    """

    flags: tuple[Flag, ...]
    varied: Mapping[str, str]

    @property
    def arguments(self) -> list[str]:
        """The arguments after the name of the command."""
        return self.arguments_without()

    def arguments_without(self, *names: str) -> list[str]:
        """The arguments without those of some flags."""
        return [argument for flag in self.flags if flag.name not in names for argument in flag.arguments]

    def show(self, *hidden: str) -> str:
        """The varied values, such as `lr=0.1, global_seed=3`, without those of hidden flags."""
        return ", ".join(f"{name}={value}" for name, value in self.varied.items() if name not in hidden)


def read(arguments: Sequence[str]) -> list[Flag]:
    """The flags among some arguments, each with its value. An argument before all flags is the flag BRANCH.

    Raises:
        ConfigError: an argument is not the value of a flag.
    """
    flags: list[Flag] = []
    unread = [*arguments]
    while unread:
        argument = unread.pop(0)
        name, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--"):
            if flags:
                last = flags[-1]
                example = f"--{last.name} {last.value},{argument}" if last.value else f"--{last.name}={argument}"
                raise ConfigError(f"{argument!r} is not the value of a flag; write several values with commas, as in {example}")
            flags.append(Flag(BRANCH, argument, (argument,)))
        elif equals:
            flags.append(Flag(name, value, (argument,)))
        elif unread and not unread[0].startswith("--"):
            value = unread.pop(0)
            flags.append(Flag(name, value, (argument, value)))
        else:
            flags.append(Flag(name.removeprefix("no-"), None, (argument,)))
    return flags


def combinations(flags: Sequence[Flag], single: Collection[str] = ()) -> list[Combination]:
    """All combinations of the values of some flags, in the order of the arguments. The value of the last flag changes fastest.

    Args:
        flags: as the user wrote them.
        single: the names of flags with one value, which may contain commas and ranges, such as the flags of the platform.

    Raises:
        ConfigError: a list has an empty value, a range is empty, or there are too many combinations.
    """
    choices: dict[str, dict[str, Flag]] = {}  # by the flag's name, then by the value as it is shown
    for flag in flags:
        known = choices.setdefault(flag.name, {})
        if flag.name in single:
            known.clear()  # the last value counts, as in argparse
        if flag.value is None:
            known.setdefault("no" if flag.arguments[0].startswith("--no-") else "yes", flag)
            continue
        values = [flag.value] if flag.name in single else _values(flag.name, flag.value)
        for value in values:
            known.setdefault(value, flag if values == [flag.value] else _with_value(flag, value))
    count = math.prod(map(len, choices.values()))
    if count > MOST_RUNS:
        raise ConfigError(f"the sweep has {count:,} runs or more; valid: at most {MOST_RUNS:,}")
    return [_combination(choices, values) for values in itertools.product(*choices.values())]


def _combination(choices: Mapping[str, Mapping[str, Flag]], values: Sequence[str]) -> Combination:
    """The command in which every flag has one of its values."""
    picked = dict(zip(choices, values, strict=True))
    flags = tuple(choices[name][value] for name, value in picked.items())
    return Combination(flags, {name: value for name, value in picked.items() if len(choices[name]) > 1})


def _with_value(flag: Flag, value: str) -> Flag:
    """A flag with another value."""
    return Flag(flag.name, value, (value if flag.name == BRANCH else f"--{flag.name}={value}",))


def _values(name: str, text: str) -> list[str]:
    """The values in the text of a flag."""
    if name.endswith(LISTS) or not text:
        return [text]
    values: list[str] = []
    for part in map(str.strip, text.split(",")):
        if not part:
            raise ConfigError(f"--{name}: a value is missing in {text!r}")
        values += _range(name, part) or [part]
    return values


def _range(name: str, text: str) -> list[str]:
    """The whole numbers in a range such as `0-4` or `0-8:2`; empty for another text."""
    numbers = ranges.parse_stepped(text)
    if numbers is None:
        return []
    if not numbers:
        raise ConfigError(f"--{name}: the range {text} is empty; valid: such as 0-4 or 0-8:2")
    if numbers[MOST_RUNS:]:
        raise ConfigError(f"--{name}: the range {text} is too long; valid: at most {MOST_RUNS:,} runs in a sweep")
    return [*map(str, numbers)]
