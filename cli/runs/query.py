"""The language in which runs are selected: `lr<0.1 and (act_fun=tanh or not state=finished)`, parsed and never evaluated.

A name is that of a hyperparameter's flag, of a metric, or one of OWN. `=` and `!=` compare numbers as numbers and all else as text; `<`,
`<=`, `>` and `>=` compare numbers and dates; `~` looks for a piece of text. A hash equals every prefix of it, a date every beginning. Words
with blanks or operators in them stand in quotes. What a run has not got fits no comparison but `!=`, and `=none`.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from cli.runs import index, records
from cli.runs.index import Run
from foundations.averages import mean_and_deviation
from foundations.errors import ConfigError, did_you_mean, unknown

Predicate = Callable[[Run], bool]

OWN: dict[str, Callable[[Run], object]] = {
    "kind": lambda run: run.kind,
    "hash": lambda run: run.name.partition("_")[2] or run.name,
    "part": lambda run: run.part,
    "seed": lambda run: run.seed,
    "seeds": lambda run: run.seed,
    "state": lambda run: run.state,
    "note": lambda run: run.note,
    "date": lambda run: run.date,
    "size": lambda run: run.size,
    "folder": lambda run: run.location,
}
METRICS = ("test_accuracy", "test_loss", "train_accuracy", "train_loss", "identified", "accepted", "max_relative_error", "max_abs_error")
METRICS += ("level", "weights_left", "barrier", "seconds")
CLOSED = {"kind": index.KINDS, "state": index.STATES}
ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
WORDS = {"true": True, "false": False, "none": None}
OPERATOR = re.compile(r"\s*(<=|>=|!=|==?|<|>|~)")
NAME = re.compile(r"\s*([\w.]+)")
VALUE = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|((?:[^\s()"'=<>~!]|(?<=\w)\([^\s()]*\))+))""")


def value(run: Run, name: str) -> object:
    """What a run has by a name; None where it has nothing."""
    if name in OWN:
        return OWN[name](run)
    return run.hparams[name] if name in run.hparams else run.metrics.get(name)


def known_names(runs: Iterable[Run]) -> set[str]:
    """Every name that means something: those that are always there, and those of the given runs."""
    bundles = (name for bundle in records.BUNDLES.values() for name in (field.name for field in fields(bundle)))
    return {*OWN, *METRICS, *bundles}.union(*{id(run.hparams): run.hparams for run in runs}.values())


def check_name(name: str, runs: Sequence[Run], flag: str) -> str:
    """A name that means something.

    Raises:
        ConfigError: it means nothing.
    """
    if name in OWN or name in METRICS:
        return name
    known = known_names(runs)
    if name not in known:
        known.update(metric for run in runs for metric in run.metrics)
    if name not in known:
        raise ConfigError(
            f"{flag}: {name!r} is no hyperparameter or metric of any run{did_you_mean(name, known)}; runs show HASH lists some"
        )
    return name


def parse(text: str, runs: Sequence[Run]) -> Predicate:
    """The function that says whether a run fits.

    Args:
        text: the expression.
        runs: those that it may be about, whose names it may use.

    Raises:
        ConfigError: it is no expression, or a name in it means nothing.
    """
    return _Parser(text, runs).whole()


class _Parser:
    """A parser by recursive descent; `rest` is where it has got to."""

    def __init__(self, text: str, runs: Sequence[Run]):
        self.text, self.runs, self.place = text, runs, 0

    def whole(self) -> Predicate:
        try:
            found = self._any()
        except RecursionError:
            raise ConfigError("--where: it is nested too deeply") from None
        if self.text[self.place :].strip():
            raise self._error("`and`, `or` or the end")
        return found

    def _any(self) -> Predicate:
        choices = [self._all()]
        while self._word("or"):
            choices.append(self._all())
        return choices[0] if len(choices) == 1 else lambda run: any(fits(run) for fits in choices)

    def _all(self) -> Predicate:
        conditions = [self._one()]
        while self._word("and"):
            conditions.append(self._one())
        return conditions[0] if len(conditions) == 1 else lambda run: all(fits(run) for fits in conditions)

    def _one(self) -> Predicate:
        if self._word("not"):
            fits = self._one()
            return lambda run: not fits(run)
        if not self._match(re.compile(r"\s*\(")):
            return self._comparison()
        inner = self._any()
        if not self._match(re.compile(r"\s*\)")):
            raise self._error("`)`")
        return inner

    def _comparison(self) -> Predicate:
        name = self._match(NAME)
        if name is None:
            raise self._error("a name")
        name = check_name(name[1], self.runs, "--where")
        sign = self._match(OPERATOR)
        if sign is None:
            raise self._error("one of = != < <= > >= ~")
        found = self._match(VALUE)
        if found is None:
            raise self._error("a value")
        quoted = found[3] is None
        return comparison(name, sign[1], next(group for group in found.groups() if group is not None), quoted)

    def _word(self, word: str) -> bool:
        return self._match(re.compile(rf"\s*{word}(?![\w.])(?!\s*[=<>~!])", re.IGNORECASE)) is not None

    def _match(self, pattern: re.Pattern) -> re.Match | None:
        match = pattern.match(self.text, self.place)
        if match:
            self.place = match.end()
        return match

    def _error(self, expected: str) -> ConfigError:
        there = self.text[self.place :].strip()
        return ConfigError(
            f"--where: {expected} is expected {f'where {there!r} stands' if there else 'at the end'}, as in 'lr<0.1 and seed=3'"
        )


