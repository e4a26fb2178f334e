"""The base of all trackers: services or tools that show the telemetry of a run during training."""

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
    """What the provenance and the trackers record of a run.

    Attributes:
        hparams: its hyperparameters by group.
        seed: its random seed.
        trackers: their names, joined by `+`; None for none.
        mode: `online` or `offline`; None for the tracker's own setting.
    """

    hparams: Mapping[str, object]
    seed: int
    trackers: str | None = None
    mode: str | None = None


class Tracker(abc.ABC):
    """The connection of a run to a tracker. A resumed run sends all telemetry again; a subclass must not store it twice."""

    package: ClassVar[str]  # the package that pip installs
    module: ClassVar[str]  # the module that is imported, which is slow
    has_modes: ClassVar[bool] = False  # whether `--tracker_mode` applies

    @abc.abstractmethod
    def __init__(self, location: str, identity: Identity):
        """Opens or reopens the tracker's record of the run in the folder `location`."""

    @classmethod
    def check(cls, mode: str | None) -> None:
        """Raises a ConfigError if the tracker cannot be used."""
        imports.optional(cls.module, f"--tracker {cls.package}", cls.package)

    @abc.abstractmethod
    def send(self, iteration: int, values: Mapping[str, float]) -> None:
        """Sends all values of an iteration, by name."""

    @abc.abstractmethod
    def close(self, complete: bool) -> None:
        """Sends the rest and closes the record. `complete`: whether the run has finished."""


class Follower:
    """The callback that sends the records of the log to a tracker. It must come after the callbacks that write the log.

    The tracker is opened at the first step: by then a checkpoint, if there is one, has been loaded together with its log.
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
        """Closes the tracker if it is open."""
        if self.tracker is not None:
            self.tracker.close(complete)


def _series(name: str, value: float | list[float]) -> list[tuple[str, float]]:
    """A record as named numbers: a list has a series for each of its elements, such as `name/07` for a student."""
    if not isinstance(value, list):
        return [(name, value)]
    digits = len(str(len(value) - 1))
    return [(f"{name}/{place:0{digits}}", each) for place, each in enumerate(value)]
