"""What the user got wrong, said in one line."""

import difflib
from collections.abc import Iterable


class ConfigError(Exception):
    """Input that cannot be run as given. `EC.py` prints the message on one line and exits with 2, having written nothing."""

    exit_status = 2


class Busy(ConfigError):
    """A run that another process is at work on. `EC.py` prints who, and exits with 3."""

    exit_status = 3


def unknown(what: str, value: object, valid: Iterable[str]) -> ConfigError:
    """The error for a value outside a closed list: what it is, the nearest valid value, and all of them.

    Args:
        what: what the value stands for, flag included where there is one (`--act_fun`).
        value: what was given.
        valid: every value that would have been accepted.
    """
    valid = sorted(valid)
    return ConfigError(f"{what}: {value!r} is not known{did_you_mean(str(value), valid)}; valid: {', '.join(valid) or 'none'}")


def reason(error: BaseException) -> str:
    """The first line of what another library's error says, or its kind where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def one_line(text: str) -> str:
    """Some text without line breaks, and without characters that would do something to a terminal rather than be seen on it."""
    return "".join(each if each.isprintable() else " " for each in text)


def did_you_mean(value: str, valid: Iterable[str]) -> str:
    """`, did you mean 'x'?` for the nearest of the valid values or the first that begins like it, or nothing where none is near."""
    known = {_plain(each): each for each in valid}
    begun = [name for name in known if name.strip("_").startswith(_plain(value).strip("_") or " ")]
    nearest = difflib.get_close_matches(_plain(value), known, n=1) or begun
    return f", did you mean {known[nearest[0]]!r}?" if nearest else ""


def _plain(name: str) -> str:
    """A name without what is easily mixed up: capitals, and hyphens for underscores."""
    return name.lower().replace("-", "_")
