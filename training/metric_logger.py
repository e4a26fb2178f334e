"""The log of a run: one record a line, `name$iteration$value`, where the value is JSON: a number, or a list of numbers.

NaN and infinite values are null in the file, and NaN when it is read. `str(logger)` keeps them, as the files of earlier versions do.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from foundations import ancestors, json_text, paths
from foundations.errors import reason
from foundations.step import Step
from platforms.platform import get_platform
from platforms.system import files

REMEDY = "delete it and run the same command again, which rewrites it"
MAX_INTEGER = 2**63  # larger whole numbers overflow in numpy and torch


class MetricLogger:
    """Values of named metrics over training. A second value for the same name and iteration replaces the first."""

    def __init__(self):
        self._values: dict[tuple[str, int], float | list[float]] = {}

    def add(self, name: str, step: Step, value: float | list[float]) -> None:
        """Records a value.

        Args:
            name: the name of the metric, such as `test_loss`.
            step: the step at which it was measured.
            value: a number, or a list of numbers.

        Raises:
            ValueError: the name contains a `$` or a line break.
        """
        if "$" in name or "\n" in name:
            raise ValueError(f"the name of a metric must not contain $ or a line break: {name!r}")
        self._values[name, step.iteration] = value

    def get(self, name: str) -> list[tuple[int, float | list[float]]]:
        """The iterations and values of a metric, sorted by iteration."""
        return sorted((iteration, value) for (metric, iteration), value in self._values.items() if metric == name)

    def numbers(self, name: str) -> list[tuple[int, float]]:
        """The iterations and values of a metric whose values are numbers, sorted by iteration."""
        return [(iteration, value) for iteration, value in self.get(name) if not isinstance(value, list)]

    def vectors(self, name: str) -> list[tuple[int, list[float]]]:
        """The iterations and values of a metric whose values are lists of numbers, sorted by iteration."""
        return [(iteration, value) for iteration, value in self.get(name) if isinstance(value, list)]

    def number_at(self, name: str, step: Step) -> float | None:
        """The value of a metric at a step if it is a number; otherwise None."""
        value = self._values.get((name, step.iteration))
        return None if isinstance(value, list) else value

    def latest(self, name: str) -> float | list[float] | None:
        """The value of a metric at its latest iteration; None where it has no value."""
        values = self.get(name)
        return values[-1][1] if values else None

    def records(self, first: int = 0) -> list[tuple[str, int, float | list[float]]]:
        """Name, iteration and value of every record, in the order in which they were added, without the first `first` records."""
        return [(*key, value) for key, value in itertools.islice(self._values.items(), first, None)]

    @property
    def count(self) -> int:
        """The number of records."""
        return len(self._values)

    @property
    def last_iteration(self) -> int:
        """The latest iteration of all records; 0 for an empty log."""
        return max((iteration for _, iteration in self._values), default=0)

    def names(self) -> list[str]:
        """The names of all metrics."""
        return sorted({name for name, _ in self._values})

    def __str__(self):
        return self._text(json_text.dumps_exact)

    def _text(self, to_json: Callable[[object], str]) -> str:
        return "".join(f"{name}${iteration}${to_json(value)}\n" for (name, iteration), value in self._values.items())

    @staticmethod
    def from_str(text: str) -> MetricLogger:
        """Parses the text of `str(logger)`, or a log of OpenLTH or of the published code. Records that such a log abridges are left out.

        Raises:
            ValueError: a line is not a record.
        """
        if ancestors.is_log(text):
            return MetricLogger._from_ancestor(text)
        if text and not text.endswith("\n"):
            raise ValueError("its last line is incomplete")
        logger = MetricLogger()
        for line in text.splitlines():
            name, iteration, value = line.split("$")
            if not 0 <= int(iteration) < MAX_INTEGER:
                raise ValueError(f"{iteration[:20]!r} is not an iteration")
            logger._values[name, int(iteration)] = _value(value)
        return logger

    @staticmethod
    def _from_ancestor(text: str) -> MetricLogger:
        logger = MetricLogger()
        for name, iteration, value in map(ancestors.parse_row, ancestors.rows(text)):
            if not 0 <= iteration < MAX_INTEGER:
                raise ValueError(f"{iteration} is not an iteration")
            if value is not None:
                logger._values[name, iteration] = value
        return logger

    def save(self, location: str) -> None:
        """Writes the log to a run folder, with null in place of NaN and of infinite values."""
        get_platform().write(paths.logger(location), self._text(json_text.dumps))

    @staticmethod
    def load(location: str) -> MetricLogger:
        """The log of a finished run.

        Raises:
            ConfigError: the file is damaged.
        """
        path = paths.logger(location)
        remedy = f"it is left as it is; {ancestors.program_of(path)} has written it" if ancestors.program_of(path) else REMEDY
        try:
            return MetricLogger.from_str(files.read_text(path, remedy))
        except ValueError as error:
            raise files.damaged(path, reason(error), remedy) from None


def numbers(logger: MetricLogger, name: str, location: str) -> list[tuple[int, float]]:
    """The iterations and values of a metric whose values are numbers, in the log of a finished run.

    Raises:
        ConfigError: the log has no such metric; the error names the log by its run folder, `location`.
    """
    values = logger.numbers(name)
    if not values or len(values) != len(logger.get(name)):
        raise files.damaged(paths.logger(location), f"it has no {name}", REMEDY)
    return values


def _value(text: str) -> float | list[float]:
    """The value of a record.

    Raises:
        ValueError: the text is neither a number nor null nor a list of them.
    """
    value = files.parse_json(text)
    return [_number(item, text) for item in value] if isinstance(value, list) else _number(value, text)


def _number(value: object, text: str) -> float:
    """A value that has been parsed from a text, if it is a number or null; a ValueError otherwise."""
    if value is None:
        return math.nan
    if type(value) is float or (type(value) is int and abs(value) < MAX_INTEGER):
        return value
    raise ValueError(f"{text[:20]!r} is not a number")
