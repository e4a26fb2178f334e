"""The outcomes of a lottery ticket experiment, read from the logs of its levels, and tables of them."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from foundations import json_text, paths, tables
from foundations.averages import mean_and_deviation
from lottery.desc import LotteryDesc
from platforms.platform import get_platform
from platforms.system import files
from pruning.mask import Mask
from training import adoption, divergence
from training.metric_logger import MetricLogger, numbers
from training.run_records import is_finished

TICKETS = "tickets"


@dataclass(frozen=True)
class Outcome:
    """The outcome of training one level.

    Attributes:
        level: the number of pruning steps before it.
        unpruned: the number of remaining weights.
        total: the number of all weights.
        metric: `accuracy` on the test set in [0, 1], or `loss` if there are no classes.
        final: the value of the metric after training.
        best: the best value of the metric during training.
        steps: the iterations of training until the best value.
        divergence: when the losses ceased to be finite; empty if they are finite.
    """

    level: int
    unpruned: int
    total: int
    metric: str
    final: float
    best: float
    steps: int
    divergence: str = ""

    @property
    def density(self) -> float:
        """The share of the weights that remains."""
        return self.unpruned / self.total

    def show(self, value: float) -> str:
        """A value of the metric as text."""
        return f"{value:.2%}" if self.metric == "accuracy" else f"{value:.4g}"


Experiment = Mapping[int, Sequence[Outcome]]  # the outcomes of all seeds, by level


def read(level: int, location: str) -> Outcome:
    """The outcome of a finished run of a pruned network."""
    logger = MetricLogger.load(location)
    metric, better = ("accuracy", max) if logger.get("test_accuracy") else ("loss", min)
    points = numbers(logger, f"test_{metric}", location)
    best = better((value for _, value in points if not math.isnan(value)), default=math.nan)
    reached = next((iteration for iteration, value in points if value == best), points[-1][0])
    steps = reached - points[0][0]
    return Outcome(level, *Mask.counts(location), metric, points[-1][1], best, steps, divergence.remark(logger))


def write(outcomes: Sequence[Outcome], folder: str) -> None:
    """Writes the outcomes of all levels to the folder of a seed, where they mark the experiment as finished without its picture."""
    content = json_text.dumps([dataclasses.asdict(outcome) for outcome in outcomes], indent=2) + "\n"
    files.write_if_changed(paths.levels_report(folder, outcomes[-1].level), content.encode())


def table(outcomes: Sequence[Outcome]) -> str:
    """A table with a line for each level, and a line below it for each level that has diverged."""
    rows = [["level", "weights left", "", f"test {outcomes[0].metric}", "best", "best at"]]
    for outcome in outcomes:
        values = outcome.show(outcome.final), outcome.show(outcome.best), f"{outcome.steps}it"
        rows.append([str(outcome.level), f"{outcome.unpruned:,}", f"{outcome.density:.2%}", *values])
    diverged = [f"Level {outcome.level} has diverged: {outcome.divergence}" for outcome in outcomes if outcome.divergence]
    return "\n".join([*tables.aligned(rows, ">", (5, 13, 7, 15, 9, 8)), *diverged])


def experiments(desc: LotteryDesc, leave_out: Collection[int] = ()) -> dict[str, Experiment]:
    """The tickets of an experiment and all its branches by label, with the finished levels of all seeds except those to leave out.

    The labels of branches with the same name list the arguments in which they differ.
    """
    roots = [os.path.join(get_platform().root, name) for name in (desc.hashname_as_written, desc.hashname)]
    is_seed = re.compile(r"seed_-?\d+").fullmatch
    seeds = {
        int(seed.removeprefix("seed_")): os.path.join(root, seed)
        for root in roots
        for seed in filter(is_seed, get_platform().listdir(root))
    }
    outcomes: dict[str, dict[int, list[Outcome]]] = {"main": {}}
    arguments: dict[str, dict] = {}
    for number, seed in seeds.items():
        if number in leave_out:
            continue
        for folder in filter(re.compile(r"level_\d+").fullmatch, get_platform().listdir(seed)):
            level = int(folder.removeprefix("level_"))
            for name in get_platform().listdir(os.path.join(seed, folder)):
                location = os.path.join(seed, folder, name)
                if is_finished(location) and get_platform().exists(paths.sparsity_report(location)):
                    outcomes.setdefault(name, {}).setdefault(level, []).append(read(level, location))
                    arguments.setdefault(name, {} if name == "main" else _branch_arguments(location))
    labels = {"main": TICKETS} | _labels({name: flags for name, flags in arguments.items() if name != "main"})
    return {labels[name]: dict(sorted(levels.items())) for name, levels in outcomes.items() if levels}


def is_single_run(experiments: Mapping[str, Experiment]) -> bool:
    """Whether there is only one seed and no branch, and thus nothing to compare."""
    return len(experiments) == 1 and all(len(outcomes) == 1 for outcomes in experiments[TICKETS].values())


def is_uneven(experiments: Mapping[str, Experiment]) -> bool:
    """Whether tickets of the same level have different numbers of weights."""
    return any(len({outcome.unpruned for outcome in outcomes}) > 1 for outcomes in experiments[TICKETS].values())


def _branch_arguments(location: str) -> dict[str, object]:
    """The arguments of a branch, with bundles of hyperparameters flattened into their fields."""
    path, remedy = paths.hparams_dict(location), "delete the folder and run its command again"
    if not get_platform().exists(path) and adoption.is_copy(location):
        return {}  # OpenLTH does not record them
    content = files.read_json(path, remedy)
    values = content.get("branch_hparams") if isinstance(content, dict) else None
    if not isinstance(values, dict):
        raise files.damaged(path, "it lacks the arguments of the branch", remedy)
    nested = {field: value for bundle in values.values() if isinstance(bundle, dict) for field, value in bundle.items()}
    return {name: value for name, value in values.items() if not isinstance(value, dict)} | nested


def _labels(arguments: Mapping[str, Mapping[str, object]]) -> dict[str, str]:
    """A label for each branch folder `lottery_branch_<name>_<md5>`: its name and the arguments that distinguish it."""
    names = {folder: folder.removeprefix("lottery_branch_").rpartition("_")[0] for folder in arguments}
    labels = {}
    for folder, own in arguments.items():
        same_name = [other for key, other in arguments.items() if names[key] == names[folder]]
        differing = [f"{name}={value}" for name, value in own.items() if any(other.get(name) != value for other in same_name)]
        labels[folder] = " ".join([names[folder], *differing])
    return labels


def comparison(experiments: Mapping[str, Experiment]) -> str:
    """A table of the metric after training: mean and standard deviation over the seeds, a line per level, a column per experiment."""
    tickets = experiments[TICKETS]
    metric = tickets[0][0].metric
    shown = {
        name: levels
        for name, levels in experiments.items()
        if all(outcome.metric == metric for outcomes in levels.values() for outcome in outcomes)
    }
    rows = [["level", "weights left", *(f" {name}" for name in shown)]]
    for level in tickets:
        cells = [_cell(levels.get(level, ())) for levels in shown.values()]
        rows.append([str(level), f"{tickets[level][0].density:.2%}", *cells])
    heading = f"test {metric} after training: mean, standard deviation, number of seeds"
    return "\n".join([heading, *tables.aligned(rows, ">", (5, 13, 18), gap=" ")])


def _cell(outcomes: Sequence[Outcome]) -> str:
    """Mean, standard deviation and number of seeds as text; `-` without outcomes."""
    if not outcomes:
        return "-"
    mean, deviation = mean_and_deviation([outcome.final for outcome in outcomes])
    if len(outcomes) == 1:
        return f"{outcomes[0].show(mean)} (1)"
    if outcomes[0].metric == "accuracy":
        return f"{100 * mean:.2f} ± {100 * deviation:.2f}% ({len(outcomes)})"
    return f"{mean:.3g} ± {deviation:.1g} ({len(outcomes)})"