def comparison(name: str, sign: str, text: str, quoted: bool = False) -> Predicate:
    """The function that compares what a run has by a name with a value.

    Raises:
        ConfigError: the name has a closed list of values without it, or it has no order.
    """
    number = None if quoted else as_number(text)
    if sign in ORDER:
        compare = ORDER[sign]
        if name == "date":
            return lambda run: compare(run.date[: len(text)], text)
        if number is None:
            raise ConfigError(f"--where: {name}{sign}{text}: {text!r} is no number; text is compared by = != ~")
        return lambda run: (have := as_number(value(run, name))) is not None and compare(have, number)
    if sign == "~":
        return lambda run: text.lower() in str(value(run, name)).lower()
    if name in CLOSED and text not in CLOSED[name]:
        raise unknown(f"--where: {name}", text, CLOSED[name])
    if name in ("hash", "date"):
        equals = lambda run: OWN[name](run).startswith(text)  # noqa: E731
    else:
        wanted = WORDS.get(text.lower(), text) if not quoted else text
        equals = lambda run: _same(value(run, name), wanted, number)  # noqa: E731
    return equals if sign in ("=", "==") else lambda run: not equals(run)


def _same(have: object, wanted: object, number: float | None) -> bool:
    if isinstance(have, bool) or have is None or number is None:
        return have is wanted if isinstance(wanted, bool) or wanted is None else str(have) == wanted
    return have == number if isinstance(have, (int, float)) else str(have) == wanted


def as_number(have: object) -> float | None:
    """A number, or the number that a text says; None for what is none."""
    if isinstance(have, (int, float)):
        return have
    try:
        return float(have) if isinstance(have, str) else None
    except ValueError:
        return None


# Rows: experiments over their seeds.


@dataclass(frozen=True)
class Row:
    """Runs that differ in their seed alone, or one of them."""

    runs: tuple[Run, ...]

    def value(self, name: str) -> object:
        """What the runs have by a name: the same value, of numbers that differ the mean, of other values the list of those there are."""
        if len(self.runs) == 1:
            return value(self.runs[0], name)
        found = [have for have in self.values(name) if have is not None]
        if not found:
            return None
        if all(have == found[0] for have in found):
            return found[0]
        if name == "date":
            return max(found)
        if name == "size":
            return sum(found)
        if all(isinstance(have, (int, float)) for have in found):
            return mean_and_deviation(found)[0]
        return ", ".join(f"{found.count(each)} {each}" for each in dict.fromkeys(map(str, found)))

    def values(self, name: str) -> list[object]:
        """What each run has by a name."""
        return [value(run, name) for run in self.runs]

    def spread(self, name: str) -> float | None:
        """The standard deviation of a metric over the seeds; None of fewer than two numbers."""
        if len(self.runs) == 1 or name in OWN or name in self.runs[0].hparams:
            return None
        numbers = [have for have in self.values(name) if isinstance(have, (int, float)) and not isinstance(have, bool)]
        return mean_and_deviation(numbers)[1] if len(numbers) > 1 else None


def group(runs: Iterable[Run]) -> list[Row]:
    """The runs by experiment, in the order in which experiments first come."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        found.setdefault((run.name, run.part), []).append(run)
    return [Row(tuple(each)) for each in found.values()]


def select(runs: Sequence[Run], where: str | None) -> list[Run]:
    """The runs that fit an expression, all of them where there is none."""
    return [*filter(parse(where, runs), runs)] if where else list(runs)


def ordered(rows: Sequence[Row], by: str | None, runs: Sequence[Run]) -> list[Row]:
    """Rows sorted by names joined by commas: rising, or falling with `-` before a name or `:desc` after it; those without a value last.

    Raises:
        ConfigError: a name means nothing.
    """
    rows = list(rows)
    for key in reversed(by.split(",") if by else []):
        plain, _, direction = key.strip().partition(":")
        if direction not in ("", "asc", "desc"):
            raise unknown("--sort", direction, ("asc", "desc"))
        falling = direction == "desc" or plain.startswith("-")
        name = check_name(plain.removeprefix("-"), runs, "--sort")
        keyed = [(row, row.value(name)) for row in rows]
        there = [pair for pair in keyed if pair[1] is not None]
        there.sort(key=lambda pair: rank(pair[1]), reverse=falling)
        rows = [row for row, _ in there] + [row for row, have in keyed if have is None]
    return rows


def rank(have: object) -> tuple[bool, float, str]:
    """A key by which numbers come in order, and texts after them; what is no number but `nan` comes last of the numbers."""
    if isinstance(have, (int, float)):
        return (False, math.inf if have != have else have, "")
    return (True, 0.0, str(have))


def differing(runs: Sequence[Run]) -> list[str]:
    """The hyperparameters that are not the same in all runs which have them, in the order of their groups."""
    first: dict[str, object] = {}
    bundles = {id(run.hparams): run.hparams for run in runs}.values()
    found = {name for hparams in bundles for name, have in hparams.items() if first.setdefault(name, have) != have}
    return [name for name in first if name in found]


def apart(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """The hyperparameters that name runs and in which two of them differ; what one has not got differs from what the other has."""
    ignored = records.unhashed()
    return [name for name in dict.fromkeys([*one, *other]) if one.get(name) != other.get(name) and name not in ignored]
