"""The command `runs`: lists, finds and compares runs, and moves runs and unneeded files to the trash."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import inspect
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cli.commands import CommandsRunner
from cli.runs import index, listing, query, records, table, trash
from cli.runs.index import Run
from cli.runs.names import Names
from cli.runs.query import Row
from foundations import ancestors, revisions, tables
from foundations.arguments import ArgumentParser
from foundations.desc import Desc
from foundations.errors import ConfigError, unknown
from foundations.hparams import Hparams
from platforms.platform import get_platform
from training import teachers

NEAREST_SHOWN, FIELDS_SHOWN = 3, 12
LIST = "list"  # the default action
TRAIN, TRAINED = "train --default_hparams=digits_lenet_16", "1f9aac2d"  # a command, and the hash of its run
EXAMPLES = {
    LIST: (TRAIN, 'runs --where "lr<0.2 and act_fun=relu" --sort test_accuracy:desc'),
    "show": (TRAIN, f"runs show {TRAINED}"),
    "diff": (TRAIN, f"{TRAIN} --act_fun tanh", f"runs diff {TRAINED} edb24fcd"),
    "why": (f"runs why {TRAIN} --lr 0.3", "runs why lottery --default_hparams=digits_lenet_16 --levels=3"),
    "rm": (f"runs rm {TRAINED}", f"runs rm {TRAINED} --yes"),
    "gc": ("runs gc", "runs gc --no-checkpoints --yes"),
    "restore": ("runs restore",),
    "import": ("runs import open_lth_data", "runs import open_lth_data/lottery_372aca10569432bf22f79c5d557ee3d1/replicate_1"),
}


@dataclass
class SelectionArgs(Hparams):
    """Flags that select and sort runs."""

    where: str | None = None
    sort: str | None = None
    limit: int = 0

    _name = "Selection"
    _description = f"Selects runs by the names of hyperparameters, metrics, and {', '.join(query.ATTRIBUTES)}."
    _where = (
        "Select runs by a condition, such as 'lr<0.1 and (act_fun=tanh or not state=finished)'. Operators: = != < <= > >= ~ (contains)."
    )
    _sort = "Sort rows by these names, such as test_accuracy:desc,lr. Runs without a value come last."
    _limit = "The largest number of rows (0: all)."

    def __post_init__(self):
        self.require("limit", self.limit >= 0, "0 or more")

    def select(self, runs: Sequence[Run], each_seed: bool = False) -> list[Row]:
        """The rows of the selected runs, one for each experiment or for each seed.

        Raises:
            ConfigError: the condition, or a name in it, is not valid.
        """
        selected = query.select(runs, self.where)
        rows = [Row((run,)) for run in selected] if each_seed else query.group(selected)
        rows = query.sort_rows(rows, self.sort, runs)
        return rows[: self.limit] if self.limit else rows


@dataclass
class ListingArgs(Hparams):
    """Flags that format a listing."""

    columns: str | None = None
    format: str = "table"
    each_seed: bool = False

    _name = "Listing"
    _description = "The format of the list. Accuracies and losses are means and standard deviations over the seeds."
    _columns = "The columns, by the names of --where, separated by commas (default: hyperparameters that differ, and the main metrics)."
    _format = "The format of the list."
    _each_seed = "Show one row for each seed instead of one for each experiment."

    def __post_init__(self):
        if self.format not in table.FORMATS:
            raise unknown("--format", self.format, table.FORMATS)


def existing() -> list[Run]:
    """Every run in the results folder of the platform."""
    platform = get_platform()
    return index.scan(platform.root, [platform.dataset_root, platform.imagenet_root, platform.boruta_root])


Action = Callable[["RunsRunner"], None]


@dataclass
class RunsRunner(CommandsRunner):
    """One action on the runs.

    Attributes:
        action: a key of ACTIONS.
        args: the parsed flags of the action.
    """

    computes = False

    action: str
    args: argparse.Namespace

    @staticmethod
    def description() -> str:
        return f"List, find, compare and remove runs: {', '.join(ACTIONS)}."

    @staticmethod
    def examples() -> Sequence[str]:
        return EXAMPLES[LIST]

    @staticmethod
    def subcommands() -> Sequence[str]:
        return list(ACTIONS)

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Adds the flags of the action that the first argument names.

        Raises:
            ConfigError: the action does not exist.
        """
        first = next(iter(parser.arguments), "-")
        action = LIST if first.startswith("-") else first
        if action not in ACTIONS:
            raise unknown("action", action, ACTIONS)
        if first == action:
            parser.add_argument("action", metavar=action, help=argparse.SUPPRESS)
            parser.description, parser.examples = _help(action), EXAMPLES[action]
        else:
            others = "".join(f"\n  {name:<10}{_help(name)}" for name in ACTIONS)
            parser.epilog = f"actions (EC.py runs ACTION --help shows their flags):{others}"
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
        """Runs the action."""
        with listing.garbage_collection_paused():
            ACTIONS[self.action](self)

    @functools.cached_property
    def runs(self) -> list[Run]:
        """Every run in the results folder."""
        return existing()

    @functools.cached_property
    def names(self) -> Names:
        """The short hashes of all runs."""
        return Names(self.runs)

    def relative(self, path: str) -> str:
        """A path relative to the results folder."""
        return os.path.relpath(path, get_platform().root)


