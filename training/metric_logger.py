"""Telemetry: one record a line, `name$iteration$value`, where the value is JSON (a number, or a list for a vector)."""

from __future__ import annotations

import itertools
import json

from foundations import paths
from foundations.errors import reason
from foundations.step import Step
from platforms.platform import get_platform
from platforms.system import files

REMEDY = "delete it and run the same command again, which rewrites it"
LARGEST = 2**63  # of whole numbers; those beyond cannot be computed with


class MetricLogger:
    """Values of named metrics over training. A second value for the same name and iteration replaces the first."""

    def __init__(self):
        self._values: dict[tuple[str, int], float | list[float]] = {}

    def add(self, name: str, step: Step, value: float | list[float]) -> None:
        """Records a value.

        Args:
            name: what was measured, such as `test_loss`; it may not hold a `$`.
            step: when.
            value: a number, or a list of numbers.
        """
        if "$" in name or "\n" in name:
            raise ValueError(f"a metric's name may not hold $ or a line break: {name!r}")
        self._values[name, step.iteration] = value

    def get(self, name: str) -> list[tuple[int, float | list[float]]]:
        """The iterations and values of one metric, in order of the iterations."""
        return sorted((iteration, value) for (known, iteration), value in self._values.items() if known == name)

    def numbers(self, name: str) -> list[tuple[int, float]]:
        """The iterations and values of a metric that is one number at a time, in order of the iterations."""
        return [(iteration, value) for iteration, value in self.get(name) if not isinstance(value, list)]

    def vectors(self, name: str) -> list[tuple[int, list[float]]]:
        """The iterations and values of a metric that is a list of numbers, in order of the iterations."""
        return [(iteration, value) for iteration, value in self.get(name) if isinstance(value, list)]

    def latest(self, name: str) -> float | list[float] | None:
        """The newest value of a metric."""
        values = self.get(name)
        return values[-1][1] if values else None

    def records(self, first: int = 0) -> list[tuple[str, int, float | list[float]]]:
        """Name, iteration and value of every record in the order in which they came, without so many that came first."""
        return [(*key, value) for key, value in itertools.islice(self._values.items(), first, None)]

    @property
    def count(self) -> int:
        """The number of records."""
        return len(self._values)

    @property
    def last_iteration(self) -> int:
        """The latest iteration at which anything was recorded; 0 in an empty log."""
        return max((iteration for _, iteration in self._values), default=0)

    def names(self) -> list[str]:
        """The names of all metrics."""
        return sorted({name for name, _ in self._values})

    def __str__(self):
        return "".join(f"{name}${iteration}${json.dumps(value)}\n" for (name, iteration), value in self._values.items())

    @staticmethod
    def from_str(text: str) -> MetricLogger:
        """Reads what `str(logger)` wrote.

        Raises:
            ValueError: a line is no record.
        """
        if text and not text.endswith("\n"):
            raise ValueError("its last line is cut short")
        logger = MetricLogger()
        for line in text.splitlines():
            name, iteration, value = line.split("$")
            if not 0 <= int(iteration) < LARGEST:
                raise ValueError(f"{iteration[:20]!r} is no iteration")
            logger._values[name, int(iteration)] = _value(value)
        return logger

    def save(self, location: str) -> None:
        """Writes the log to a run folder."""
        get_platform().write(paths.logger(location), str(self))

    @staticmethod
    def load(location: str) -> MetricLogger:
        """The log of a finished run.

        Raises:
            ConfigError: the file is damaged.
        """
        path = paths.logger(location)
        try:
            return MetricLogger.from_str(files.read_text(path, REMEDY))
        except ValueError as error:
            raise files.damaged(path, reason(error), REMEDY) from None


def numbers(logger: MetricLogger, name: str, location: str) -> list[tuple[int, float]]:
    """The iterations and values of a metric that is one number at a time, in the log of a finished run.

    Raises:
        ConfigError: the log, whose run folder is given for the error, has no such metric.
    """
    values = logger.numbers(name)
    if not values or len(values) != len(logger.get(name)):
        raise files.damaged(paths.logger(location), f"it has no {name}", REMEDY)
    return values


def _value(text: str) -> float | list[float]:
    """The value of a record; a ValueError where it is neither a number nor a list of numbers."""
    value = files.parse_json(text)
    for number in value if isinstance(value, list) else [value]:
        if type(number) is not float and not (type(number) is int and abs(number) < LARGEST):
            raise ValueError(f"{text[:20]!r} is no number")
    return value
