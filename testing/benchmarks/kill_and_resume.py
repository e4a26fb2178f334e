"""Runs that are killed at random and started again: do they end in the bits of the run that nobody disturbed?

Command: python -m testing.benchmarks.kill_and_resume --kills 100
Hardware: 2 CPU cores, busy with other work; OMP_NUM_THREADS=1.
Result: 24 kills, 24 resumed to the same bits.

Small runs of every command, with checkpoints within epochs every few hundredths of a second. Every other kill comes at a moment drawn from
the time that the run takes, the rest in the middle of a write that is drawn from all of its writes: with half of the file written, the
whole of it, or, of checkpoints, between the moments when the old one loses and the new one takes its name. All are `kill -9`. The same
command is then started again, and every file that it leaves is compared with those of the undisturbed run: weights, masks, logs, reports
and records. Checkpoints, pictures, pages, when runs were started, and the seconds in reports are left out. No lock and no half-written
file may be left.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from cli import runner_registry
from testing import child

FREQUENT = child.Checkpoints(between=0, within=0.03)
EXTRACT = (
    "extract", "--default_hparams=students_digits_lenet(3)_8", "--teacher_name=digits_lenet_4", "--teacher_seed=2", "--global_seed=1",
    "--training_steps=100it", "--datagen=digits+random:300", "--gamma=0.7", "--beta=1", "--finetune_training_steps=3it",
)  # fmt: skip
RUNS = {
    "train": ("train", "--default_hparams=digits_lenet_8", "--training_steps=12ep", "--momentum=0.9", "--global_seed=1"),
    "extract": EXTRACT,
    "extract, polished": (*EXTRACT, "--polish_optimizer=levenberg_marquardt", "--polish_steps=3it"),
    "lottery": ("lottery", "--default_hparams=digits_lenet_8", "--training_steps=4ep", "--levels=2", "--global_seed=1"),
}
STAGES = ("half", "whole", "between")
TAKEN_FOR_OVER = 5  # kills in a row that came too late


@dataclass
class Reference:
    """An undisturbed run: the content of its files, how long it took in seconds, and how many files it wrote."""

    contents: dict[str, bytes]
    seconds: float
    writes: int


@dataclass
class Tally:
    """What became of the killed runs of a command: how many were killed at a moment and in a write, and what was amiss afterwards."""

    moments: int = 0
    writes: int = 0
    amiss: list[str] = field(default_factory=list)


def contents(root: str) -> dict[str, bytes]:
    """What a finished run leaves, by path, but for checkpoints, pictures, pages, when it was started, and the seconds in reports."""
    found = {}
    for path in files(root):
        name = os.path.basename(path)
        if name.endswith((".png", ".html")) or name.startswith(("checkpoint", "provenance")):
            continue
        with open(os.path.join(root, path), "rb") as file:
            content = file.read()
        if name == "report.json":
            report = json.loads(content)
            del report["seconds"]
            content = json.dumps(report).replace(root, "").encode()
        found[path] = content
    return found


def files(root: str) -> Iterator[str]:
    """The paths of all files, relative to the root."""
    for folder, _, names in os.walk(root):
        yield from (os.path.relpath(os.path.join(folder, name), root) for name in names)


def undisturbed(arguments: tuple[str, ...]) -> Reference:
    """Runs a command to its end."""
    with tempfile.TemporaryDirectory() as folder:
        root, log = os.path.join(folder, "root"), os.path.join(folder, "writes")
        child.start(root, arguments, FREQUENT).wait()  # whatever the machine does only once
        shutil.rmtree(root)
        begun = time.monotonic()
        status, output = child.start(root, arguments, FREQUENT, child.Writes(log)).wait()
        seconds = time.monotonic() - begun
        if status:
            raise RuntimeError(output)
        with open(log) as file:
            return Reference(contents(root), seconds, len(file.readlines()))


def kill_at_a_moment(root: str, arguments: tuple[str, ...], reference: Reference, draw: random.Random) -> bool:
    """Kills a run at a moment that is drawn; returns whether that came in time."""
    run = child.start(root, arguments, FREQUENT)
    time.sleep(draw.uniform(0, reference.seconds))
    return run.kill()


def kill_in_a_write(root: str, arguments: tuple[str, ...], reference: Reference, draw: random.Random) -> bool:
    """Kills a run in a write that is drawn; returns whether it came to that."""
    death = child.DieInWrite(draw.randint(1, reference.writes), draw.choice(STAGES))
    status, _ = child.start(root, arguments, FREQUENT, death).wait()
    return status == -9


def resume(root: str, arguments: tuple[str, ...], reference: Reference) -> str | None:
    """Starts a killed run again; returns what is amiss in the end."""
    status, output = child.start(root, arguments, FREQUENT).wait()
    if status:
        return f"it ended with {status}: {output[-500:]}"
    left = [path for path in files(root) if os.path.basename(path).startswith(".")]
    found = contents(root)
    other = sorted(path for path in found.keys() | reference.contents.keys() if found.get(path) != reference.contents.get(path))
    return f"left behind: {left}" if left else f"other than undisturbed: {other}" if other else None


def disturb(arguments: tuple[str, ...], reference: Reference, tally: Tally, in_write: bool, draw: random.Random) -> None:
    """Kills a run, starts it again, and looks at it."""
    kill = kill_in_a_write if in_write else kill_at_a_moment
    for _ in range(TAKEN_FOR_OVER):
        with tempfile.TemporaryDirectory() as folder:
            root = os.path.join(folder, "root")
            if kill(root, arguments, reference, draw):
                tally.writes += in_write
                tally.moments += not in_write
                amiss = resume(root, arguments, reference)
                tally.amiss += [amiss] if amiss else []
                return
    raise RuntimeError("the run is over before it can be killed")


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description="Kills runs at random and compares what they come to with undisturbed ones.")
    parser.add_argument("--kills", type=int, default=100, help="of all commands together (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and writes (default: 0)")
    args = parser.parse_args()
    runs = {name: arguments for name, arguments in RUNS.items() if arguments[0] in runner_registry.registered_runners}
    draw, tallies, references = random.Random(args.seed), {name: Tally() for name in runs}, {}
    for name, arguments in runs.items():
        references[name] = undisturbed(arguments)
        print(f"{name}: {references[name].seconds:.1f} s and {references[name].writes} writes undisturbed", flush=True)
    for number in range(args.kills):
        name = list(runs)[number % len(runs)]
        before = len(tallies[name].amiss)
        disturb(runs[name], references[name], tallies[name], bool(number // len(runs) % 2), draw)
        print("".join(f"{name}: {amiss}\n" for amiss in tallies[name].amiss[before:]), end="", flush=True)
    print(f"\n{'':20}killed at a moment  killed in a write  resumed to the same bits")
    for name, tally in tallies.items():
        kills = tally.moments + tally.writes
        print(f"{name:20}{tally.moments:18}{tally.writes:19}{kills - len(tally.amiss):19} of {kills}")
    return int(any(tally.amiss for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