def _help(action: str) -> str:
    """The help of an action: the first line of its docstring."""
    return (inspect.getdoc(ACTIONS[action]) or "").partition("\n")[0]


def _add_own_args(parser: ArgumentParser, action: str) -> None:
    """Adds the flags of an action to the parser."""
    if action == LIST:
        SelectionArgs.add_args(parser)
        ListingArgs.add_args(parser, choices={"format": table.FORMATS})
    hashes: dict[str, int | str] = {"show": 1, "diff": 2, "rm": "+"}
    if action in hashes:
        text = "A hash or a unique prefix of a hash, with or without the kind, such as 1f9aac, train_1f9aac or, for a part, 1f9aac/7b9979."
        parser.add_argument("hashes", metavar="HASH", nargs=hashes[action], help=text)
    if action == "why":
        text = f"A command that trains, one of: {', '.join(parser.choices_of['command'])}."
        parser.add_argument("command", metavar="COMMAND", help=text)
        parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="The arguments of the command.").required = False
    if action == "gc":
        text = "Also move the checkpoints of finished runs. Only --extra_training needs them."
        parser.add_argument("--checkpoints", action=argparse.BooleanOptionalAction, default=True, help=text)
    if action == "restore":
        parser.add_argument("batch", metavar="BATCH", nargs="?", help="The batch to move back (default: list all batches).")
    if action == "import":
        text = "A results folder, a folder of an experiment, or a folder of a seed, of OpenLTH or of the published Expand-and-Cluster code."
        parser.add_argument("folders", metavar="FOLDER", nargs="+", help=text)
    if action in ("rm", "gc"):
        parser.add_argument(
            "--yes",
            action="store_true",
            help="Move the files without confirmation. Without --yes and without a terminal, the files are only listed.",
        )


def _list(runner: RunsRunner) -> None:
    """List the runs, one row for each experiment."""
    selection, listing = SelectionArgs.create_from_args(runner.args), ListingArgs.create_from_args(runner.args)
    rows = selection.select(runner.runs, listing.each_seed)
    wanted = [name.strip() for name in listing.columns.split(",")] if listing.columns else table.columns(rows)
    shown = [query.check_name(name, runner.runs, "--columns") for name in wanted]
    if rows or listing.format != "table":
        print(table.render(rows, shown, listing.format, runner.names))
    else:
        print(f"None of the {len(runner.runs):,} runs matches." if runner.runs else f"There are no runs under {get_platform().root}.")


def _show(runner: RunsRunner) -> None:
    """Show one run in full, with its seeds."""
    runs = runner.names.find(runner.args.hashes[0])
    row, names = Row(tuple(runs)), runner.names
    print(f"{runs[0].kind} {names.full(runs[0])}\n{runner.relative(os.path.dirname(runs[0].location))}\n")
    metrics = list(dict.fromkeys(metric for run in runs for metric in run.metrics))
    trained = ["trained_steps"] if any(run.deviates for run in runs) else []
    columns = ["seed", "state", *trained, *metrics, "date", "size"]
    print(table.aligned([Row((run,)) for run in runs], columns, names, table.terminal_width()))
    if len(runs) > 1:
        print("\nMean and standard deviation over the seeds")
        print("\n".join(f"    {metric:<24}{table.cell(row, metric, names)}" for metric in metrics))
    _show_hparams(runs[0], names)
    _show_files(runs)
    commands = next(filter(None, (index.recorded_commands(run) for run in runs)), None)
    print("\n    ".join(["\nCommand", *commands]) if commands else "\nThe command of the run is unknown.")
    for location in (run.location for run in runs if ancestors.program_of(run.location) and run.seed is not None):
        print(f"`EC.py runs import {location}` copies it, so that it can be continued")
    for origin in filter(None, map(index.origin, runs)):
        print(f"Imported from {origin}")
    _show_parts(runner, runs[0])


