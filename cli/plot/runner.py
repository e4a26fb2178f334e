"""The command `plot`: draws metrics of runs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from cli.plot import draw, series
from cli.plot.series import EPOCH, ITERATION, LEVEL, LOGGED, WEIGHTS, Group, Source
from cli.runs import query
from cli.runs.index import Run
from cli.runs.names import Names
from cli.runs.runner import SelectionArgs, existing
from foundations.arguments import ArgumentParser
from foundations.errors import ConfigError, reason, unknown
from foundations.hparams import Hparams
from foundations.runner import Runner
from platforms.platform import get_platform

FORMATS = ("png", "pdf")
LOGS = ("none", "x", "y", "xy")
PREFERRED = ("test_accuracy", "test_loss", "train_loss")
OF_EXTRACTIONS = ("max_relative_error", "max_abs_error", "seconds")


@dataclass
class PlotArgs(Hparams):
    """Flags that select what is drawn, and the file."""

    metric: str | None = None
    x: str | None = None
    by: str | None = None
    log: str | None = None
    output: str | None = None
    format: str | None = None

    _name = "Picture"
    _description = "Runs that differ only in their seed are one line: their mean, in a band of one standard deviation."
    _metric = "Metrics separated by commas, such as test_accuracy,train_loss; one panel for each (default: chosen by the runs)."
    _x = (
        "The x axis: iteration or epoch for curves; a hyperparameter for the last values; weights_left for the levels of a pruning "
        "experiment and its branches (default: chosen by the runs)."
    )
    _by = "Draw one line for each value of these hyperparameters, separated by commas; level is valid as well (default: all that differ)."
    _log = "The logarithmic axes. Mean and deviation are those of the logarithms (default: axes with a wide range of values)."
    _output = "The file, such as lr.png; each format is one file (default: named after the metrics, in the current folder)."
    _format = "png, pdf or both, separated by a comma (default: the format of --output, or png)."

    def __post_init__(self):
        if self.log not in (None, *LOGS):
            raise unknown("--log", self.log, LOGS)
        for form in self.formats:
            if form not in FORMATS:
                raise unknown("--format" if self.format else "--output: the format", form, FORMATS)

    @property
    def formats(self) -> list[str]:
        """The formats of the files."""
        end = os.path.splitext(self.output or "")[1]
        return [form.strip() for form in self.format.split(",")] if self.format else [end.removeprefix(".") or "png"]

    def files(self, name: str) -> list[str]:
        """The paths of the files; `name` is the name of the picture without --output."""
        stem, end = os.path.splitext(os.path.expanduser(self.output or name))
        stem = stem if end.removeprefix(".") in FORMATS else stem + end
        return [os.path.abspath(f"{stem}.{form}") for form in self.formats]


@dataclass
class PlotRunner(Runner):
    """Draws one picture.

    Attributes:
        hashes: the hashes of runs; empty for all runs.
        selection: the flags that select and sort runs.
        options: the flags of the picture.
    """

    hashes: Sequence[str]
    selection: SelectionArgs
    options: PlotArgs

    computes: ClassVar[bool] = False

    @staticmethod
    def description() -> str:
        return "Draw metrics of runs: curves, or last values against a hyperparameter or the share of weights left."

    @staticmethod
    def examples() -> Sequence[str]:
        return (
            'plot --where "kind=train and model_name=digits_lenet_16" --metric test_accuracy,test_loss --by lr',
            'plot --where "kind=lottery or kind=branch" --format png,pdf --output tickets.png',
        )

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        parser.add_argument("hashes", metavar="HASH", nargs="*", help="The runs, by hash or a unique prefix of it (default: all).")
        SelectionArgs.add_args(parser)
        PlotArgs.add_args(parser, choices={"log": LOGS})

    @staticmethod
    def create_from_args(args: argparse.Namespace) -> PlotRunner:
        return PlotRunner(args.hashes, SelectionArgs.create_from_args(args), PlotArgs.create_from_args(args))

    @property
    def output_location(self) -> str:
        """The folder of all results."""
        return get_platform().root

    def run(self) -> None:
        """Draws the picture.

        Raises:
            ConfigError: no run is selected, or none of the runs has a requested name.
        """
        everything = existing()
        names = Names(everything)
        runs = self._selected(everything, names)
        by, x = self._lines_and_axis(runs)
        sources, left_out = series.read(runs, every_level=x == WEIGHTS or LEVEL in by)
        groups = series.groups(sources, by, names)
        metrics = self._metrics(sources, x)
        files = self.options.files(f"{'_'.join(metrics) or series.TICKETS}_over_{x}")
        try:
            self._draw(groups, metrics, x, files)
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(f"{files[0]} cannot be drawn ({type(error).__name__}: {reason(error)})") from error
        _print_notes(groups, [*by, x], left_out)
        print("\n".join(f"Picture: {path}" for path in files))

    def _draw(self, groups: Sequence[Group], metrics: Sequence[str], x: str, files: Sequence[str]) -> None:
        """Draws the metrics, or lottery tickets if there are no metrics, and writes the files."""
        from training.plotting import save

        if metrics:
            made = draw.panels(groups, metrics, x, self.options.log)
            for path in files:
                save(made, path)
        else:
            draw.tickets(groups, files)

    def _selected(self, everything: Sequence[Run], names: Names) -> list[Run]:
        """The runs to draw, among all runs. `names` are the hashes of all runs."""
        chosen = [run for text in dict.fromkeys(self.hashes) for run in names.find(text, whole=True)] if self.hashes else everything
        runs = [run for row in self.selection.select(chosen, each_seed=False) for run in row.runs if run.folders]
        if not runs:
            raise ConfigError(f"none of the {len(everything):,} runs under {get_platform().root} matches; EC.py runs lists them")
        return runs

    def _lines_and_axis(self, runs: Sequence[Run]) -> tuple[list[str], str]:
        """The hyperparameters whose values are separate lines, and the name of the x axis."""
        differ = query.differing(runs)
        x = self.options.x or _axis_for(runs, differ)
        if x not in (ITERATION, EPOCH, WEIGHTS):
            query.check_name(x, runs, "--x")
        if self.options.by is None:
            return [name for name in differ if name not in (x, "branch")], x
        return [query.check_name(name.strip(), runs, "--by") for name in self.options.by.split(",")], x

    def _metrics(self, sources: Sequence[Source], x: str) -> list[str]:
        """The metrics to draw; an empty list selects the picture of lottery tickets.

        Raises:
            ConfigError: no run has the metric, or no run has a log.
        """
        if not sources:
            raise ConfigError("none of the selected runs has a readable log; a run writes its log when it is finished")
        known = {name for source in sources for name in source.logger.names()}
        if x not in LOGGED:
            known |= {name for source in sources for name in source.run.metrics}
        if self.options.metric is None:
            of_extractions = [name for name in OF_EXTRACTIONS if name in known]
            preferred = [name for name in PREFERRED if name in known] or sorted(known)
            return [] if x == WEIGHTS else of_extractions or preferred[:1]
        metrics = [name.strip() for name in self.options.metric.split(",")]
        for name in metrics:
            if name not in known:
                raise unknown("--metric", name, known)
        return metrics


def _axis_for(runs: Sequence[Run], differ: Sequence[str]) -> str:
    """The default x axis of some runs."""
    kinds = {run.kind for run in runs}
    if kinds <= {"lottery", "branch"}:
        return WEIGHTS
    numeric = [name for name in differ if all(isinstance(run.hparams.get(name), (int, float)) for run in runs)]
    return numeric[0] if kinds == {"extract"} and numeric else ITERATION


def _print_notes(groups: Sequence[Group], shown: Sequence[str], left_out: int) -> None:
    """Prints the hyperparameters that differ within a line, and the number of runs that are not drawn."""
    within = [name for group in groups for name in query.differing([source.run for source in group.sources]) if name not in shown]
    if within:
        print(f"Note: a line combines runs that differ in {', '.join(dict.fromkeys(within))} (--by draws a line for each value).")
    if left_out:
        print(f"Note: {left_out} of the runs are not drawn: they are not finished, or their log is damaged.")
