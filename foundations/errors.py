"""Errors in the user's input. Each message is one line."""

import difflib
from collections.abc import Iterable


class ConfigError(Exception):
    """Invalid input of the user. `EC.py` prints the message on one line, writes nothing, and exits with status 2."""

    exit_status = 2


class Busy(ConfigError):
    """Another process holds the lock of the run. `EC.py` prints which process it is, and exits with status 3."""

    exit_status = 3


def unknown(what: str, value: object, valid: Iterable[str]) -> ConfigError:
    """The error for a value that is not in a list of valid values. The message suggests the nearest valid value and lists all of them.

    Args:
        what: the meaning of the value: its flag if it has one (`--act_fun`).
        value: the invalid value.
        valid: all valid values.
    """
    valid = sorted(valid)
    return ConfigError(f"{what}: {value!r} is not known{did_you_mean(str(value), valid)}; valid: {', '.join(valid) or 'none'}")


def reason(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class if the message is empty."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def one_line(text: str) -> str:
    """The text with spaces in place of line breaks and of control characters for terminals.

    The bytes of paths that are not UTF-8, which Python keeps as lone surrogates, stay.
    """
    return "".join(character if character.isprintable() or "\udc80" <= character <= "\udcff" else " " for character in text)


def did_you_mean(value: str, valid: Iterable[str]) -> str:
    """`, did you mean 'x'?`, where x is the nearest valid value, or else the first one that starts with `value`.

    The result is empty if there is no such value.
    """
    known = {_normalised(name): name for name in valid}
    prefix = _normalised(value).strip("_") or " "
    completions = [name for name in known if name.strip("_").startswith(prefix)]
    nearest = difflib.get_close_matches(_normalised(value), known, n=1) or completions
    return f", did you mean {known[nearest[0]]!r}?" if nearest else ""


def _normalised(name: str) -> str:
    """A name in lower case, with underscores in place of hyphens."""
    return name.lower().replace("-", "_")
