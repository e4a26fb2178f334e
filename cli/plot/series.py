"""The data of a plot: for each group of runs, the values of a metric at every x value.

An x value is an iteration or an epoch, with the values of the log; or it is the value of a hyperparameter, or the share of weights left at
a level of a pruning experiment, with the last value of the metric. Missing values and values that no plot can show are left out.
"""

from __future__ import annotations

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
from training.plotting import is_plottable

ITERATION, EPOCH, WEIGHTS, LEVEL = "iteration", "epoch", "weights_left", "level"
LOGGED = (ITERATION, EPOCH)
TICKETS = "tickets"

Points = Mapping[object, Sequence[float]]  # the values of a metric by x value, in the order of the axis


@dataclass(frozen=True)
class Source:
    """The log of a run, or of one level of a run.

    Attributes:
        run: the run.
        folder: the folder of the log.
        names: the names of the files in the folder.
        level: the level of a pruning experiment; None for other runs.
        logger: the contents of the log.
    """

    run: Run
    folder: str
    names: frozenset[str]
    level: int | None
    logger: MetricLogger

    def value(self, name: str) -> object:
        """The value of a hyperparameter or metric, or the level."""
        return self.level if name == LEVEL else query.value(self.run, name)

    @property
    def weights_left(self) -> float | None:
        """The share of the weights that is left at the level; None if it is not known."""
        try:
            report = files.read_json(paths.sparsity_report(self.folder), "delete the folder")
            return report["unpruned"] / report["total"] if isinstance(report, dict) else None
        except (ConfigError, KeyError, TypeError, ZeroDivisionError):
            return None

    @property
    def epoch(self) -> float | None:
        """The number of iterations in an epoch; None if the run is shorter than an epoch."""
        name = paths.latest_model(self.names)
        end = [int(part[2:]) for part in name.removesuffix(".pth").split("_")[1:]] if name else [0, 0]
        return (self.logger.last_iteration - end[1]) / end[0] if end[0] else None


@dataclass(frozen=True)
class Group:
    """The runs that are drawn as one line, and the label of the line."""

    label: str
    sources: tuple[Source, ...]

    @property
    def seeds(self) -> int:
        """The number of seeds."""
        return len({source.run.seed for source in self.sources})

    @property
    def title(self) -> str:
        """The label with the number of seeds."""
        return f"{self.label} ({self.seeds} seeds)" if self.seeds > 1 else self.label

    def points(self, metric: str, x: str) -> Points:
        """The values of a metric by x value, in the order of the axis."""
        points: dict[object, list[float]] = {}
        for source in self.sources:
            for position, value in _curve(source, metric, x) if x in LOGGED else _last(source, metric, x):
                if is_plottable(value):
                    points.setdefault(position, []).append(value)
        return dict(sorted(points.items(), key=lambda item: query.sort_key(item[0])))


def _curve(source: Source, metric: str, x: str) -> Iterable[tuple[float, float]]:
    """The values of a metric over training. Every entry of a vector, such as the losses of the students, is a value."""
    unit = source.epoch if x == EPOCH else 1
    if not unit:
        return
    for iteration, values in source.logger.get(metric):
        for value in values if isinstance(values, list) else [values]:
            yield iteration / unit, value


def _last(source: Source, metric: str, x: str) -> Iterable[tuple[object, float]]:
    """The last value of a metric, at the run's value of a hyperparameter or share of weights left."""
    position = source.weights_left if x == WEIGHTS else source.value(x)
    value = source.run.metrics.get(metric) if source.level is None or metric not in source.logger.names() else None
    last = source.logger.latest(metric) if value is None else value
    if isinstance(position, (int, float)) and not is_plottable(position):
        return
    if position is not None and last is not None:
        for entry in last if isinstance(last, list) else [last]:
            yield position, float(entry)


def read(runs: Iterable[Run], every_level: bool) -> tuple[list[Source], int]:
    """The logs of some runs, and the number of runs without a readable log.

    Args:
        runs: the runs.
        every_level: whether a pruning experiment contributes the logs of all levels; if not, it contributes the log of the last level.
    """
    sources, left_out = [], 0
    for run in runs:
        own = [source for folder in _folders(run) if (source := _source(run, *folder))]
        left_out += not own
        sources += own if every_level else own[-1:]
    return sources, left_out


def _folders(run: Run) -> list[tuple[str, frozenset[str], int | None]]:
    """The folders of a run's logs, with the names of their files and the level."""
    if run.kind in ("lottery", "branch"):
        level = lambda folder: int(os.path.basename(os.path.dirname(folder)).removeprefix("level_"))  # noqa: E731
        return [(folder, there, level(folder)) for folder, there in run.folders]
    return [(*folder, None) for folder in ([run.students] if run.students else run.folders[:1])]


def _source(run: Run, folder: str, names: frozenset[str], level: int | None) -> Source | None:
    """The log in a folder; None without a readable log."""
    if os.path.basename(paths.logger(folder)) not in names:
        return None
    try:
        return Source(run, folder, names, level, MetricLogger.load(folder))
    except ConfigError:
        return None


def groups(sources: Sequence[Source], by: Sequence[str], names: Names) -> list[Group]:
    """The logs grouped by kind and by the values of some hyperparameters, in the order of these values."""
    kinds = {_kind(source.run) for source in sources}
    members: dict[tuple, list[Source]] = {}
    for source in sources:
        key = _kind(source.run), *(query.sort_key(source.value(name)) for name in by)
        members.setdefault(key, []).append(source)
    return [Group(_label(members[key], by, len(kinds) > 1, names), tuple(members[key])) for key in sorted(members, key=_kind_first)]


def _kind(run: Run) -> str:
    """The kind of a line: the name of a branch, `tickets` for a lottery experiment, or the kind of the run."""
    return str(run.hparams.get("branch", run.kind)) if run.kind == "branch" else TICKETS if run.kind == "lottery" else run.kind


def _kind_first(key: tuple) -> tuple:
    """A key that sorts tickets before their branches."""
    return key[0] != TICKETS, *key


def _label(members: Sequence[Source], by: Sequence[str], with_kind: bool, names: Names) -> str:
    """The label of a group: its kind if there are several kinds, and its hyperparameters; otherwise the hash of a single experiment."""
    first = members[0]
    parts = [_kind(first.run)] if with_kind else []
    parts += [f"{name}={table.plain(first.value(name), names)}" for name in by if first.value(name) is not None]
    alone = len({(source.run.name, source.run.part) for source in members}) == 1
    return ", ".join(parts) or (f"{first.run.kind} {names.short(first.run)}" if alone else _kind(first.run))
