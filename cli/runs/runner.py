"""The command `runs`: what there is under the root, and taking out of the way what is needed no more."""

from __future__ import annotations

import argparse
import functools
import inspect
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cli.commands import CommandsRunner
from cli.runs import index, query, records, table, trash
from cli.runs.index import Run
from cli.runs.names import Names
from cli.runs.query import Row
from foundations import tables
from foundations.arguments import ArgumentParser
from foundations.errors import ConfigError, unknown
from foundations.hparams import Hparams
from platforms.platform import get_platform

NEAREST_SHOWN, FIELDS_SHOWN = 3, 12
LIST = "list"  # what is done where no action is named
TRAIN, TRAINED = "train --default_hparams=digits_lenet_16", "1f9aac2d"  # a command, and the hash of its run
EXAMPLES = {
    LIST: (TRAIN, 'runs --where "lr<0.2 and act_fun=relu" --sort test_accuracy:desc'),
    "show": (TRAIN, f"runs show {TRAINED}"),
    "diff": (TRAIN, f"{TRAIN} --act_fun tanh", f"runs diff {TRAINED} edb24fcd"),
    "why": (f"runs why {TRAIN} --lr 0.3", "runs why lottery --default_hparams=digits_lenet_16 --levels=3"),
    "rm": (f"runs rm {TRAINED}", f"runs rm {TRAINED} --yes"),
    "gc": ("runs gc", "runs gc --no-checkpoints --yes"),
    "restore": ("runs restore",),
}


@dataclass
class SelectionArgs(Hparams):
    """Which runs, in which order."""

    where: str | None = None
    sort: str | None = None
    limit: int = 0

    _name = "Selection"
    _description = f"Which runs, by the names of hyperparameters, metrics, and {', '.join(query.OWN)}."
    _where = "Only runs that fit, such as 'lr<0.1 and (act_fun=tanh or not state=finished)'. Operators: = != < <= > >= ~ (contains)."
    _sort = "By what to sort, such as test_accuracy:desc,lr. Runs without it come last."
    _limit = "Show so many rows (all when 0)."

    def __post_init__(self):
        self.require("limit", self.limit >= 0, "0 or more")

    def select(self, runs: Sequence[Run], each_seed: bool = False) -> list[Row]:
        """The rows of the runs that fit, one for each experiment or for each seed.

        Raises:
            ConfigError: a name in the expression, or the expression itself, means nothing.
        """
        fitting = query.select(runs, self.where)
        rows = [Row((run,)) for run in fitting] if each_seed else query.group(fitting)
        rows = query.ordered(rows, self.sort, runs)
        return rows[: self.limit] if self.limit else rows


@dataclass
class ListingArgs(Hparams):
    """How rows are shown."""

    columns: str | None = None
    format: str = "table"
    each_seed: bool = False

    _name = "Listing"
    _description = "How the runs are shown. Accuracies and losses are mean and standard deviation over the seeds."
    _columns = "What to show of each, by the names of --where and joined by commas (left out: what tells runs apart and came of them)."
    _format = "The form of the list."
    _each_seed = "A row for each seed rather than for each experiment."

    def __post_init__(self):
        if self.format not in table.FORMATS:
            raise unknown("--format", self.format, table.FORMATS)


def existing() -> list[Run]:
    """Every run under the root of the platform."""
    here = get_platform()
    return index.scan(here.root, [here.dataset_root, here.imagenet_root, here.boruta_root])


Action = Callable[["RunsRunner"], None]


@dataclass
class RunsRunner(CommandsRunner):
    """One question about the runs, or one removal."""

    computes = False

    action: str
    args: argparse.Namespace

    @staticmethod
    def description() -> str:
        return f"List, find and compare runs, and clear up: {', '.join(ACTIONS)}."

    @staticmethod
    def examples() -> Sequence[str]:
        return EXAMPLES[LIST]

    @staticmethod
    def subcommands() -> Sequence[str]:
        return list(ACTIONS)

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        first = next(iter(parser.arguments), "-")
        action = LIST if first.startswith("-") else first
        if action not in ACTIONS:
            raise unknown("action", action, ACTIONS)
        if first == action:
            parser.add_argument("action", metavar=action, help=argparse.SUPPRESS)
            parser.description, parser.examples = _help(action), EXAMPLES[action]
        else:
            others = "".join(f"\n  {name:<10}{_help(name)}" for name in ACTIONS)
            parser.epilog = f"actions (EC.py runs ACTION --help tells more):{others}"
            parser.set_defaults(action=action)
        _add_own_args(parser, action)

    @staticmethod
    def create_from_args(args: argparse.Namespace) -> RunsRunner:
        return RunsRunner(args.action, args)

    @property
    def output_location(self) -> str:
        """The folder of all results."""
        return get_platform().root

    def run(self) -> None:
        try:
            with index.uncollected():
                ACTIONS[self.action](self)
            sys.stdout.flush()
        except BrokenPipeError:  # whoever reads has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    @functools.cached_property
    def runs(self) -> list[Run]:
        """Every run under the root."""
        return existing()

    @functools.cached_property
    def names(self) -> Names:
        """Their hashes."""
        return Names(self.runs)

    def relative(self, path: str) -> str:
        """A path below the root."""
        return os.path.relpath(path, get_platform().root)


