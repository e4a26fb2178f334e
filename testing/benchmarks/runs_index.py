"""The command `runs` on 10,000 run folders: listed, filtered, sorted and compared.

Command: python -m testing.benchmarks.runs_index
Hardware: one of 2 CPU cores of an idle machine.
Result: imports 0.20 s. With one seed a hash list 0.97 s, filter 0.63, sort 1.03, json 1.08, diff 0.46; with five list 0.60, filter 0.68,
sort 0.58, json 0.55, diff 0.24 (shortest of 3); reading alone takes a third of a second.

Imports are timed in new processes, and must import neither torch nor numpy. The processor time of each command is printed together with its
ratio to the time of reading the same records and logs alone, which the disk and the JSON parser need. The ratio shows what `runs` adds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from unittest import mock

import EC
from foundations import paths
from testing import run_folders

RUNS, SEEDS, REPEATS = 10_000, (1, 5), 3
MOST_SECONDS, MOST_IMPORT_SECONDS = 1.0, 0.5
QUESTIONS = {
    "list": [],
    "filter": ["--where", "lr<0.2 and (act_fun=tanh or test_accuracy>0.8)"],
    "sort": ["--sort", "test_accuracy:desc"],
    "json": ["--format", "json"],
}
IMPORT = (
    "import time; begun = time.perf_counter(); import EC; "
    "print(time.perf_counter() - begun); import sys; assert not {'torch', 'numpy'} & set(sys.modules)"
)


def make(root: str, seeds: int) -> list[str]:
    """Writes the runs, with this number of seeds per experiment; returns their folders."""
    descs = (run_folders.training(0.0001 * (1 + number), ("relu", "tanh")[number % 2]) for number in range(RUNS // seeds))
    return [run_folders.train_run(root, desc, seed, 0.5 + seed / 100) for desc in descs for seed in range(seeds)]


def seconds(function: Callable[[], object]) -> tuple[float, float]:
    """The shortest wall-clock time and the shortest processor time of a few calls; other processes may use the machine."""
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter(), time.process_time()
        function()
        times.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
    return min(each[0] for each in times), min(each[1] for each in times)


def ask(*arguments: str) -> None:
    """Runs the command `runs` and discards its output."""
    with contextlib.redirect_stdout(io.StringIO()):
        status = EC.main(["runs", *arguments])
    assert status == 0, arguments


def read_alone(folders: list[str]) -> None:
    """Lists all folders, parses their records and reads their logs."""
    for folder in folders:
        os.listdir(folder)
        with open(paths.hparams_dict(folder), "rb") as record, open(paths.logger(folder), "rb") as log:
            json.loads(record.read()), log.read()


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    argparse.ArgumentParser(description="Times the command `runs` on 10,000 run folders.").parse_args()
    checkout = os.path.dirname(os.path.abspath(EC.__file__))
    found = [subprocess.run([sys.executable, "-c", IMPORT], cwd=checkout, capture_output=True, check=True) for _ in range(REPEATS)]
    imports = min(float(each.stdout) for each in found)
    print(f"imports   {imports:.2f} s")
    worst = max(question(seeds) for seeds in SEEDS)
    return int(imports > MOST_IMPORT_SECONDS or worst > MOST_SECONDS)


def question(seeds: int) -> float:
    """Times all commands on experiments with this number of seeds; returns the longest wall-clock time."""
    with tempfile.TemporaryDirectory(dir=".") as root, mock.patch.dict(os.environ, EC_ROOT=root):
        begun = time.perf_counter()
        folders = make(root, seeds)
        print(f"{len(folders):,} folders, {seeds} a hash, made in {time.perf_counter() - begun:.1f} s")
        _, baseline = seconds(lambda: read_alone(folders))
        hashes = [os.path.relpath(folder, root).split(os.sep)[0] for folder in (folders[0], folders[-1])]
        longest = 0.0
        for name, arguments in {**QUESTIONS, "diff": ["diff", *hashes]}.items():
            clock, processor = seconds(lambda arguments=arguments: ask(*arguments))
            longest = max(longest, clock)
            print(
                f"{name:9} {clock:.2f} s, {processor:.2f} s of the processor, {processor / baseline:.1f} times the time of reading alone",
                flush=True,
            )
    return longest


if __name__ == "__main__":
    sys.exit(main())
