"""The command `sweep`: runs another command with every combination of the values of its flags."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from cli.commands import Commands, CommandsRunner, platform_class
from cli.runs import query, table
from cli.runs.names import Names
from cli.runs.runner import existing
from cli.sweep import grid, plan, work
from cli.sweep.plan import Planned
from cli.sweep.work import Outcome, Task
from foundations import limits, ranges
from foundations.arguments import ArgumentParser
from foundations.errors import Busy, ConfigError, unknown
from foundations.hparams import Hparams
from foundations.seeds import NOT_CHOSEN
from platforms import registry, slurm
from platforms.platform import get_platform
from platforms.system import signals

EPILOG = (
    "Every flag of the command may have several values: separated by commas (--lr 0.05,0.1), as a range of whole numbers "
    "(--global_seed 0-4, or 0-8:2 with a step of 2), or by repeating the flag (--lr=0.05 --lr=0.1, which a shell also makes of "
    "--lr={0.05,0.1}). Flags whose single value may contain commas or ranges must be repeated; their names end in "
    f"{', '.join(grid.LISTS)}. --centred --no-centred runs both values of a switch. All combinations are run; the value of the last flag "
    "changes fastest. On a cluster (--platform slurm) the seeds of an experiment are an array of jobs."
)


class Failed(ConfigError):
    """Some runs of a sweep have failed. `EC.py` exits with 1."""

    exit_status = 1


@dataclass
class SweepArgs(Hparams):
    """Options of a sweep."""

    parallel: int = 1
    dry_run: bool = False
    retry_failed: bool = False

    _name = "Sweep"
    _description = "How the sweep runs. Finished runs are skipped, and interrupted runs are resumed."
    _parallel = "The number of runs at a time. Each has its own process with a share of the CPU cores and, if there are several, one GPU."
    _dry_run = "Show the plan without running it."
    _retry_failed = "Also run the runs that failed before."

    def __post_init__(self):
        self.require("parallel", 1 <= self.parallel <= limits.PROCESSES, f"1 to {limits.PROCESSES:,}, because each run has a process")


@dataclass
class SweepRunner(CommandsRunner):
    """One sweep.

    Attributes:
        command: the name of the command to run.
        flags: the flags of the command, with all their values.
        options: the flags of the sweep itself.
    """

    command: str
    flags: Sequence[grid.Flag]
    options: SweepArgs

    computes: ClassVar[bool] = False  # each run of the sweep computes, on the platform that its flags name

    @staticmethod
    def description() -> str:
        return "Run a command with all combinations of the values of its flags."

    @staticmethod
    def examples() -> Sequence[str]:
        return (
            "sweep train --default_hparams=digits_lenet_16 --lr 0.05,0.1,0.2 --global_seed 0-4",
            "sweep extract --default_hparams=students_digits_lenet --act_fun relu,tanh --global_seed 0-4 --dry_run",
        )

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Adds the flags of the sweep itself. The flags of the command are not parsed here, because they may have several values.

        Raises:
            ConfigError: the first argument is not a command that a sweep can run.
        """
        command, valid = next(iter(parser.arguments), "--help"), parser.choices_of["command"]
        if not command.startswith("-") and command not in valid:
            raise unknown("sweep", command, valid)
        if command.startswith("-") and command not in ("-h", "--help"):
            raise ConfigError(f"the command to sweep comes first, before {command}; valid: {', '.join(valid)}")
        own = {field.name for field in dataclasses.fields(SweepArgs)} | {"help"}
        flags = grid.read(["--help" if argument == "-h" else argument for argument in parser.arguments[1:]])
        parser.arguments = [command, *(argument for flag in flags if flag.name in own for argument in flag.arguments)]
        parser.epilog = EPILOG
        parser.add_argument("command", metavar="COMMAND ...", help=f"The command to run: {', '.join(valid)}. Its flags follow.")
        parser.set_defaults(flags=[flag for flag in flags if flag.name not in own])
        SweepArgs.add_args(parser)

    @staticmethod
    def create_from_args(args: argparse.Namespace) -> SweepRunner:
        return SweepRunner(args.command, args.flags, SweepArgs.create_from_args(args))

    @property
    def output_location(self) -> str:
        """The folder of all results."""
        return get_platform().root

    def run(self) -> None:
        """Plans the sweep, shows the plan, and runs it.

        Raises:
            ConfigError: a combination cannot be run, in which case no run has started; or some runs failed or were busy.
            Stopped: a signal has stopped the sweep, and the current runs have written their checkpoints.
        """
        runs = existing()
        on_cluster = self._on_cluster()
        planned = plan.make(self.commands, self.command, self._combinations(), runs, _queue() if on_cluster else {})
        names = plan.names_of(planned, runs)
        print(plan.show(self.command, planned, names), flush=True)
        failed = [each for each in planned if each.state == plan.FAILED]
        if failed and not self.options.retry_failed:
            print("Runs that failed before are skipped; --retry_failed runs them again.", flush=True)
        if self.options.dry_run:
            return
        todo = [each for each in planned if each.state != plan.FINISHED and (each.state != plan.FAILED or self.options.retry_failed)]
        if on_cluster:
            _submit(self.commands, self.command, todo)
            return
        outcomes = self._work(todo, names) if todo else {}
        _show_results(planned)
        outcomes = {each.run.location: Outcome(work.FAILED, each.note) for each in failed} | outcomes
        _conclude(len(planned), [(each, outcomes[each.run.location]) for each in planned if each.run.location in outcomes], names)

    def _combinations(self) -> list[grid.Combination]:
        """All combinations of the values of the flags. Flags of the platform have one value."""
        single = {field.name for field in dataclasses.fields(self._platform)} | {"platform"}
        return grid.combinations(self.flags, single)

    @property
    def _platform(self) -> type[Hparams]:
        """The class of the platform that the flags name."""
        return platform_class([argument for flag in self.flags for argument in flag.arguments])

    def _on_cluster(self) -> bool:
        """Whether the runs are jobs of a cluster.

        Raises:
            ConfigError: a sweep cannot use the platform, or a flag does not apply to a sweep on the platform.
        """
        names = {flag.name for flag in self.flags}
        if self._platform is registry.get("distributed"):
            raise ConfigError("--platform: distributed divides one run among processes; valid for a sweep: local, slurm")
        on_cluster = self._platform is registry.get("slurm")
        if on_cluster and self.options.parallel > 1:
            raise ConfigError("--parallel: not valid with --platform slurm; --at_once limits the number of jobs that run at the same time")
        if on_cluster and "seeds" in names:
            raise ConfigError("--seeds: not valid in a sweep; --global_seed 0-4 makes arrays of jobs")
        if "display_output_location" in names:
            raise ConfigError("--display_output_location: valid for a single run only; --dry_run shows the runs of a sweep")
        return on_cluster

    def _work(self, todo: Sequence[Planned], names: Names) -> dict[str, Outcome]:
        """Runs the unfinished runs and prints their progress.

        Returns:
            The outcome of each run that ended, by the run's folder.

        Raises:
            Stopped: a signal other than Ctrl-C has stopped the sweep.
            KeyboardInterrupt: Ctrl-C has stopped the sweep.
        """
        tasks = [Task(self.command, tuple(each.combination.arguments)) for each in todo]
        titles = [_title(each, names) for each in todo]
        outcomes: dict[str, Outcome] = {}
        with signals.interruptible(), _progress(len(todo), self.options.parallel > 1) as report:
            if self.options.parallel > 1:
                results = work.run_in_parallel(self.commands, tasks, self.options.parallel)
            else:
                results = work.run_in_sequence(self.commands, tasks, lambda index: report(f"running: {titles[index]}", False))
            for index, outcome in results:
                outcomes[todo[index].run.location] = outcome
                report(f"{outcome.state}: {titles[index]}{f' ({outcome.reason})' if outcome.reason else ''}", outcome.is_final)
            stop_signal = signals.requested()
        done = sum(outcome.is_final for outcome in outcomes.values())
        if stop_signal and done < len(todo):
            stopped = f"The sweep has stopped after {done} of {len(todo)} runs"
            if stop_signal != "SIGINT":
                raise signals.Stopped(stopped)
            print(f"{stopped}.", file=sys.stderr)
            raise KeyboardInterrupt
        return outcomes


