"""The command `sweep`: every combination of some values of flags, each a run of its own."""

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
from foundations import ranges
from foundations.arguments import ArgumentParser
from foundations.errors import Busy, ConfigError, unknown
from foundations.hparams import Hparams
from foundations.seeds import NOT_CHOSEN
from platforms import registry, slurm
from platforms.platform import get_platform
from platforms.system import signals

COMMANDS = ("train", "extract", "lottery", "lottery_branch")
EPILOG = (
    "Every flag of the command may have several values: joined by commas (--lr 0.05,0.1), as whole numbers from one to another "
    "(--global_seed 0-4, or 0-8:2 for every second one), or by giving the flag again (--lr=0.05 --lr=0.1, which a shell also makes of "
    "--lr={0.05,0.1}). The last way alone goes for flags whose single value may have commas or ranges in it, whose names end in "
    f"{', '.join(grid.LISTS)}. A switch is tried both ways by --centred --no-centred. All combinations are run, the last flag changing "
    "fastest. On a cluster (--platform slurm) the seeds of an experiment are an array of jobs."
)


class Failed(ConfigError):
    """Some runs of a sweep have failed. `EC.py` exits with 1."""

    exit_status = 1


@dataclass
class SweepArgs(Hparams):
    """How the runs of a sweep are run."""

    parallel: int = 1
    dry_run: bool = False
    retry_failed: bool = False

    _name = "Sweep"
    _description = "How the runs are run. Finished ones are not run again, and interrupted ones go on."
    _parallel = "How many to run side by side, each in a process with its share of the cores, and one of the GPUs where there are several."
    _dry_run = "Show what would be run, and leave."
    _retry_failed = "Also run what an error has ended before."

    def __post_init__(self):
        self.require("parallel", self.parallel >= 1, "1 or more")


@dataclass
class SweepRunner(CommandsRunner):
    """The runs of one sweep; `words` are the flags of the command."""

    command: str
    words: Sequence[grid.Word]
    options: SweepArgs

    computes: ClassVar[bool] = False  # the runs do, each on the platform that its flags name

    @staticmethod
    def description() -> str:
        return "Run a command with all combinations of several values of its flags."

    @staticmethod
    def examples() -> Sequence[str]:
        return (
            "sweep train --default_hparams=digits_lenet_16 --lr 0.05,0.1,0.2 --global_seed 0-4",
            "sweep extract --default_hparams=students_digits_lenet --act_fun relu,tanh --global_seed 0-4 --dry_run",
        )

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        command = next(iter(parser.arguments), "--help")
        if not command.startswith("-") and command not in COMMANDS:
            raise unknown("sweep", command, COMMANDS)
        if command.startswith("-") and command not in ("-h", "--help"):
            raise ConfigError(f"the command to sweep comes first, before {command}; valid: {', '.join(COMMANDS)}")
        own = {field.name for field in dataclasses.fields(SweepArgs)} | {"help"}
        words = grid.read(["--help" if word == "-h" else word for word in parser.arguments[1:]])
        parser.arguments = [command, *(word for each in words if each.name in own for word in each.arguments)]
        parser.epilog = EPILOG
        parser.add_argument("command", metavar="COMMAND ...", help=f"What to run: {', '.join(COMMANDS)}. Its flags follow.")
        parser.set_defaults(words=[word for word in words if word.name not in own])
        SweepArgs.add_args(parser)

    @staticmethod
    def create_from_args(args: argparse.Namespace) -> SweepRunner:
        return SweepRunner(args.command, args.words, SweepArgs.create_from_args(args))

    @property
    def output_location(self) -> str:
        """The folder of all results."""
        return get_platform().root

    def run(self) -> None:
        """Plans the sweep, shows the plan, and carries it out.

        Raises:
            ConfigError: a combination cannot be run; then nothing has been. Or some runs have failed, or were left to others.
            Stopped: somebody has asked to stop, and what was running has written its checkpoint.
        """
        there = existing()
        on_cluster = self._on_cluster()
        planned = plan.make(self.commands, self.command, self._combinations(), there, _queue() if on_cluster else {})
        names = plan.names_of(planned, there)
        print(plan.show(self.command, planned, names), flush=True)
        failed = [each for each in planned if each.state == plan.FAILED]
        if failed and not self.options.retry_failed:
            print("What has failed before is left alone; --retry_failed runs it again.", flush=True)
        if self.options.dry_run:
            return
        todo = [each for each in planned if each.state != plan.FINISHED and (each.state != plan.FAILED or self.options.retry_failed)]
        if on_cluster:
            _submit(self.commands, self.command, todo)
            return
        outcomes = self._work(todo, names) if todo else {}
        _show_results(planned)
        left = {each.run.location: Outcome(work.FAILED, each.note) for each in failed} | outcomes
        _conclude(len(planned), [(each, left[each.run.location]) for each in planned if each.run.location in left], names)

    def _combinations(self) -> list[grid.Combination]:
        single = {field.name for field in dataclasses.fields(self._platform)} | {"platform"}
        return grid.combinations(self.words, single)

    @property
    def _platform(self) -> type[Hparams]:
        return platform_class([argument for word in self.words for argument in word.arguments])

    def _on_cluster(self) -> bool:
        """Whether the runs are jobs of a cluster.

        Raises:
            ConfigError: they are to be run on a platform that a sweep does not go with, or in a way that does not go with it.
        """
        names = {word.name for word in self.words}
        if self._platform is registry.get("distributed"):
            raise ConfigError("--platform: distributed shares one run among processes; valid for a sweep: local, slurm")
        on_cluster = self._platform is registry.get("slurm")
        if on_cluster and self.options.parallel > 1:
            raise ConfigError("--parallel: on a cluster jobs run side by side anyway; --at_once says how many of an array")
        if on_cluster and "seeds" in names:
            raise ConfigError("--seeds: a sweep takes --global_seed 0-4, and makes arrays of it")
        if "display_output_location" in names:
            raise ConfigError("--display_output_location: goes with a single run; --dry_run shows what a sweep would run")
        return on_cluster

    def _work(self, todo: Sequence[Planned], names: Names) -> dict[str, Outcome]:
        """Runs what is to be run, and tells how it goes; gives what came of each run by its folder.

        Raises:
            Stopped, KeyboardInterrupt: somebody has asked to stop.
        """
        tasks = [Task(self.command, tuple(each.combination.arguments)) for each in todo]
        titles = [_title(each, names) for each in todo]
        outcomes: dict[str, Outcome] = {}
        with signals.interruptible(), _progress(len(todo), self.options.parallel > 1) as tell:
            if self.options.parallel > 1:
                found = work.side_by_side(self.commands, tasks, self.options.parallel)
            else:
                found = work.one_by_one(self.commands, tasks, lambda place: tell(f"now {titles[place]}", False))
            for place, outcome in found:
                outcomes[todo[place].run.location] = outcome
                tell(f"{outcome.state}: {titles[place]}{f' ({outcome.why})' if outcome.why else ''}", outcome.is_over)
            asked = signals.requested()
        done = sum(outcome.is_over for outcome in outcomes.values())
        if asked and done < len(todo):
            stopped = f"The sweep has stopped, {done} of {len(todo)} runs are done"
            if asked != "SIGINT":
                raise signals.Stopped(stopped)
            print(f"{stopped}.", file=sys.stderr)
            raise KeyboardInterrupt
        return outcomes