def _show_hparams(run: Run, names: Names) -> None:
    """Prints every hyperparameter, with a star if it is required or differs from its default."""
    defaults = {name: value for bundle in records.BUNDLES for name, value in records.defaults(bundle).items()}
    print("\nHyperparameters (* required or different from the default)")
    for name, value in run.hparams.items():
        mark = " " if name in defaults and defaults[name] == value else "*"
        print(f"  {mark} {name:<28}{table.plain(value, names)}")
        if name == "training_steps" and run.deviates:
            print(f"  * {'trained_steps':<28}{run.trained_steps}")


def _show_files(runs: Sequence[Run]) -> None:
    """Prints the files of a run, with the total size over all seeds."""
    sizes: dict[str, list[int]] = {}
    for run in runs:
        for folder, names in (*run.folders, *filter(None, [run.students])):
            for name in (name for name in names if not name.startswith(("clustering_", "."))):
                path = os.path.join(folder, name)
                sizes.setdefault(os.path.relpath(path, run.location), []).append(listing.size_of(path))
    print("\nFiles" if len(runs) == 1 else "\nFiles of all seeds")
    for path in sorted(sizes):
        print(f"    {table.size(sum(sizes[path])):>8}  {path}")


def _show_parts(runner: RunsRunner, shown: Run) -> None:
    """Prints the branches of a lottery ticket experiment."""
    rows = query.group(run for run in runner.runs if run.name == shown.name and run.part and not shown.part)
    if rows:
        print(f"\nParts\n{table.aligned(rows, table.columns(rows), runner.names, table.terminal_width())}")


def _diff(runner: RunsRunner) -> None:
    """Show the hyperparameters in which two runs differ, and their results."""
    found = [runner.names.find(text) for text in runner.args.hashes]
    one, other = (seeds[0] for seeds in found)
    names = [name for name in dict.fromkeys([*one.hparams, *other.hparams]) if one.hparams.get(name) != other.hparams.get(name)]
    trained = [run.trained_steps for run in (one, other)]
    if not names and trained[0] == trained[1]:
        print("The runs have the same hyperparameters.")
        return
    lines = [("", runner.names.short(one), runner.names.short(other))]
    lines += [(name, *(table.plain(run.hparams.get(name), runner.names) for run in (one, other))) for name in names]
    if one.deviates or other.deviates:
        lines.append(("trained_steps", *(table.plain(text, runner.names) for text in trained)))
    rows = [Row(tuple(seeds)) for seeds in found]
    metrics = [name for name in query.METRICS if any(name in run.metrics for row in rows for run in row.runs)]
    lines += [("", "", "")] if metrics else []
    lines += [(name, *(table.cell(row, name, runner.names) for row in rows)) for name in metrics]
    print("\n".join(tables.aligned(lines)))


def _why(runner: RunsRunner) -> None:
    """Show whether the run of a command exists, and how the most similar runs differ from it."""
    command, arguments = runner.args.command, runner.args.arguments
    job = runner.commands.parse(command, arguments)[1]
    wanted = job.create(display_output_location=True)
    desc = getattr(wanted, "desc", None)
    if desc is None:
        raise ConfigError(f"why: {command} does not create runs; valid: {', '.join(runner.commands.computing)}")
    kind, name, part = index.identify(runner.relative(wanted.output_location))
    hparams = records.flatten(json.loads(desc.to_json()))
    extraction = getattr(desc, "extraction_hparams", None)
    if hasattr(desc, "branch_name"):
        hparams["branch"] = desc.branch_name
    if extraction:
        hparams |= records.flatten({"extraction_hparams": extraction.to_dict()})
    print(f"{name}/{part}" if part else name)
    teachers.print_remark(desc)
    alike = query.group(run for run in runner.runs if run.kind == kind and bool(run.part) == bool(part) and run.hparams)
    same = next((row for row in alike if (row.runs[0].name, row.runs[0].part) == (name, part)), None)
    if same:
        print("exists:")
        print(table.aligned([Row((run,)) for run in same.runs], ["seed", "state", "date", "size"], runner.names, table.terminal_width()))
        _show_changes(same.runs, desc)
        for run in same.runs:
            obstacle = job.create(display_output_location=True, global_seed=run.seed).obstacle
            if obstacle:
                print(f"Seed {run.seed} cannot be continued: {obstacle}.")
    else:
        print("does not exist")
    defaults = records.flatten({name: _defaults(bundle) for name, bundle in desc.bundles().items()})
    others = [(row.runs[0], {**defaults, **row.runs[0].hparams}) for row in alike if row is not same]
    distances = [(query.name_differences(hparams, existing), run, existing) for run, existing in others]
    for apart, run, existing in sorted(distances, key=lambda distance: len(distance[0]))[:NEAREST_SHOWN]:
        _show_distance(runner, hparams, run, existing, apart)


