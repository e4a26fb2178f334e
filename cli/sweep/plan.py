"""What a sweep is to run, and how things stand with it, known before anything runs."""

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
from platforms.base import installed

FINISHED, RUNNING, RESUMES, FAILED, QUEUED, NEW = STATES = "finished", "running", "resumes", "failed", "queued", "new"
SEED = "global_seed"
Key = tuple[str, str, "int | None"]


@dataclass(frozen=True)
class Planned:
    """One run of a sweep.

    Attributes:
        combination: the flags that make it.
        run: where its results are or will be, without what is there.
        state: one of STATES.
        note: what there is to say of the state.
    """

    combination: Combination
    run: Run
    state: str = NEW
    note: str = ""


def make(
    commands: Commands, command: str, combinations: Sequence[Combination], existing: Sequence[Run], queue: Mapping[str, str]
) -> list[Planned]:
    """Every run of a sweep, checked; combinations that name the same run are planned once.

    Args:
        commands: the table of commands.
        command: such as `train`.
        combinations: the flags of each.
        existing: all runs under the root.
        queue: the folders of results that a job of a cluster is to fill, each with how the job stands.

    Raises:
        ConfigError: a combination cannot be run.
    """
    known = {key_of(run): run for run in existing}
    found: dict[str, Planned] = {}
    for combination in combinations:
        try:
            where, job = commands.parse(command, combination.arguments)
            with installed(where):
                runner = job.create()
                run = _run_of(runner, where.root)
                found.setdefault(run.location, Planned(combination, run, *_state(runner, run, known, queue)))
        except ConfigError as error:
            shown = combination.show()
            raise ConfigError(f"{shown}: {error}" if shown else str(error)) from None
    return [*found.values()]


def key_of(run: Run) -> Key:
    """What two records of the same run have in common."""
    return run.name, run.part, run.seed


def _run_of(runner: Runner, root: str) -> Run:
    """The name, part and seed of a run, with nothing of what is in its folder."""
    path = os.path.relpath(runner.output_location, root)
    return Run(*index.place_of(path), int(index.SEED.fullmatch(path.split(os.sep)[1])[1]), runner.output_location, (), {})


def _state(runner: Runner, run: Run, known: Mapping[Key, Run], queue: Mapping[str, str]) -> tuple[str, str]:
    """How things stand with a run, and what there is to say of it."""
    there = known.get(key_of(run))
    if there is None and run.kind == "extract":
        there = known.get((run.name, "", run.seed))  # its students
    if runner.is_finished:
        return FINISHED, ""
    if there is not None and there.state == index.RUNNING:
        return RUNNING, there.note
    if run.location in queue:
        return QUEUED, queue[run.location]
    if there is None:
        return NEW, ""
    if there.state == index.FAILED:
        return FAILED, there.note
    return RESUMES, there.note if there.state in (index.INTERRUPTED, index.DAMAGED) else ""


def names_of(plan: Sequence[Planned], existing: Sequence[Run]) -> Names:
    """Short hashes that tell the runs of a sweep from each other and from all others."""
    return Names([*existing, *(planned.run for planned in plan)])


def tally(words: Sequence[str]) -> str:
    """How often each of some words comes, such as `4 finished, 8 new`."""
    return ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))


def show(command: str, plan: Sequence[Planned], names: Names) -> str:
    """The plan as text: a line for each experiment, its seeds together where the same is to be said of them."""
    states = sorted((planned.state for planned in plan), key=STATES.index)
    rows: dict[tuple[str, ...], list[int]] = {}
    for planned in plan:
        key = planned.state, names.short(planned.run), planned.combination.show(SEED), f"({planned.note})" if planned.note else ""
        rows.setdefault(key, []).append(planned.run.seed)
    lines = [(state, short, seeds_text(seeds), differs, note) for (state, short, differs, note), seeds in rows.items()]
    heading = f"Sweep of {command}: {len(plan)} run{'s' if len(plan) > 1 else ''}, {tally(states)}"
    return "\n".join([heading, *(f"  {line}" for line in tables.aligned(lines))])


def seeds_text(seeds: Sequence[int]) -> str:
    """Seeds as they are shown beside a hash."""
    return "seed to be drawn" if seeds == [-1] else f"seed{'s' if len(seeds) > 1 else ''} {table.seeds(seeds)}"
