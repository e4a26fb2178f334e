"""JSON as RFC 8259 defines it, which has no NaN and no Infinity. Only this module writes JSON."""

from __future__ import annotations

import json
import math


def dumps(content: object, indent: int | None = None) -> str:
    """The content as JSON, with null in place of NaN and of infinite numbers.

    Args:
        content: None, bool, int, float, str, and lists, tuples and dictionaries of them.
        indent: the number of spaces of each level; None for a single line.

    Raises:
        TypeError: a value is of another type.
    """
    try:
        return json.dumps(content, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(_without_nonfinite(content), indent=indent, allow_nan=False)


def dumps_exact(content: object) -> str:
    """The content as JSON with Python's NaN and Infinity, for texts that only this program reads, such as those in a checkpoint."""
    return json.dumps(content)


def number(value: object) -> float:
    """A number of parsed JSON as a float; NaN for null, which `dumps` writes in place of NaN and of infinite numbers.

    Raises:
        TypeError: the value is neither a number nor null.
        OverflowError: the number is too large for a float.
    """
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r:.40} is not a number")
    return float(value)


def _without_nonfinite(content: object) -> object:
    """A copy of the content with None in place of NaN and of infinite numbers."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {name: _without_nonfinite(value) for name, value in content.items()}
    return [_without_nonfinite(value) for value in content] if isinstance(content, (list, tuple)) else content
