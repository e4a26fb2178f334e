"""The command `plot`: pictures of any metric of any runs."""

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
from foundations.errors import ConfigError, unknown
from foundations.hparams import Hparams
from foundations.runner import Runner
from platforms.platform import get_platform

FORMATS = ("png", "pdf")
LOGS = ("none", "x", "y", "xy")
PREFERRED = ("test_accuracy", "test_loss", "train_loss")
OF_EXTRACTIONS = ("max_relative_error", "max_abs_error", "seconds")


@dataclass
class PlotArgs(Hparams):
    """What is drawn, and where it goes."""

    metric: str | None = None
    x: str | None = None
    by: str | None = None
    log: str | None = None
    output: str | None = None
    format: str | None = None

    _name = "Picture"
    _description = "What is drawn. Runs that differ in their seed alone are one line: their mean, in a band of a standard deviation."
    _metric = "Metrics joined by commas, such as test_accuracy,train_loss; a picture for each (chosen by the runs when left out)."
    _x = (
        "Against what: iteration or epoch for curves; a hyperparameter for the last values; weights_left for the levels of a pruning "
        "experiment, with its branches beside it (chosen by the runs when left out)."
    )
    _by = "The hyperparameters that make lines of their own, joined by commas; level as well (when left out, all that differ)."
    _log = "Which axes are logarithmic, where mean and deviation are those of the logarithms (when left out, those on which it helps)."
    _output = "The file, such as lr.png; two formats are two files (when left out, named after what is drawn, in the folder at hand)."
    _format = "png, pdf or both, joined by a comma (when left out, that of --output, or png)."

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
        """The paths of the files, of a picture that is called by some name where no other is given."""
        stem, end = os.path.splitext(self.output or name)
        stem = stem if end.removeprefix(".") in FORMATS else stem + end
        return [os.path.abspath(f"{stem}.{form}") for form in self.formats]


@dataclass
class PlotRunner(Runner):
    """One picture."""

    hashes: Sequence[str]
    selection: SelectionArgs
    options: PlotArgs

    computes: ClassVar[bool] = False

    @staticmethod
    def description() -> str:
        return "Draw metrics of runs: curves, or last values against a hyperparameter or the weights left."

    @staticmethod
    def examples() -> Sequence[str]:
        return (
            'plot --where "kind=train and model_name=digits_lenet_16" --metric test_accuracy,test_loss --by lr',
            'plot --where "kind=lottery or kind=branch" --format png,pdf --output tickets.png',
        )

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        parser.add_argument("hashes", metavar="HASH", nargs="*", help="The runs, by hash or a unique prefix of it (all when left out).")
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
            ConfigError: no run fits, or something is asked for that none of them has.
        """
        from training.plotting import save

        everything = existing()
        names = Names(everything)
        runs = self._selected(everything, names)
        by, x = self._lines_and_axis(runs)
        sources, left_out = series.read(runs, every_level=x == WEIGHTS or LEVEL in by)
        groups = series.groups(sources, by, names)
        metrics = self._metrics(sources, x)
        files = self.options.files(f"{'_'.join(metrics) or series.TICKETS}_over_{x}")
        if metrics:
            made = draw.panels(groups, metrics, x, self.options.log)
            for path in files:
                save(made, path)
        else:
            draw.tickets(groups, files)
        _remark(groups, [*by, x], left_out)
        print("\n".join(f"Picture: {path}" for path in files))

    def _selected(self, everything: Sequence[Run], names: Names) -> list[Run]:
        """The runs that are to be drawn, of all that there are, whose hashes are `names`."""
        chosen = [run for text in dict.fromkeys(self.hashes) for run in names.find(text, whole=True)] if self.hashes else everything
        runs = [run for row in self.selection.select(chosen, each_seed=False) for run in row.runs if run.folders]
        if not runs:
            raise ConfigError(f"no run fits, of {len(everything):,} under {get_platform().root}; EC.py runs lists them")
        return runs

    def _lines_and_axis(self, runs: Sequence[Run]) -> tuple[list[str], str]:
        """The hyperparameters that make lines of their own, and what the axis shows."""
        differ = query.differing(runs)
        x = self.options.x or _axis_for(runs, differ)
        if x not in (ITERATION, EPOCH, WEIGHTS):
            query.check_name(x, runs, "--x")
        if self.options.by is None:
            return [name for name in differ if name not in (x, "branch")], x
        return [query.check_name(name.strip(), runs, "--by") for name in self.options.by.split(",")], x

    def _metrics(self, sources: Sequence[Source], x: str) -> list[str]:
        """The metrics that are drawn; none stands for the picture of lottery tickets.

        Raises:
            ConfigError: there is no such metric.
        """
        if not sources:
            raise ConfigError("none of the runs that fit has a log that can be read; a run has one when it is finished")
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
    """What some runs are drawn against where nothing else is asked for."""
    kinds = {run.kind for run in runs}
    if kinds <= {"lottery", "branch"}:
        return WEIGHTS
    numeric = [name for name in differ if all(isinstance(run.hparams.get(name), (int, float)) for run in runs)]
    return numeric[0] if kinds == {"extract"} and numeric else ITERATION


def _remark(groups: Sequence[Group], told: Sequence[str], left_out: int) -> None:
    """Says what the picture does not: what else differs within a line, and which runs are not in it."""
    within = [name for group in groups for name in query.differing([source.run for source in group.sources]) if name not in told]
    if within:
        print(f"Note: within a line there are runs that differ in {', '.join(dict.fromkeys(within))} (--by makes lines of them).")
    if left_out:
        print(f"Note: {left_out} of the runs have no log that can be read, as those have that are not finished, and are left out.")