def _help(action: str) -> str:
    return inspect.getdoc(ACTIONS[action]).splitlines()[0]


def _add_own_args(parser: ArgumentParser, action: str) -> None:
    if action == LIST:
        SelectionArgs.add_args(parser)
        ListingArgs.add_args(parser, choices={"format": table.FORMATS})
    hashes = {"show": 1, "diff": 2, "rm": "+"}
    if action in hashes:
        text = "A hash, or a unique prefix of one, with or without the kind in front; after a slash that of a clustering or branch."
        parser.add_argument("hashes", metavar="HASH", nargs=hashes[action], help=text)
    if action == "why":
        parser.add_argument("command", metavar="COMMAND", help="A command that trains: train, extract, lottery or lottery_branch.")
        parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="Its arguments.").required = False
    if action == "gc":
        text = "Also the checkpoints of what is finished, which --further_training alone would need."
        parser.add_argument("--checkpoints", action=argparse.BooleanOptionalAction, default=True, help=text)
    if action == "restore":
        parser.add_argument("batch", metavar="BATCH", nargs="?", help="Which share of the trash; without it, what there is is listed.")
    if action in ("rm", "gc"):
        parser.add_argument("--yes", action="store_true", help="Move without asking. Without it and without a terminal, only list.")


# Looking.


def _list(runner: RunsRunner) -> None:
    """List the runs, one row for each experiment."""
    selection, listing = SelectionArgs.create_from_args(runner.args), ListingArgs.create_from_args(runner.args)
    rows = selection.select(runner.runs, listing.each_seed)
    wanted = [name.strip() for name in listing.columns.split(",")] if listing.columns else table.columns(rows)
    shown = [query.check_name(name, runner.runs, "--columns") for name in wanted]
    if rows or listing.format != "table":
        print(table.render(rows, shown, listing.format, runner.names))
    else:
        print(f"No run fits, of {len(runner.runs):,}." if runner.runs else f"There are no runs under {get_platform().root}.")


def _show(runner: RunsRunner) -> None:
    """Show one run in full, with its seeds."""
    runs = runner.names.find(runner.args.hashes[0])
    row, names = Row(tuple(runs)), runner.names
    print(f"{runs[0].kind} {names.full(runs[0])}\n{runner.relative(os.path.dirname(runs[0].location))}\n")
    metrics = list(dict.fromkeys(metric for run in runs for metric in run.metrics))
    print(table.aligned([Row((run,)) for run in runs], ["seed", "state", *metrics, "date", "size"], names, table.terminal_width()))
    if len(runs) > 1:
        print("\nMean and standard deviation over the seeds")
        print("\n".join(f"    {metric:<24}{table.cell(row, metric, names)}" for metric in metrics))
    _show_hparams(runs[0], names)
    _show_files(runs)
    repeat = next(filter(None, (index.command(run) for run in runs)), None)
    print(f"\nCommand\n    {repeat}" if repeat else "\nThe command that made it is not known.")
    _show_parts(runner, runs[0])


def _show_hparams(run: Run, names: Names) -> None:
    """Every hyperparameter; those with a star are required or differ from the default."""
    defaults = {name: value for bundle in records.BUNDLES for name, value in records.defaults(bundle).items()}
    print("\nHyperparameters (* required, or not the default)")
    for name, value in run.hparams.items():
        mark = " " if name in defaults and defaults[name] == value else "*"
        print(f"  {mark} {name:<28}{table.plain(value, names)}")


def _show_files(runs: Sequence[Run]) -> None:
    """What is in the folders of a run, the seeds taken together."""
    sizes: dict[str, list[int]] = {}
    for run in runs:
        for folder, names in (*run.folders, *filter(None, [run.students])):
            for name in (name for name in names if not name.startswith("clustering_")):
                path = os.path.join(folder, name)
                sizes.setdefault(os.path.relpath(path, run.location), []).append(index.size_of(path))
    print("\nFiles" if len(runs) == 1 else "\nFiles of all seeds together")
    for path in sorted(sizes):
        print(f"    {table.size(sum(sizes[path])):>8}  {path}")


def _show_parts(runner: RunsRunner, shown: Run) -> None:
    """The branches of a lottery ticket experiment that is shown."""
    rows = query.group(run for run in runner.runs if run.name == shown.name and run.part and not shown.part)
    if rows:
        print(f"\nParts\n{table.aligned(rows, table.columns(rows), runner.names, table.terminal_width())}")


def _diff(runner: RunsRunner) -> None:
    """Show the hyperparameters in which two runs differ."""
    one, other = (runner.names.find(text)[0] for text in runner.args.hashes)
    names = [name for name in dict.fromkeys([*one.hparams, *other.hparams]) if one.hparams.get(name) != other.hparams.get(name)]
    if not names:
        print("They have the same hyperparameters.")
        return
    lines = [("", runner.names.short(one), runner.names.short(other))]
    lines += [(name, *(table.plain(run.hparams.get(name), runner.names) for run in (one, other))) for name in names]
    print("\n".join(tables.aligned(lines)))


