"""From runs to what is drawn of them: for each group of runs the values of a metric at every place of an axis.

A place is an iteration or an epoch, and the values those of the log; or it is what runs have of a hyperparameter, or how many weights are
left at a level of a pruning experiment, and the values are the last ones. What a run has not got, or is not finite, is left out.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cli.runs import query, table
from cli.runs.index import Run
from cli.runs.names import Names
from foundations import paths
from foundations.errors import ConfigError
from platforms.system import files
from training.metric_logger import MetricLogger

ITERATION, EPOCH, WEIGHTS, LEVEL = "iteration", "epoch", "weights_left", "level"
LOGGED = (ITERATION, EPOCH)
TICKETS = "tickets"

Points = Mapping[object, Sequence[float]]  # values by place, in order


@dataclass(frozen=True)
class Source:
    """A folder with a log: of a run, or of one level of it."""

    run: Run
    folder: str
    names: frozenset[str]
    level: int | None
    logger: MetricLogger

    def value(self, name: str) -> object:
        """What it has by the name of a hyperparameter or metric."""
        return self.level if name == LEVEL else query.value(self.run, name)

    @property
    def weights_left(self) -> float | None:
        """The share of the weights that is left at its level; None where that is not known."""
        try:
            report = files.read_json(paths.sparsity_report(self.folder), "delete the folder")
            return report["unpruned"] / report["total"]
        except (ConfigError, KeyError, TypeError, ZeroDivisionError):
            return None

    @property
    def epoch(self) -> float | None:
        """The iterations of an epoch; None where the run was shorter, so that nothing tells."""
        name = paths.latest_model(self.names)
        end = [int(part[2:]) for part in name.removesuffix(".pth").split("_")[1:]] if name else [0, 0]
        return (self.logger.last_iteration - end[1]) / end[0] if end[0] else None


@dataclass(frozen=True)
class Group:
    """Runs that are one line of a picture: what it is called, and what is in it."""

    label: str
    sources: tuple[Source, ...]

    @property
    def seeds(self) -> int:
        """How many seeds there are."""
        return len({source.run.seed for source in self.sources})

    @property
    def title(self) -> str:
        """The label with the number of seeds."""
        return f"{self.label} ({self.seeds} seeds)" if self.seeds > 1 else self.label

    def points(self, metric: str, x: str) -> Points:
        """The values of a metric at every place of an axis, the places in order."""
        found: dict[object, list[float]] = {}
        for source in self.sources:
            for place, value in _curve(source, metric, x) if x in LOGGED else _last(source, metric, x):
                if math.isfinite(value):
                    found.setdefault(place, []).append(value)
        return dict(sorted(found.items(), key=lambda item: query.rank(item[0])))


def _curve(source: Source, metric: str, x: str) -> Iterable[tuple[float, float]]:
    """The values of a metric over training; of a vector, such as the losses of the students, every entry is a value."""
    unit = source.epoch if x == EPOCH else 1
    for iteration, values in source.logger.get(metric) if unit else ():
        for value in values if isinstance(values, list) else [values]:
            yield iteration / unit, value


def _last(source: Source, metric: str, x: str) -> Iterable[tuple[object, float]]:
    """The last value of a metric, at what the run has of a hyperparameter."""
    place = source.weights_left if x == WEIGHTS else source.value(x)
    value = source.run.metrics.get(metric) if source.level is None or metric not in source.logger.names() else None
    found = source.logger.latest(metric) if value is None else value
    if place is not None and found is not None:
        for each in found if isinstance(found, list) else [found]:
            yield place, float(each)


def read(runs: Iterable[Run], every_level: bool) -> tuple[list[Source], int]:
    """The logs of some runs, of pruning experiments those of every level or of the last; and how many runs have none that can be read."""
    found, left_out = [], 0
    for run in runs:
        own = [source for folder in _folders(run) if (source := _source(run, *folder))]
        left_out += not own
        found += own if every_level else own[-1:]
    return found, left_out


def _folders(run: Run) -> list[tuple[str, frozenset[str], int | None]]:
    """Where a run has its logs, with the files there and the level."""
    if run.kind in ("lottery", "branch"):
        level = lambda folder: int(os.path.basename(os.path.dirname(folder)).removeprefix("level_"))  # noqa: E731
        return [(folder, there, level(folder)) for folder, there in run.folders]
    return [(*folder, None) for folder in ([run.students] if run.students else run.folders[:1])]


def _source(run: Run, folder: str, there: frozenset[str], level: int | None) -> Source | None:
    """A log; None where there is none that can be read."""
    if os.path.basename(paths.logger(folder)) not in there:
        return None
    try:
        return Source(run, folder, there, level, MetricLogger.load(folder))
    except ConfigError:
        return None


def groups(found: Sequence[Source], by: Sequence[str], names: Names) -> list[Group]:
    """The logs by kind and by what they have of some hyperparameters, in the order of these values."""
    kinds = {_kind(source.run) for source in found}
    members: dict[tuple, list[Source]] = {}
    for source in found:
        key = _kind(source.run), *(query.rank(source.value(name)) for name in by)
        members.setdefault(key, []).append(source)
    return [Group(_label(members[key], by, len(kinds) > 1, names), tuple(members[key])) for key in sorted(members, key=_kind_first)]


def _kind(run: Run) -> str:
    """What tells runs apart before their hyperparameters do: tickets and their branches, or the kind."""
    return str(run.hparams.get("branch", run.kind)) if run.kind == "branch" else TICKETS if run.kind == "lottery" else run.kind


def _kind_first(key: tuple) -> tuple:
    """A key by which tickets come before their branches."""
    return key[0] != TICKETS, *key


def _label(members: Sequence[Source], by: Sequence[str], with_kind: bool, names: Names) -> str:
    """What a group is called: its kind where there are several, and its hyperparameters; or else its hash, where it has but one."""
    first = members[0]
    parts = [_kind(first.run)] if with_kind else []
    parts += [f"{name}={table.plain(first.value(name), names)}" for name in by if first.value(name) is not None]
    alone = len({(source.run.name, source.run.part) for source in members}) == 1
    return ", ".join(parts) or (f"{first.run.kind} {names.short(first.run)}" if alone else _kind(first.run))
