"""The share of the time of a default extraction that checkpoints take.

Command: python -m testing.benchmarks.checkpoint_cost
Hardware: one CPU core, shared with four other jobs; OMP_NUM_THREADS=1.
Result: 55 checkpoints, 1.1% of the time (n=1).

`extract` runs as from the command line, including the training of its teacher. The benchmark times the checkpoints (collecting the state,
writing it, flushing it to the disk, renaming the file) and, separately, all writes together.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from unittest import mock

import EC
from platforms import base
from training import checkpointing

TARGET = 0.03
COMMAND = ("extract", "--default_hparams=students_digits_lenet", "--global_seed=1", "--quiet")


class Timed:
    """A function that counts its calls and sums the seconds that they take."""

    def __init__(self, function: Callable):
        self.function, self.calls, self.seconds = function, 0, 0.0

    def __call__(self, *args: object, **options: object) -> object:
        begun = time.perf_counter()
        try:
            return self.function(*args, **options)
        finally:
            self.calls += 1
            self.seconds += time.perf_counter() - begun


def main() -> int:
    """Runs the benchmark; returns the exit status."""
    argparse.ArgumentParser(description="Times the checkpoints of an extraction with the defaults.").parse_args()
    save, write = Timed(checkpointing.save), Timed(base.Platform.write)
    with (
        tempfile.TemporaryDirectory(dir=".") as folder,
        mock.patch.dict(os.environ, EC_ROOT=folder),
        mock.patch.object(checkpointing, "save", save),
        mock.patch.object(base.Platform, "write", staticmethod(write)),
    ):
        begun = time.perf_counter()
        status = EC.main(COMMAND)
        seconds = time.perf_counter() - begun
    for name, timed in (("checkpoints", save), ("all writes", write)):
        print(f"{name:12}{timed.calls:4}   {timed.seconds:6.2f} s of {seconds:.1f} s   {timed.seconds / seconds:.1%}")
    return int(status != 0 or save.seconds > TARGET * seconds)


if __name__ == "__main__":
    sys.exit(main())
