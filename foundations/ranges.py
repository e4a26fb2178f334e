"""Whole numbers as text: `3`, `0-4` and `0-8:2`, joined by commas; and back."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable

_PATTERN = re.compile(r"(\d+)(?:-(\d+))?")
_STEPPED = re.compile(r"(\d+)-(\d+)(?::(\d+))?")


def parse(text: str) -> range | None:
    """The numbers that `3` or `0-4` stands for; empty where the range falls, None where the text is neither."""
    match = _PATTERN.fullmatch(text)
    return range(int(match[1]), int(match[2] or match[1]) + 1) if match else None


def parse_stepped(text: str) -> range | None:
    """The numbers that `0-4` or `0-8:2` stands for; empty where the range falls or the step is 0, None where the text is neither."""
    match = _STEPPED.fullmatch(text)
    if match is None:
        return None
    step = int(match[3] or 1)
    return range(int(match[1]), int(match[2]) + 1, step) if step else range(0)


def numbers(text: str, refusal: Callable[[str, bool], Exception]) -> list[int]:
    """The numbers that a list such as `0-2,5` stands for, in increasing order, each once.

    Args:
        text: the list; spaces around its parts do not count.
        refusal: makes the error for a part that stands for no number, from the part and whether it is a range that falls.

    Raises:
        What `refusal` makes.
    """
    found: set[int] = set()
    for part in map(str.strip, text.split(",")):
        each = parse(part)
        if not each:
            raise refusal(part, each is not None)
        found.update(each)
    return sorted(found)


def show(numbers: Iterable[int]) -> str:
    """Numbers in increasing order, each once, consecutive ones as ranges: `0-4,7`. Negative ones stand alone, for `-1-1` cannot be read."""
    pairs = enumerate(sorted(set(numbers)))
    blocks = ([number for _, number in block] for _, block in itertools.groupby(pairs, lambda pair: (min(pair[1], 0), pair[1] - pair[0])))
    return ",".join(f"{block[0]}-{block[-1]}" if len(block) > 1 else str(block[0]) for block in blocks)
