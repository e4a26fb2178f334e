"""Lists of whole numbers as text, such as `3,0-4`: parsing and formatting."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable

from foundations import limits
from foundations.errors import ConfigError

_PATTERN = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?")
_STEPPED = re.compile(r"(\d{1,18})-(\d{1,18})(?::(\d{1,18}))?")


def parse(text: str) -> range | None:
    """The numbers of `3` or `0-4`. Empty if the range ends before it starts; None if the text has another form."""
    match = _PATTERN.fullmatch(text)
    return range(int(match[1]), int(match[2] or match[1]) + 1) if match else None


def parse_stepped(text: str) -> range | None:
    """The numbers of `0-4` or `0-8:2`. Empty if the range ends before it starts or the step is 0; None if the text has another form."""
    match = _STEPPED.fullmatch(text)
    if match is None:
        return None
    step = int(match[3] or 1)
    return range(int(match[1]), int(match[2]) + 1, step) if step else range(0)


def parse_list(text: str, make_error: Callable[[str, bool], Exception], flag: str = "a list") -> list[int]:
    """The numbers of a list such as `0-2,5`, in increasing order and without duplicates.

    Args:
        text: the list. Spaces around its parts are ignored.
        make_error: makes the error for a part without numbers. Its arguments are the part, and whether the part is a range that ends
            before it starts.
        flag: the name of the list in the error for too many numbers.

    Raises:
        The error of `make_error`.
        ConfigError: the list has more than limits.RUNS numbers.
    """
    unique: set[int] = set()
    for part in map(str.strip, text.split(",")):
        numbers = parse(part)
        if not numbers:
            raise make_error(part, numbers is not None)
        if len(numbers) <= limits.RUNS:
            unique.update(numbers)
        if max(len(numbers), len(unique)) > limits.RUNS:
            valid = f"at most {limits.RUNS:,}, because each is a run of its own"
            raise ConfigError(f"{flag}: {text!r:.80} has too many numbers; valid: {valid}")
    return sorted(unique)


def to_text(numbers: Iterable[int]) -> str:
    """The list of numbers as text such as `0-4,7`: sorted, without duplicates, consecutive numbers as ranges.

    Negative numbers are never part of a range, because `-1-1` would be ambiguous.
    """
    pairs = enumerate(sorted(set(numbers)))
    blocks = ([number for _, number in block] for _, block in itertools.groupby(pairs, lambda pair: (min(pair[1], 0), pair[1] - pair[0])))
    return ",".join(f"{block[0]}-{block[-1]}" if len(block) > 1 else str(block[0]) for block in blocks)
