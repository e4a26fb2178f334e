"""The plan of a sweep: its runs and the state of each, determined before anything runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cli.commands import Commands
from cli.runs import index, table
from cli.runs.index import Run
from cli.runs.names import Names
from cli.sweep.grid import Combination
from foundations import tables
from foundations.errors import ConfigError
from foundations.runner import Runner
from foundations.seeds import NOT_CHOSEN
from platforms.base import installed

FINISHED, RUNNING, RESUMES, FAILED, QUEUED, NEW = STATES = "finished", "running", "resumes", "failed", "queued", "new"
SEED = "global_seed"
Key = tuple[str, str, "int | None"]


@dataclass(frozen=True)
class Planned:
    """One run of a sweep.

    Attributes:
        combination: the flags of the run.
        run: the name and the folder of the run, without the contents of the folder.
        seed: the seed of the run; NOT_CHOSEN if the run will draw one.
        state: one of STATES.
        note: details of the state.
    """

    combination: Combination
    run: Run
    seed: int
    state: str = NEW
    note: str = ""


def make(
    commands: Commands, command: str, combinations: Sequence[Combination], existing: Sequence[Run], queue: Mapping[str, str]
) -> list[Planned]:
    """All runs of a sweep, after their flags have been checked. Combinations that name the same run become one run.

    Args:
        commands: the table of commands.
        command: the name of the command, such as `train`.
        combinations: the flags of each run.
        existing: all runs in the results folder.
        queue: the results folder and the state of each job in the queue of a cluster.

    Raises:
        ConfigError: a combination cannot be run.
    """
    known = {key_of(run): run for run in existing}
    plan: dict[str, Planned] = {}
    for combination in combinations:
        try:
            platform, job = commands.parse(command, combination.arguments)
            with installed(platform):
                runner = job.create()
                run, seed = _identify(runner, platform.root)
                plan.setdefault(run.location, Planned(combination, run, seed, *_state(runner, run, known, queue)))
        except ConfigError as error:
            shown = combination.show()
            raise ConfigError(f"{shown}: {error}" if shown else str(error)) from None
    return [*plan.values()]


def key_of(run: Run) -> Key:
    """A key that is equal for two records of the same run."""
    return run.name, run.part, run.seed


def _identify(runner: Runner, root: str) -> tuple[Run, int]:
    """A run without the contents of its folder, and its seed."""
    path = os.path.relpath(runner.output_location, root)
    match = index.SEED.fullmatch(path.split(os.sep)[1])
    assert match is not None  # output locations contain the folder of the seed
    return Run(*index.identify(path), int(match[1]), runner.output_location, (), {}), int(match[1])


def _state(runner: Runner, run: Run, known: Mapping[Key, Run], queue: Mapping[str, str]) -> tuple[str, str]:
    """The state of a run, and details of the state."""
    record = known.get(key_of(run))
    if record is None and run.kind == "extract":
        record = known.get((run.name, "", run.seed))  # its students
    if runner.is_finished:
        return FINISHED, ""
    if record is not None and record.state == index.RUNNING:
        return RUNNING, record.note
    if run.location in queue:
        return QUEUED, queue[run.location]
    if record is None or record.is_empty:
        return NEW, ""
    if record.state == index.FAILED:
        return FAILED, record.note
    return RESUMES, record.note if record.state in (index.INTERRUPTED, index.DAMAGED) else ""


def names_of(plan: Sequence[Planned], existing: Sequence[Run]) -> Names:
    """The short hashes of the runs of a sweep, unique among these runs and all existing runs."""
    return Names([*existing, *(planned.run for planned in plan)])


def tally(states: Sequence[str]) -> str:
    """How often each state occurs, such as `4 finished, 8 new`."""
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


def show(command: str, plan: Sequence[Planned], names: Names) -> str:
    """The plan as text, with one line for the seeds of an experiment that have the same state and note."""
    states = sorted((planned.state for planned in plan), key=STATES.index)
    rows: dict[tuple[str, str, str, str], list[int]] = {}
    for planned in plan:
        key = planned.state, names.short(planned.run), planned.combination.show(SEED), f"({planned.note})" if planned.note else ""
        rows.setdefault(key, []).append(planned.seed)
    lines = [(state, short, seeds_text(seeds), varied, note) for (state, short, varied, note), seeds in rows.items()]
    heading = f"Sweep of {command}: {len(plan)} run{'s' if len(plan) > 1 else ''}, {tally(states)}"
    return "\n".join([heading, *(f"  {line}" for line in tables.aligned(lines))])


def seeds_text(seeds: Sequence[int]) -> str:
    """The text of some seeds, such as `seeds 0-4`."""
    return "seed to be drawn" if seeds == [NOT_CHOSEN] else f"seed{'s' if len(seeds) > 1 else ''} {table.seeds(seeds)}"