@contextlib.contextmanager
def _progress(total: int, bar: bool) -> Iterator[Callable[[str, bool], None]]:
    """A function that prints a line. Its second argument says whether a run has ended. On a terminal, it can update a progress bar."""
    from tqdm import tqdm

    with tqdm(total=total, unit="run", disable=not (bar and sys.stderr.isatty())) as progress:
        done = 0

        def report(text: str, ended: bool) -> None:
            nonlocal done
            done += ended
            progress.write(f"[{done}/{total}] {text}")
            sys.stdout.flush()
            progress.update(ended)

        yield report


def _title(planned: Planned, names: Names) -> str:
    """The kind, hash and seed of a run, and the values in which it differs from other runs of the sweep."""
    varied = planned.combination.show(plan.SEED)
    return f"{planned.run.kind} {names.short(planned.run)} {plan.seeds_text([planned.seed])}{f', {varied}' if varied else ''}"


def _queue() -> dict[str, str]:
    """The jobs in the queue of a cluster. Without a cluster the queue is empty, so that --dry_run works on any machine."""
    return slurm.queue() if shutil.which("squeue") else {}


def _submit(commands: Commands, command: str, todo: Sequence[Planned]) -> None:
    """Submits runs to a cluster. Runs that differ only in their seed become an array of jobs."""
    arrays: dict[tuple[str, ...], list[int]] = {}
    for each in todo:
        arrays.setdefault(tuple(each.combination.arguments_without(plan.SEED)), []).append(each.seed)
    for arguments, seeds in arrays.items():
        seed_flag = [] if seeds == [NOT_CHOSEN] else [f"--seeds={ranges.to_text(seeds)}"]
        platform, job = commands.parse(command, [*arguments, *seed_flag])
        platform.launch(job)


def _show_results(planned: Sequence[Planned]) -> None:
    """Prints a table of the runs of a sweep that exist now, one row for each experiment, in the order of the sweep."""
    runs = existing()
    records = {plan.key_of(run): run for run in runs}
    rows = query.group(records[key] for key in map(plan.key_of, (each.run for each in planned)) if key in records)
    if rows:
        print(f"\n{table.render(rows, table.columns(rows), 'table', Names(runs))}")


def _conclude(total: int, outcomes: Sequence[tuple[Planned, Outcome]], names: Names) -> None:
    """Lists the unfinished runs of a sweep of `total` runs, with the reasons.

    Raises:
        Failed: some runs have failed.
        Busy: other processes work on all unfinished runs.
    """
    unfinished = [(each, outcome) for each, outcome in outcomes if outcome.state != work.FINISHED]
    if unfinished:
        lines = [f"  {_title(each, names)}: {outcome.state}, {outcome.reason}" for each, outcome in unfinished]
        print("\n".join(["\nNot finished:", *lines]), flush=True)
        error = Busy if all(outcome.state == work.BUSY for _, outcome in unfinished) else Failed
        raise error(f"{len(unfinished)} of {total} runs not finished: {plan.tally([outcome.state for _, outcome in unfinished])}")