def _why(runner: RunsRunner) -> None:
    """Tell whether the run of a command exists, and what keeps the nearest ones apart from it."""
    command, arguments = runner.args.command, runner.args.arguments
    wanted = runner.commands.parse(command, arguments)[1].create(display_output_location=True)
    if not hasattr(wanted, "desc"):
        raise ConfigError(f"why: {command} makes no runs; valid: train, extract, lottery or lottery_branch")
    kind, name, part = index.place_of(runner.relative(wanted.output_location))
    hparams = records.flatten(json.loads(wanted.desc.to_json()))
    extraction = getattr(wanted.desc, "extraction_hparams", None)
    if hasattr(wanted.desc, "branch_name"):
        hparams["branch"] = wanted.desc.branch_name
    if extraction:
        hparams |= records.flatten({"extraction_hparams": extraction.to_dict()})
    print(f"{name}/{part}" if part else name)
    alike = query.group(run for run in runner.runs if run.kind == kind and bool(run.part) == bool(part) and run.hparams)
    same = next((row for row in alike if (row.runs[0].name, row.runs[0].part) == (name, part)), None)
    if same:
        print("exists:")
        print(table.aligned([Row((run,)) for run in same.runs], ["seed", "state", "date", "size"], runner.names, table.terminal_width()))
    else:
        print("does not exist")
    others = sorted(((query.apart(hparams, row.runs[0].hparams), row) for row in alike if row is not same), key=lambda pair: len(pair[0]))
    for apart, row in others[:NEAREST_SHOWN]:
        _show_distance(runner, hparams, row.runs[0], apart)


def _show_distance(runner: RunsRunner, hparams: dict[str, object], run: Run, apart: Sequence[str]) -> None:
    """What keeps an existing run apart from a would-be one."""
    plain = functools.partial(table.plain, names=runner.names)
    print(f"\n{run.kind} {runner.names.short(run)} differs in {len(apart)}:")
    print(
        "\n".join(f"    {name:<24}{plain(run.hparams.get(name))} there, {plain(hparams.get(name))} here" for name in apart[:FIELDS_SHOWN])
    )
    if len(apart) > FIELDS_SHOWN:
        print(f"    and {len(apart) - FIELDS_SHOWN} more")


# Clearing up.


def _rm(runner: RunsRunner) -> None:
    """Move runs to the trash."""
    found = [(text, run) for text in dict.fromkeys(runner.args.hashes) for run in runner.names.find(text, whole=True)]
    gone = {run.name for text, run in found if "/" not in text.strip("/")}
    removals = trash.of_runs([run for _, run in found], gone)
    for row in query.group(run for run in runner.runs if run.hparams.get("teacher_name") in gone and run.name not in gone):
        print(f"Note: {row.runs[0].kind} {runner.names.short(row.runs[0])} asks {runner.names.shorten(row.value('teacher_name'))}.")
    _clear(runner, removals)


def _gc(runner: RunsRunner) -> None:
    """Move to the trash what no run needs: files of dead processes, folders without a result, checkpoints of what is finished."""
    _clear(runner, list(trash.needless(runner.runs, runner.args.checkpoints)))


def _clear(runner: RunsRunner, removals: Sequence[trash.Removal]) -> None:
    """Lists what is to be moved, and moves it where that is wanted."""
    if not removals:
        print("There is nothing to move.")
        return
    sizes = [removal.size for removal in removals]
    for removal, size in zip(removals, sizes, strict=True):
        print(f"{table.size(size):>8}  {runner.relative(removal.path)}{f'  ({removal.why})' if removal.why else ''}")
    print(f"{table.size(sum(sizes)):>8}  in all, {len(removals):,} to move")
    if not (runner.args.yes or _confirmed()):
        print("Nothing has been moved. --yes moves it.")
        return
    command = shlex.join(["runs", runner.action, *getattr(runner.args, "hashes", [])])
    batch, left = trash.move(removals, get_platform().root, command)
    print(
        "\n".join(
            [f"Moved to {batch}", f"`runs restore {os.path.basename(batch)}` puts it back; deleting the folder frees the space.", *left]
        )
    )


def _confirmed() -> bool:
    """Whether somebody is there who says yes."""
    if not sys.stdin.isatty():
        return False
    print("Move this to the trash? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _restore(runner: RunsRunner) -> None:
    """Put back what was moved to the trash, or list what is there."""
    root, name = get_platform().root, runner.args.batch
    there = trash.batches(root)
    if name is None:
        print("\n".join(trash.describe(root, each) for each in there) if there else "The trash is empty.")
        return
    if name not in there:
        raise unknown("restore", name, there)
    back, left = trash.restore(root, name)
    print("\n".join([f"{back:,} put back", *left]))


ACTIONS: dict[str, Action] = {
    LIST: _list,
    "show": _show,
    "diff": _diff,
    "why": _why,
    "rm": _rm,
    "gc": _gc,
    "restore": _restore,
}
