"""Reading files that may be damaged or foreign: as data only, with limits on size and depth, and with errors of one line."""

from __future__ import annotations

import json
import re
from typing import Any

from foundations import paths
from foundations.errors import ConfigError, reason
from platforms.platform import get_platform
from platforms.system import locks

LONGEST_TEXT = 2**30  # characters
LONGEST_JSON = 2**24  # characters
UNDECODED = re.compile("[\udc80-\udcff]")  # the surrogates that stand for bytes which are not UTF-8


def read_text(path: str, remedy: str, longest: int = LONGEST_TEXT) -> str:
    """The text of a file.

    Args:
        path: the path of the file.
        remedy: what the user should do if the file is damaged; part of the error.
        longest: the maximum number of characters.

    Raises:
        ConfigError: the file cannot be read, is not text, or is too long.
    """
    try:
        with get_platform().open(path) as file:
            text = file.read(longest + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror or error}); {remedy}") from None
    except ValueError:
        raise damaged(path, "it is not text", remedy) from None
    if len(text) > longest:
        raise damaged(path, f"it has more than {longest:,} characters", remedy)
    return text


def read_json(path: str, remedy: str) -> Any:
    """The content of a JSON file. Arguments and errors are those of `read_text`; the caller checks the structure of the content."""
    try:
        content = parse_json(read_text(path, remedy, LONGEST_JSON))
        _check_text(content)
    except ValueError as error:
        raise damaged(path, reason(error), remedy) from None
    return content


def parse_json(text: str) -> Any:
    """The content of a JSON text.

    Raises:
        ValueError: the text is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _check_text(content: object) -> None:
    """Raises a ValueError if a text in the content has characters that are not printable, such as control codes of terminals.

    Bytes of paths that are not UTF-8, which Python keeps as lone surrogates, are accepted.
    """
    values = [content]
    while values:
        value = values.pop()
        if isinstance(value, str) and not value.isprintable() and not UNDECODED.sub("", value).isprintable():
            raise ValueError(f"{value[:20]!r} is not plain text")
        values += [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []


def write_if_changed(path: str, content: bytes) -> None:
    """Writes a file unless it already has this content. If several processes call this at the same time, only one writes."""
    get_platform().on_primary(lambda: _write_if_changed(path, content))


def _write_if_changed(path: str, content: bytes) -> None:
    if _has_content(path, content) and not get_platform().exists(paths.lock_of(path)):
        return
    with locks.held_file(path):
        if not _has_content(path, content):
            get_platform().write(path, content)


def _has_content(path: str, content: bytes) -> bool:
    """Whether the file exists and has this content."""
    try:
        with get_platform().open(path, "rb") as file:
            return file.read(len(content) + 1) == content
    except OSError:
        return False


def damaged(path: str, why: str, remedy: str) -> ConfigError:
    """The error for a file whose content is invalid."""
    return ConfigError(f"{path} is damaged ({why}); {remedy}")
