"""A command in a separate process, which a test can kill at a chosen place.

The processes are forked from one that has imported all modules, so that they start fast.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from types import FrameType

import scipy.optimize  # noqa: F401
import sklearn.datasets  # noqa: F401
import torch
import torch._dynamo  # noqa: F401
from tqdm import tqdm

import EC
from extraction import certificate, evaluation, plotting, search  # noqa: F401
from foundations import json_text
from platforms import base
from pruning import base as pruning
from pruning.mask import Mask
from training import checkpointing, train
from training.plotting import drawing

with drawing():
    import matplotlib.figure  # noqa: F401  imported here once, not in every process

SECONDS = 300.0  # a command that takes longer counts as hanging
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])


@dataclass
class Child:
    """A running command; `output` is the file of its standard output and standard error."""

    process: BaseProcess
    output: str

    def wait(self, seconds: float = SECONDS) -> tuple[int, str]:
        """Waits for its end; returns its exit status, negative for the signal that killed it, and its output."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.kill()
            raise TimeoutError(f"a command takes more than {seconds:.0f} seconds")
        with open(self.output) as file:
            return self.process.exitcode, file.read()

    def kill(self) -> bool:
        """Kills it, as a power cut would; returns whether it was still running."""
        self.process.kill()
        self.process.join()
        return self.process.exitcode == -signal.SIGKILL


def start(root: str, arguments: Sequence[str], *interferences: Callable[[], None]) -> Child:
    """Starts `EC.py` on the CPU.

    Args:
        root: the folder of results; the output goes to a file beside it.
        arguments: of the command.
        interferences: called in the process before the command begins; they must be picklable.
    """
    descriptor, output = tempfile.mkstemp(".log", dir=os.path.dirname(root))
    os.close(descriptor)
    process = CONTEXT.Process(target=_run, args=(root, list(arguments), output, interferences))
    process.start()
    return Child(process, output)


def contents(root: str) -> dict[str, bytes]:
    """The files of a finished run, by path, without checkpoints, pictures, pages, start times, and the seconds in reports."""
    found = {}
    for path in files(root):
        name = os.path.basename(path)
        if name.endswith((".png", ".html")) or name.startswith(("checkpoint", "progress", "provenance")):
            continue
        with open(os.path.join(root, path), "rb") as file:
            content = file.read()
        if name == "report.json":
            report = json.loads(content)
            del report["seconds"]
            content = json_text.dumps(report).replace(root, "").encode()
        found[path] = content
    return found


def files(root: str) -> Iterator[str]:
    """The paths of all files, relative to the root."""
    for folder, _, names in os.walk(root):
        yield from (os.path.relpath(os.path.join(folder, name), root) for name in names)


def _run(root: str, arguments: list[str], output: str, interferences: Sequence[Callable[[], None]]) -> None:
    folders = {f"EC_{name}ROOT": os.path.join(root, folder) for name, folder in (("", ""), ("DATASET_", "datasets"), ("BORUTA_", "boruta"))}
    os.environ.update(folders, CUDA_VISIBLE_DEVICES="")
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in the foreground, even if the tests run in the background
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # tqdm's own lock would outlive killed processes
    sys.argv = ["EC.py", *arguments]
    for interference in interferences:
        interference()
    sys.exit(EC.main(arguments))


@dataclass(frozen=True)
class Checkpoints:
    """Makes checkpoints frequent: the seconds between those after epochs, and between those within epochs."""

    between: float = 0
    within: float = 0

    def __call__(self) -> None:
        train.CHECKPOINT_SECONDS, train.CHECKPOINT_SECONDS_WITHIN, checkpointing.TIME_SHARE = self.between, self.within, 1.0


@dataclass(frozen=True)
class Writes:
    """Logs the path of every durable write in a file, which several processes may share."""

    log: str

    def __call__(self) -> None:
        write = base.Platform.write

        def noted(path: str, content: str | bytes, keep: str | None = None, durable: bool = True) -> None:
            write(path, content, keep, durable)
            if durable:
                with open(self.log, "a") as file:
                    file.write(f"{os.getpid()} {path}\n")

        base.Platform.write = staticmethod(noted)


@dataclass(frozen=True)
class DieInWrite:
    """Kills the process in the middle of a durable write, counted from 1.

    Stages: `half`: half of the file is written. `whole`: all of it is written. `between`: an old file that is kept is renamed, and the new
    file is not renamed yet. `placed`: the new file has its final name.
    """

    number: int
    stage: str

    def __call__(self) -> None:
        fsync, replace, written = os.fsync, os.replace, 0

        def fsync_and_die(descriptor: int) -> None:
            nonlocal written
            about = os.fstat(descriptor)
            written += stat.S_ISREG(about.st_mode)
            if written == self.number and self.stage == "half":
                os.ftruncate(descriptor, about.st_size // 2)
            fsync(descriptor)
            if written == self.number and self.stage in ("half", "whole"):
                os.kill(os.getpid(), signal.SIGKILL)

        def replace_and_die(source: str, target: str) -> None:
            replace(source, target)
            if written == self.number and (self.stage == "between" or source.endswith(".new")):
                os.kill(os.getpid(), signal.SIGKILL)

        os.fsync, os.replace = fsync_and_die, replace_and_die


@dataclass(frozen=True)
class DieInPruning:
    """Kills the process at a line of Python that pruning or the writing of masks executes, and logs the number of executed lines.

    Lines are counted from 1; with 0 the process is not killed.
    """

    line: int
    log: str

    def __call__(self) -> None:
        come_to = 0

        def trace(frame: FrameType, event: str, _: object) -> Callable:
            nonlocal come_to
            come_to += event == "line"
            if come_to == self.line and event == "line":
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        def traced(function: Callable) -> Callable:
            def run(*args: object, **options: object) -> object:
                before = sys.gettrace()
                sys.settrace(trace)
                try:
                    return function(*args, **options)
                finally:
                    sys.settrace(before)
                    with open(self.log, "w") as file:
                        file.write(str(come_to))

            return run

        pruning.Strategy.prune = classmethod(traced(pruning.Strategy.prune.__func__))
        pruning.prune_lowest = traced(pruning.prune_lowest)
        Mask.save = traced(Mask.save)


@dataclass(frozen=True)
class DiskFull:
    """Makes the disk full in the middle of a write, counted from 1 among the writes of paths that contain `part`.

    The old content of the file is copied to `before`. A file `ballast` fills up the disk. Without `ballast`, the size of files is limited
    instead, which needs no separate disk.
    """

    part: str
    number: int
    before: str
    ballast: str | None = None

    def __call__(self) -> None:
        write, seen = base.Platform.write, 0

        def write_where_there_is_no_room(path: str, content: str | bytes, keep: str | None = None, durable: bool = True) -> None:
            nonlocal seen
            seen += self.part in path
            if seen == self.number and self.part in path:
                if os.path.exists(path):
                    shutil.copy(path, self.before)
                room = len(content) // 2
                if self.ballast:
                    fill(self.ballast, room)
                else:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
            write(path, content, keep, durable)

        base.Platform.write = staticmethod(write_where_there_is_no_room)


def fill(ballast: str, room: int) -> None:
    """Fills up a disk with a file, except for `room` bytes or a few less."""
    with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(resource.getpagesize())):
            pass
    os.truncate(ballast, max(0, os.path.getsize(ballast) - room))
