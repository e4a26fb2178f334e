"""The base of every tracker: a service or a tool that shows telemetry while a run is at work, beside the log in its folder."""

from __future__ import annotations

import abc
import itertools
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from foundations import imports
from foundations.step import Step
from training.metric_logger import MetricLogger


@dataclass(frozen=True)
class Identity:
    """What is known of a run that has a folder of its own.

    Attributes:
        hparams: its hyperparameters, group by group.
        seed: of everything random in it.
        trackers: their names, joined by `+`; None for none.
        mode: `online` or `offline`; None for what the tracker itself is set to.
    """

    hparams: Mapping[str, object]
    seed: int
    trackers: str | None = None
    mode: str | None = None


class Tracker(abc.ABC):
    """One run, as a tracker follows it. Whatever an earlier start of it has sent, all of its telemetry comes again, and counts once."""

    package: ClassVar[str]  # what pip installs
    module: ClassVar[str]  # what of it is imported, which takes long
    has_modes: ClassVar[bool] = False  # whether it can be online or offline

    @abc.abstractmethod
    def __init__(self, location: str, identity: Identity):
        """Begins to follow the run with a folder, or goes on."""

    @classmethod
    def check(cls, mode: str | None) -> None:
        """Raises a ConfigError where the tracker cannot be used."""
        imports.optional(cls.module, f"--tracker {cls.package}", cls.package)

    @abc.abstractmethod
    def send(self, iteration: int, values: Mapping[str, float]) -> None:
        """Passes on all that was recorded at an iteration."""

    @abc.abstractmethod
    def close(self, complete: bool) -> None:
        """Ends it when everything has arrived; `complete` says whether the run has come to its end."""


class Follower:
    """The callback that passes on to a tracker what the others have recorded. It goes after them.

    The tracker begins with the first step, for then a checkpoint has been found, and its log with it, which is passed on first.
    """

    def __init__(self, kind: type[Tracker], identity: Identity):
        self.kind, self.identity = kind, identity
        self.tracker: Tracker | None = None
        self.sent = 0

    def __call__(self, output_location: str, step: Step, model, optimizer, logger: MetricLogger) -> None:
        if self.tracker is None:
            self.tracker = self.kind(output_location, self.identity)
        if logger.count == self.sent:
            return
        for iteration, records in itertools.groupby(logger.records(self.sent), operator.itemgetter(1)):
            self.tracker.send(iteration, {name: value for key, _, each in records for name, value in _series(key, each)})
        self.sent = logger.count

    def close(self, complete: bool) -> None:
        """Ends the tracker, if it has begun."""
        if self.tracker is not None:
            self.tracker.close(complete)


def _series(name: str, value: float | list[float]) -> list[tuple[str, float]]:
    """A record as numbers with names: a vector is a series for each of its places, such as the students, `name/07`."""
    if not isinstance(value, list):
        return [(name, value)]
    digits = len(str(len(value) - 1))
    return [(f"{name}/{place:0{digits}}", each) for place, each in enumerate(value)]
