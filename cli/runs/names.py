"""Short hashes of runs, and the runs that a short hash names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cli.runs.index import EXPERIMENT, PART, Run
from foundations.errors import ConfigError, did_you_mean

SHORTEST_HASH = 6  # digits


class Names:
    """The shortest unique hashes of all experiments in the results folder and of their parts, with at least SHORTEST_HASH digits.

    Args:
        runs: all runs in the results folder, not only the listed ones.
    """

    def __init__(self, runs: Sequence[Run]):
        self._runs = runs
        self._short: dict[tuple[str, str], str] = {}
        self._shorten("", sorted({run.name for run in runs}), EXPERIMENT)
        parts: dict[str, set[str]] = {}
        for run in runs:
            if run.part:
                parts.setdefault(run.name, set()).add(run.part)
        for name, parts_of_name in parts.items():
            self._shorten(name, sorted(parts_of_name), PART)

    def _shorten(self, experiment: str, names: Sequence[str], pattern: re.Pattern) -> None:
        """Stores the short hashes of experiments (`experiment` is empty), or of the parts of an experiment."""
        hashes = sorted((match[2], name) for match, name in ((pattern.fullmatch(name), name) for name in names) if match)
        for place, (digits, name) in enumerate(hashes):
            length = SHORTEST_HASH
            for other, _ in hashes[max(0, place - 1) : place] + hashes[place + 1 : place + 2]:
                while digits[:length] == other[:length] and digits != other:
                    length += 1
            self._short[experiment, name] = digits[:length]

    def short(self, run: Run) -> str:
        """The short hash of a run's experiment, and after a slash the short hash of its part; for a foreign run the name of its folder."""
        name = self._short.get(("", run.name), run.name)
        return f"{name}/{self._short[run.name, run.part]}" if run.part else name

    @staticmethod
    def full(run: Run) -> str:
        """The hash of a run with all digits, in the form of `short`."""
        return "/".join(name.rpartition("_")[2] or name for name in (run.name, run.part) if name) if run.kind != "other" else run.name

    def shorten(self, text: str) -> str:
        """The name of an experiment with its short hash; any other text is returned unchanged."""
        short = self._short.get(("", text))
        return text if short is None else f"{text.partition('_')[0]}_{short}"

    def find(self, text: str, whole: bool = False) -> list[Run]:
        """All seeds of the run that a unique prefix of a hash names, with or without the kind, with or without a part.

        Args:
            text: the prefix, such as `71bc92`, `train_71bc92`, `72f755/7b9979` or, for a branch, `d9c60d/retrain`.
            whole: whether a hash without a part names the experiment with all its parts; if not, it names the runs that are no parts.

        Raises:
            ConfigError: the prefix names no run or several runs.
        """
        head, _, tail = text.strip("/").partition("/")
        names = sorted({run.name for run in self._runs})
        name = _only(text, head, names, EXPERIMENT)
        runs = [run for run in self._runs if run.name == name]
        if not tail and (whole or any(not run.part for run in runs)):
            return [run for run in runs if whole or not run.part]
        parts = sorted({run.part for run in runs if run.part})
        part = _only(text, tail, parts, PART)
        return [run for run in runs if run.part == part]


def _only(text: str, prefix: str, names: Sequence[str], pattern: re.Pattern) -> str:
    """The one name that begins with a prefix, or whose hash begins with it.

    Args:
        text: the text of the user, which errors quote.
        prefix: the prefix of a name or of a hash, the last part of the text.
        names: all names.
        pattern: the pattern of the names, with the kind and the hash as its groups.

    Raises:
        ConfigError: no name or several names match.
    """
    if prefix in names:
        return prefix
    matches = {name: pattern.fullmatch(name) for name in names}
    fits = [name for name, match in matches.items() if name.startswith(prefix) or (match and _begins(match, prefix))]
    fits = [name for name in fits if matches[name] or not any(matches[other] and name.startswith(other) for other in fits)]  # no copies
    if len(fits) == 1:
        return fits[0]
    if not fits:
        hashes = [match[2][: len(prefix)] for match in matches.values() if match]
        raise ConfigError(f"{text!r}: no hash of a run begins with it{did_you_mean(prefix, [*names, *hashes])}; EC.py runs lists all runs")
    experiment = f"{text.strip('/').partition('/')[0]}/" if pattern is PART else ""
    shown = [f"{experiment}{_abridged(name, pattern, len(prefix))}" for name in fits[:8]]
    more = f" and {len(fits) - 8:,} more" if len(fits) > 8 else ""
    raise ConfigError(f"{text!r}: the hashes of {len(fits):,} runs begin with it; valid: {', '.join(shown)}{more}")


def _begins(match: re.Match, prefix: str) -> bool:
    """Whether the hash or the branch in a name begins with a prefix."""
    return match[2].startswith(prefix) or match[1].removeprefix("lottery_branch_").startswith(prefix)


def _abridged(name: str, pattern: re.Pattern, digits: int) -> str:
    """A name with a few more digits of its hash than the user has typed."""
    match = pattern.fullmatch(name)
    return f"{match[1]}_{match[2][: max(10, digits + 2)]}" if match else name
