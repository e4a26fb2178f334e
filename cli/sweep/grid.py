"""The arguments of a sweep: which flags hold several values, and the combinations of these.

A flag that is given more than once has each of its values; a shell makes `--lr=0.1 --lr=0.2` of `--lr={0.1,0.2}`. Commas separate values
as well, and `0-4` and `0-8:2` are whole numbers, except where a single value may be such a text: in LISTS, and in the flags of platforms.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from foundations import ranges
from foundations.errors import ConfigError

LISTS = ("milestone_steps", "others_frozen_exceptions", "pruning_layers_to_ignore", "levels")  # what the names of such flags end in
MOST = 10_000  # runs; more are a slip of the finger
BRANCH = "branch"  # what stands first of the arguments of `lottery_branch`


@dataclass(frozen=True)
class Word:
    """A flag as it was given: its name without dashes, its value (None where it has none), and the arguments that it consists of."""

    name: str
    value: str | None
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Combination:
    """One command of a sweep.

    Attributes:
        words: of its flags, each once.
        chosen: the values of the flags that have several in the sweep, by name.
    """

    words: tuple[Word, ...]
    chosen: Mapping[str, str]

    @property
    def arguments(self) -> list[str]:
        """What stands after the name of the command."""
        return self.without()

    def without(self, *names: str) -> list[str]:
        """The same without some flags."""
        return [argument for word in self.words if word.name not in names for argument in word.arguments]

    def show(self, *hidden: str) -> str:
        """What tells it from the others, such as `lr=0.1, global_seed=3`; some flags may be hidden."""
        return ", ".join(f"{name}={value}" for name, value in self.chosen.items() if name not in hidden)


def read(arguments: Sequence[str]) -> list[Word]:
    """The flags among some arguments, each with its value; an argument that stands before all flags is BRANCH.

    Raises:
        ConfigError: a value follows another.
    """
    words: list[Word] = []
    waiting = [*arguments]
    while waiting:
        argument = waiting.pop(0)
        name, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--"):
            if words:
                last = words[-1]
                example = f"--{last.name} {last.value},{argument}" if last.value else f"--{last.name}={argument}"
                raise ConfigError(f"{argument!r} belongs to no flag; several values are joined by commas, as in {example}")
            words.append(Word(BRANCH, argument, (argument,)))
        elif equals:
            words.append(Word(name, value, (argument,)))
        elif waiting and not waiting[0].startswith("--"):
            value = waiting.pop(0)
            words.append(Word(name, value, (argument, value)))
        else:
            words.append(Word(name.removeprefix("no-"), None, (argument,)))
    return words


def combinations(words: Sequence[Word], single: Collection[str] = ()) -> list[Combination]:
    """The product of the values of all flags, in the order in which they are given, the last one changing fastest.

    Args:
        words: as they were given.
        single: flags that have one value, whatever is in it, such as those of the platform.

    Raises:
        ConfigError: a list has a gap, a range goes down, or there are too many combinations.
    """
    choices: dict[str, dict[str, Word]] = {}
    for word in words:
        found = choices.setdefault(word.name, {})
        if word.name in single:
            found.clear()  # as everywhere, the last one counts
        values = [word.value] if word.value is None or word.name in single else _values(word)
        for value in values:
            shown = value if value is not None else "no" if word.arguments[0].startswith("--no-") else "yes"
            found.setdefault(shown, word if len(values) == 1 and value == word.value else _with_value(word, value))
    count = math.prod(map(len, choices.values()))
    if count > MOST:
        raise ConfigError(f"the sweep has {count:,} runs or more; valid: at most {MOST:,}")
    return [_combination(choices, each) for each in itertools.product(*choices.values())]


def _combination(choices: Mapping[str, Mapping[str, Word]], shown: Sequence[str]) -> Combination:
    """The command in which every flag has the value that is shown as given."""
    picked = dict(zip(choices, shown, strict=True))
    words = tuple(choices[name][value] for name, value in picked.items())
    return Combination(words, {name: value for name, value in picked.items() if len(choices[name]) > 1})


def _with_value(word: Word, value: str) -> Word:
    """A flag with another value."""
    return Word(word.name, value, (value if word.name == BRANCH else f"--{word.name}={value}",))


def _values(word: Word) -> list[str]:
    """The values that the text of a flag stands for."""
    if word.name.endswith(LISTS) or not word.value:
        return [word.value]
    found: list[str] = []
    for part in word.value.split(","):
        if not part.strip():
            raise ConfigError(f"--{word.name}: there is a value missing in {word.value!r}")
        found += _range(word.name, part.strip()) or [part.strip()]
    return found


def _range(name: str, text: str) -> list[str]:
    """The whole numbers that a text such as `0-4` or `0-8:2` stands for; none where it is no such text."""
    found = ranges.parse_stepped(text)
    if found is None:
        return []
    if not found:
        raise ConfigError(f"--{name}: the range {text} goes nowhere; valid: such as 0-4 or 0-8:2")
    if found[MOST:]:
        raise ConfigError(f"--{name}: the range {text} is too long; valid: at most {MOST:,} runs in a sweep")
    return [*map(str, found)]