@contextlib.contextmanager
def _progress(total: int, bar: bool) -> Iterator[Callable[[str, bool], None]]:
    """A function that shows a line, and whether that is the end of a run; beside it a bar where one is wanted and there is a terminal."""
    from tqdm import tqdm

    with tqdm(total=total, unit="run", disable=not (bar and sys.stderr.isatty())) as shown:
        done = 0

        def tell(text: str, ended: bool) -> None:
            nonlocal done
            done += ended
            shown.write(f"[{done}/{total}] {text}")
            sys.stdout.flush()
            shown.update(ended)

        yield tell


def _title(planned: Planned, names: Names) -> str:
    """A run in a few words."""
    differs = planned.combination.show(plan.SEED)
    return f"{planned.run.kind} {names.short(planned.run)} {plan.seeds_text([planned.run.seed])}{f', {differs}' if differs else ''}"


def _queue() -> dict[str, str]:
    """The runs that are in the queue of a cluster; none where there is no cluster to be asked, as for a look at the plan."""
    return slurm.queue() if shutil.which("squeue") else {}


def _submit(commands: Commands, command: str, todo: Sequence[Planned]) -> None:
    """Submits runs to a cluster, those that differ in their seed alone as an array of jobs."""
    arrays: dict[tuple[str, ...], list[int]] = {}
    for each in todo:
        arrays.setdefault(tuple(each.combination.without(plan.SEED)), []).append(each.run.seed)
    for arguments, seeds in arrays.items():
        chosen = [] if seeds == [NOT_CHOSEN] else [f"--seeds={ranges.to_text(seeds)}"]
        platform, job = commands.parse(command, [*arguments, *chosen])
        platform.launch(job)


def _show_results(planned: Sequence[Planned]) -> None:
    """Shows what there is now of the runs of a sweep, over their seeds, in its order."""
    runs = existing()
    there = {plan.key_of(run): run for run in runs}
    rows = query.group(there[key] for key in map(plan.key_of, (each.run for each in planned)) if key in there)
    if rows:
        print(f"\n{table.render(rows, table.columns(rows), 'table', Names(runs))}")


def _conclude(total: int, outcomes: Sequence[tuple[Planned, Outcome]], names: Names) -> None:
    """Lists those of so many runs that are not finished, and why.

    Raises:
        Failed: some of them have failed.
        Busy: others are at work on them.
    """
    left = [(each, outcome) for each, outcome in outcomes if outcome.state != work.FINISHED]
    if left:
        lines = [f"  {_title(each, names)}: {outcome.state}, {outcome.why}" for each, outcome in left]
        print("\n".join(["\nNot finished:", *lines]), flush=True)
        error = Busy if all(outcome.state == work.BUSY for _, outcome in left) else Failed
        raise error(f"{len(left)} of {total} runs not finished: {plan.tally([outcome.state for _, outcome in left])}")
