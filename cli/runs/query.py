"""The query language of `--where`, such as `lr<0.1 and (act_fun=tanh or not state=finished)`. Queries are parsed, not evaluated as code.

A name is the name of a flag, the name of a metric, or a key of ATTRIBUTES. `=` and `!=` compare numbers as numbers, true and false also as
yes and no, and other values as text; `<`, `<=`, `>` and `>=` compare numbers and dates; `~` searches for a text. A hash or a date equals
each of its prefixes. A teacher equals the name of its file of answers, its name, and each prefix of its hash. Values with spaces or
operators stand in quotes. A missing value satisfies only `!=` and `=none`.
"""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from cli.runs import index, records
from cli.runs.index import Run
from foundations.averages import mean_and_deviation
from foundations.errors import ConfigError, did_you_mean, unknown

Predicate = Callable[[Run], bool]

ATTRIBUTES: dict[str, Callable[[Run], object]] = {
    "kind": lambda run: run.kind,
    "hash": lambda run: run.name.partition("_")[2] or run.name,
    "part": lambda run: run.part,
    "seed": lambda run: run.seed,
    "seeds": lambda run: run.seed,
    "state": lambda run: run.state,
    "note": lambda run: run.note,
    "trained_steps": lambda run: run.trained_steps,
    "teacher": lambda run: run.hparams.get("teacher_file") or run.hparams.get("teacher_name"),
    "date": lambda run: run.date,
    "size": lambda run: run.size,
    "folder": lambda run: run.location,
}
METRICS = ("test_accuracy", "test_loss", "train_accuracy", "train_loss", "identified", "accepted", "accepted_to_precision")
METRICS += ("max_relative_error", "weight_error_95", "max_abs_error", "level", "weights_left", "barrier", "seconds", "queries")
VALID_VALUES = {"kind": index.KINDS, "state": index.STATES}
ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
TRUTHS = {"true": True, "yes": True, "false": False, "no": False}
NONE = "none"
OPERATOR = re.compile(r"\s*(<=|>=|!=|==?|<|>|~)")
NAME = re.compile(r"\s*([\w.]+)")
VALUE = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|((?:[^\s()"'=<>~!]|(?<=\w)\([^\s()]*\))+))""")


def value(run: Run, name: str) -> object:
    """The attribute, hyperparameter or metric of a run with a name; None if the run has no such value."""
    if name in ATTRIBUTES:
        return ATTRIBUTES[name](run)
    return run.hparams[name] if name in run.hparams else run.metrics.get(name)


def known_names(runs: Iterable[Run]) -> set[str]:
    """Every valid name: the names that are always valid, and the names of the hyperparameters of some runs."""
    bundles = (name for bundle in records.BUNDLES.values() for name in (field.name for field in fields(bundle)))
    return {*ATTRIBUTES, *METRICS, *bundles}.union(*{id(run.hparams): run.hparams for run in runs}.values())


def check_name(name: str, runs: Sequence[Run], flag: str) -> str:
    """The name, if it is valid.

    Args:
        name: of an attribute, a hyperparameter or a metric.
        runs: the runs whose hyperparameters and metrics are valid.
        flag: the flag that the error names.

    Raises:
        ConfigError: the name is not valid.
    """
    if name in ATTRIBUTES or name in METRICS:
        return name
    known = known_names(runs)
    if name not in known:
        known.update(metric for run in runs for metric in run.metrics)
    if name not in known:
        raise ConfigError(
            f"{flag}: {name!r} is not a hyperparameter or metric of any run{did_you_mean(name, known)}; "
            "EC.py runs show HASH lists those of a run"
        )
    return name


def parse(text: str, runs: Sequence[Run]) -> Predicate:
    """A function that returns whether a run satisfies an expression.

    Args:
        text: the expression.
        runs: the runs whose hyperparameters and metrics the expression may use.

    Raises:
        ConfigError: the text is not an expression, or a name in it is not valid.
    """
    return _Parser(text, runs).parse()


class _Parser:
    """A recursive-descent parser. `position` is the position of the next unread character."""

    def __init__(self, text: str, runs: Sequence[Run]):
        self.text, self.runs, self.position = text, runs, 0

    def parse(self) -> Predicate:
        try:
            predicate = self._disjunction()
        except RecursionError:
            raise ConfigError("--where: the expression is nested too deeply") from None
        if self.text[self.position :].strip():
            raise self._error("`and`, `or` or the end")
        return predicate

    def _disjunction(self) -> Predicate:
        choices = [self._conjunction()]
        while self._keyword("or"):
            choices.append(self._conjunction())
        return choices[0] if len(choices) == 1 else lambda run: any(fits(run) for fits in choices)

    def _conjunction(self) -> Predicate:
        conditions = [self._condition()]
        while self._keyword("and"):
            conditions.append(self._condition())
        return conditions[0] if len(conditions) == 1 else lambda run: all(fits(run) for fits in conditions)

    def _condition(self) -> Predicate:
        if self._keyword("not"):
            fits = self._condition()
            return lambda run: not fits(run)
        if not self._match(re.compile(r"\s*\(")):
            return self._comparison()
        inner = self._disjunction()
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
        match = self._match(VALUE)
        if match is None:
            raise self._error("a value")
        quoted = match[3] is None
        return comparison(name, sign[1], next(group for group in match.groups() if group is not None), quoted)

    def _keyword(self, word: str) -> bool:
        return self._match(re.compile(rf"\s*{word}(?![\w.])(?!\s*[=<>~!])", re.IGNORECASE)) is not None

    def _match(self, pattern: re.Pattern) -> re.Match | None:
        match = pattern.match(self.text, self.position)
        if match:
            self.position = match.end()
        return match

    def _error(self, expected: str) -> ConfigError:
        rest = self.text[self.position :].strip()
        where = f"before {rest!r}" if rest else "at the end"
        return ConfigError(f"--where: {expected} is expected {where}, as in 'lr<0.1 and seed=3'; values with spaces stand in quotes")


def comparison(name: str, sign: str, text: str, quoted: bool = False) -> Predicate:
    """A function that compares the value of a run with another value.

    Args:
        name: the name of the run's value.
        sign: the operator.
        text: the other value.
        quoted: whether the other value is text even if it looks like a number or a constant.

    Raises:
        ConfigError: the name has a closed list of values that lacks the text, or the operator needs a number and the text is none.
    """
    number = None if quoted else to_number(text)
    if sign in ORDER:
        compare = ORDER[sign]
        if name == "date":
            return lambda run: compare(run.date[: len(text)], text)
        if number is None:
            raise ConfigError(f"--where: {name}{sign}{text}: {text!r} is not a number; valid operators for text: = != ~")
        return lambda run: (have := to_number(value(run, name))) is not None and compare(have, number)
    if sign == "~":
        return lambda run: text.lower() in str(value(run, name)).lower()
    if name in VALID_VALUES and text not in VALID_VALUES[name]:
        raise unknown(f"--where: {name}", text, VALID_VALUES[name])
    if name in ("hash", "date"):
        equals = lambda run: str(ATTRIBUTES[name](run)).startswith(text)  # noqa: E731
    elif name == "teacher" and (quoted or text.lower() != NONE):
        equals = lambda run: _is_teacher(run, text)  # noqa: E731
    else:
        equals = lambda run: _same(value(run, name), text, number, quoted)  # noqa: E731
    return equals if sign in ("=", "==") else lambda run: not equals(run)


def _same(have: object, text: str, number: float | None, quoted: bool) -> bool:
    """Whether a value equals that of a text, or the text itself."""
    word = NONE if quoted else text.lower()
    if have is None:
        return not quoted and word == NONE
    if isinstance(have, bool):
        return have is TRUTHS.get(word) if word in TRUTHS else str(have) == text
    return have == number if number is not None and isinstance(have, (int, float)) else str(have) == text


def _is_teacher(run: Run, text: str) -> bool:
    """Whether a text names the teacher of a run: the name or path of its file of answers, its own name, its hash or a prefix."""
    name, file = run.hparams.get("teacher_name"), run.hparams.get("teacher_file")
    names = [name, name.partition("_")[2]] if isinstance(name, str) and text else []
    is_file = file is not None and file in (text, "+".join(map(os.path.basename, text.split("+"))))
    return is_file or any(each.startswith(text) for each in names)


def to_number(have: object) -> float | None:
    """A number, or the number in a text; None for another value."""
    if isinstance(have, (int, float)):
        return have
    try:
        return float(have) if isinstance(have, str) else None
    except ValueError:
        return None


@dataclass(frozen=True)
class Row:
    """A row of a listing: all seeds of an experiment, or one seed."""

    runs: tuple[Run, ...]

    def value(self, name: str) -> object:
        """The value of the runs with a name: the common value, the mean of different numbers, or the counts of other values.

        Of different dates the value is the latest, and of different sizes the sum.
        """
        if len(self.runs) == 1:
            return value(self.runs[0], name)
        values = [have for have in self.values(name) if have is not None]
        if not values:
            return None
        if all(have == values[0] for have in values):
            return values[0]
        if name == "date":
            return max(run.date for run in self.runs)
        if name == "size":
            return sum(run.size for run in self.runs)
        numbers = [have for have in values if isinstance(have, (int, float))]
        if len(numbers) == len(values):
            return mean_and_deviation(numbers)[0]
        return ", ".join(f"{values.count(each)} {each}" for each in dict.fromkeys(map(str, values)))

    def values(self, name: str) -> list[object]:
        """The value of each run with a name."""
        return [value(run, name) for run in self.runs]

    def deviation(self, name: str) -> float | None:
        """The standard deviation of a metric over the seeds; None for fewer than two numbers."""
        if len(self.runs) == 1 or name in ATTRIBUTES or name in self.runs[0].hparams:
            return None
        numbers = [have for have in self.values(name) if isinstance(have, (int, float)) and not isinstance(have, bool)]
        return mean_and_deviation(numbers)[1] if len(numbers) > 1 else None


def group(runs: Iterable[Run]) -> list[Row]:
    """One row for each experiment, in the order in which the experiments first occur."""
    experiments: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        experiments.setdefault((run.name, run.part), []).append(run)
    return [Row(tuple(seeds)) for seeds in experiments.values()]


def select(runs: Sequence[Run], where: str | None) -> list[Run]:
    """The runs that satisfy an expression; all runs without an expression."""
    return [*filter(parse(where, runs), runs)] if where else list(runs)


def sort_rows(rows: Sequence[Row], by: str | None, runs: Sequence[Run]) -> list[Row]:
    """Rows sorted by names that are separated by commas. Rows without a value come last.

    Args:
        rows: the rows.
        by: the names; `-` before a name or `:desc` after it sorts in descending order.
        runs: the runs whose hyperparameters and metrics are valid names.

    Raises:
        ConfigError: a name or a direction is not valid.
    """
    rows = list(rows)
    for key in reversed(by.split(",") if by else []):
        plain, _, direction = key.strip().partition(":")
        if direction not in ("", "asc", "desc"):
            raise unknown("--sort", direction, ("asc", "desc"))
        descending = direction == "desc" or plain.startswith("-")
        name = check_name(plain.removeprefix("-"), runs, "--sort")
        keyed = [(row, row.value(name)) for row in rows]
        present = [pair for pair in keyed if pair[1] is not None]
        present.sort(key=lambda pair: sort_key(pair[1]), reverse=descending)
        rows = [row for row, _ in present] + [row for row, have in keyed if have is None]
    return rows


def sort_key(have: object) -> tuple[bool, float, str]:
    """A key that sorts numbers in increasing order, then `nan`, then texts."""
    if isinstance(have, (int, float)):
        return (False, math.inf if have != have else have, "")
    return (True, 0.0, str(have))


def differing(runs: Sequence[Run]) -> list[str]:
    """The hyperparameters whose values differ among the runs that have them, in the order of the hyperparameters."""
    first: dict[str, object] = {}
    bundles = {id(run.hparams): run.hparams for run in runs}.values()
    different = {name for hparams in bundles for name, have in hparams.items() if first.setdefault(name, have) != have}
    return [name for name in first if name in different]


def name_differences(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """The hyperparameters that differ between two runs and that are part of the name of a run. A missing value differs from any value."""
    ignored = records.unhashed()
    return [name for name in dict.fromkeys([*one, *other]) if one.get(name) != other.get(name) and name not in ignored]