def _show_changes(runs: Sequence[Run], desc: Desc) -> None:
    """Prints how the results of older seeds differ from those of the program."""
    seeds: dict[str, list[str]] = {}
    for run in (run for run in runs if run.folders and not run.foreign):
        for reason in revisions.changes(desc.bundles().values(), records.results((run.students or run.folders[0])[0])):
            seeds.setdefault(reason, []).append(str(run.seed))
    for reason, of in seeds.items():
        print(f"made by an earlier version (seed {', '.join(of)}): {reason}; the folder stays valid, and a new run would differ")


def _defaults(bundle: Hparams) -> dict[str, object]:
    """The defaults of a bundle, which the record of an older version may lack."""
    return {field.name: field.default for field in dataclasses.fields(bundle) if field.default is not dataclasses.MISSING}


def _show_distance(
    runner: RunsRunner, hparams: Mapping[str, object], run: Run, existing: Mapping[str, object], apart: Sequence[str]
) -> None:
    """Prints the hyperparameters in which an existing run differs from the run of a command."""
    plain = functools.partial(table.plain, names=runner.names)
    if not apart:
        print(f"\n{run.kind} {runner.names.short(run)} has the same hyperparameters; another program has given it its name")
        return
    print(f"\n{run.kind} {runner.names.short(run)} differs in {len(apart)} hyperparameter{'s' if len(apart) > 1 else ''}:")
    print(
        "\n".join(f"    {name:<23} {plain(existing.get(name))}, in the command {plain(hparams.get(name))}" for name in apart[:FIELDS_SHOWN])
    )
    if len(apart) > FIELDS_SHOWN:
        print(f"    and {len(apart) - FIELDS_SHOWN} more")


def _rm(runner: RunsRunner) -> None:
    """Move runs to the trash."""
    named = [(text, run) for text in dict.fromkeys(runner.args.hashes) for run in runner.names.find(text, whole=True)]
    whole = {run.name for text, run in named if "/" not in text.strip("/")}
    removals = trash.of_runs([run for _, run in named], whole)
    for row in query.group(run for run in runner.runs if run.hparams.get("teacher_name") in whole and run.name not in whole):
        teacher = runner.names.shorten(str(row.value("teacher_name")))
        print(f"Note: {teacher} is the teacher of {row.runs[0].kind} {runner.names.short(row.runs[0])}.")
    _clear(runner, removals)


def _gc(runner: RunsRunner) -> None:
    """Move unneeded files to the trash: temporary files, folders without a result, checkpoints of finished runs."""
    _clear(runner, list(trash.unneeded(runner.runs, runner.args.checkpoints)))


def _clear(runner: RunsRunner, removals: Sequence[trash.Removal]) -> None:
    """Lists files and folders, and moves them to the trash if the user agrees."""
    if not removals:
        print("There is nothing to move.")
        return
    sizes = [removal.size for removal in removals]
    for removal, size in zip(removals, sizes, strict=True):
        print(f"{table.size(size):>8}  {runner.relative(removal.path)}{f'  ({removal.reason})' if removal.reason else ''}")
    print(f"{table.size(sum(sizes)):>8}  in total, {len(removals):,} to move")
    if not (runner.args.yes or _confirmed()):
        print("Nothing has been moved. --yes moves the files.")
        return
    command = shlex.join(["runs", runner.action, *getattr(runner.args, "hashes", [])])
    batch, left = trash.move(removals, get_platform().root, command)
    print(
        "\n".join(
            [f"Moved to {batch}", f"`runs restore {os.path.basename(batch)}` moves them back; deleting the folder frees the space.", *left]
        )
    )


def _confirmed() -> bool:
    """Whether the user at the terminal confirms the move. False without a terminal."""
    if not sys.stdin.isatty():
        return False
    print("Move this to the trash? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _restore(runner: RunsRunner) -> None:
    """Move a batch back from the trash, or list the batches in the trash."""
    root, name = get_platform().root, runner.args.batch
    batches = trash.batches(root)
    if name is None:
        print("\n".join(trash.describe(root, batch) for batch in batches.values()) if batches else "The trash is empty.")
        return
    if name not in batches:
        raise unknown("restore", name, batches)
    back, left = trash.restore(root, batches[name])
    print("\n".join([f"{back:,} moved back", *left]))


def _import(runner: RunsRunner) -> None:
    """Copy runs of OpenLTH or of the published Expand-and-Cluster code, so that they can be continued."""
    from cli.runs import importing

    print("\n".join(line for folder in runner.args.folders for line in importing.lines(folder)))


ACTIONS: dict[str, Action] = {
    LIST: _list,
    "show": _show,
    "diff": _diff,
    "why": _why,
    "rm": _rm,
    "gc": _gc,
    "restore": _restore,
    "import": _import,
}
