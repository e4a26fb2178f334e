"""Whether runs that are killed at random and resumed end with the same bits as an undisturbed run.

Command: python -m testing.benchmarks.kill_and_resume --kills 100
Hardware: one CPU core, shared with other jobs; OMP_NUM_THREADS=1.
Result: 100 kills (44 at a moment, 40 in a write, 16 in pruning), 100 resumed to the same bits; 9 minutes.

Small runs of every command write checkpoints within epochs every few hundredths of a second. All kills are `kill -9`, in three ways, which
take turns. 'at a moment': at a random time of the run. 'in a write': in a random write, when half of the file or all of it is written; for
checkpoints also between the renaming of the old file and that of the new one, or just after that, before the progress of the run is
written. 'in pruning', for runs that prune: at a random line of Python that pruning or the writing of masks executes.
The same command is then started again, and its files are compared with those of the undisturbed run: weights, masks, logs, reports and
records. Not compared are checkpoints, pictures, pages, start times, and the seconds in reports. No lock and no half-written file may be
left.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from foundations import tables
from testing import child

FREQUENT = child.Checkpoints(between=0, within=0.03)
EXTRACT = (
    "extract", "--default_hparams=students_digits_lenet(3)_8", "--teacher_name=digits_lenet_4", "--teacher_seed=2", "--global_seed=1",
    "--training_steps=100it", "--datagen=digits+random:300", "--gamma=0.7", "--beta=1", "--finetune_training_steps=3it",
)  # fmt: skip
LOTTERY = ("lottery", "--default_hparams=digits_lenet_8", "--training_steps=3ep", "--rewinding_steps=5it", "--global_seed=1", "--levels=2")
STAGES = ("half", "whole", "between", "placed")
MOMENT, WRITE, PRUNING = "at a moment", "in a write", "in pruning"
TAKEN_FOR_OVER = 5  # consecutive kills that come too late before the benchmark gives up


@dataclass(frozen=True)
class Run:
    """A command, the command that must run before it, and the ways to kill it, which take turns."""

    arguments: tuple[str, ...]
    before: tuple[str, ...] | None = None
    ways: tuple[str, ...] = (MOMENT, WRITE)


RUNS = {
    "train": Run(("train", "--default_hparams=digits_lenet_8", "--training_steps=12ep", "--momentum=0.9", "--global_seed=1")),
    "extract": Run(EXTRACT),
    "extract, polished": Run((*EXTRACT, "--polish_optimizer=levenberg_marquardt", "--polish_steps=3it")),
    "lottery": Run(LOTTERY, ways=(MOMENT, WRITE, PRUNING)),
    "lottery, snip": Run((*LOTTERY, "--pruning_strategy=snip"), ways=(PRUNING, MOMENT, WRITE)),
    "lottery_branch": Run(("lottery_branch", "randomly_prune", *LOTTERY[1:]), before=LOTTERY, ways=(MOMENT, WRITE, PRUNING)),
}


@dataclass
class Reference:
    """An undisturbed run.

    Attributes:
        run: the command.
        start: the folder that the run starts from.
        contents: the contents of its files at the end, by path.
        seconds: an upper bound of its duration.
        writes: the number of files that it writes.
        lines: the number of lines of Python that its pruning executes.
    """

    run: Run
    start: str
    contents: dict[str, bytes]
    seconds: float
    writes: int
    lines: int


@dataclass
class Tally:
    """The killed runs of a command: how many were killed in each way, and what was wrong after they were resumed."""

    killed: Counter[str] = field(default_factory=Counter)
    amiss: list[str] = field(default_factory=list)


def undisturbed(run: Run, folder: str) -> Reference:
    """Runs a command to its end, from a folder that stays unchanged."""
    start, root, writes, lines = (os.path.join(folder, name) for name in ("start", "root", "writes", "lines"))
    os.mkdir(start)
    if run.before:
        finish(start, run.before)
    for _ in range(2):  # the first run warms up the machine
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(start, root)
        begun = time.monotonic()
        finish(root, run.arguments)
        seconds = time.monotonic() - begun
    found = child.contents(root)
    shutil.rmtree(root)
    shutil.copytree(start, root)
    finish(root, run.arguments, child.Writes(writes), child.DieInPruning(0, lines))
    counts = [len(Path(writes).read_text().splitlines()), int(Path(lines).read_text()) if os.path.exists(lines) else 0]
    return Reference(run, start, found, seconds, *counts)


def finish(root: str, arguments: tuple[str, ...], *interferences: Callable[[], None]) -> None:
    """Runs a command to its end; raises a RuntimeError if its exit status is not 0."""
    status, output = child.start(root, arguments, FREQUENT, *interferences).wait()
    if status:
        raise RuntimeError(f"it ended with {status}: {output[-500:]}")


def kill(way: str, root: str, reference: Reference, draw: random.Random) -> bool:
    """Starts a run and kills it at a random place; returns whether it was killed before its end."""
    arguments = reference.run.arguments
    if way == MOMENT:
        started, moment = child.start(root, arguments, FREQUENT), draw.uniform(0, reference.seconds)
        time.sleep(moment)
        killed = started.kill()
        if not killed:  # the machine was busier when the run was timed
            reference.seconds = moment
        return killed
    if way == WRITE:
        death = child.DieInWrite(draw.randint(1, reference.writes), draw.choice(STAGES))
    else:
        death = child.DieInPruning(draw.randint(1, reference.lines), f"{root}.lines")
    status, _ = child.start(root, arguments, FREQUENT, death).wait()
    return status == -signal.SIGKILL


def resume(root: str, reference: Reference) -> str | None:
    """Resumes a killed run; returns what is wrong at the end, None if nothing is."""
    try:
        finish(root, reference.run.arguments)
    except RuntimeError as error:
        return str(error)
    left = [path for path in child.files(root) if os.path.basename(path).startswith(".")]
    found = child.contents(root)
    other = sorted(path for path in found.keys() | reference.contents.keys() if found.get(path) != reference.contents.get(path))
    return f"left behind: {left}" if left else f"different from the undisturbed run: {other}" if other else None


def disturb(reference: Reference, tally: Tally, draw: random.Random) -> None:
    """Kills a run in the way whose turn it is, resumes it, and records what is wrong."""
    way = reference.run.ways[tally.killed.total() % len(reference.run.ways)]
    for _ in range(TAKEN_FOR_OVER):
        with tempfile.TemporaryDirectory() as folder:
            root = os.path.join(folder, "root")
            shutil.copytree(reference.start, root)
            if kill(way, root, reference, draw):
                tally.killed[way] += 1
                amiss = resume(root, reference)
                tally.amiss += [f"killed {way}: {amiss}"] if amiss else []
                return
    raise RuntimeError("the run ends before it can be killed")


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description="Kills runs at random, resumes them, and compares them with undisturbed runs.")
    parser.add_argument("--kills", type=int, default=100, help="number of kills of all commands together (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the places where runs are killed (default: 0)")
    args = parser.parse_args()
    draw, tallies, references = random.Random(args.seed), {name: Tally() for name in RUNS}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, run in RUNS.items():
            os.mkdir(os.path.join(folder, name))
            made = references[name] = undisturbed(run, os.path.join(folder, name))
            print(f"{name}: {made.seconds:.1f} s, {made.writes} writes and {made.lines:,} lines of pruning undisturbed", flush=True)
        for number in range(args.kills):
            name = list(RUNS)[number % len(RUNS)]
            before = len(tallies[name].amiss)
            disturb(references[name], tallies[name], draw)
            print("".join(f"\n{name}: {amiss}\n" for amiss in tallies[name].amiss[before:]) or ".", end="", flush=True)
    ways = MOMENT, WRITE, PRUNING
    rows = [["killed", *ways, "resumed to the same bits"]]
    for name, tally in tallies.items():
        kills = tally.killed.total()
        rows.append([name, *(str(tally.killed[way]) for way in ways), f"{kills - len(tally.amiss):>14} of {kills}"])
    print("\n".join(["\n", *tables.aligned(rows, "<>>><", (17, 10, 10, 10, 0), gap="   ")]))
    return int(any(tally.amiss for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
