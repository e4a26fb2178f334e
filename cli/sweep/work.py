"""Running what a sweep has planned, one after the other here, or side by side in processes of their own.

A process runs one command after another, for to start takes longer than many a run. It has its share of the cores and, where there are
several, one of the GPUs. Signals that ask to stop are handed on to it, a Ctrl-C is not: so its runs stop with their checkpoints written.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection

from cli.commands import Commands
from foundations.errors import Busy, ConfigError, one_line, reason
from platforms.system import provenance, signals

FINISHED, FAILED, BUSY, STOPPED = "finished", "failed", "left to others", "stopped"
GLANCE_SECONDS = 0.2  # between looks whether somebody has asked to stop


@dataclass(frozen=True)
class Task:
    """A command to run; where others are at work on the same run, it waits for them or is put off."""

    command: str
    arguments: tuple[str, ...]
    wait: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of a task: FINISHED, FAILED, BUSY or STOPPED, and why, in one line."""

    state: str
    why: str = ""

    @property
    def is_over(self) -> bool:
        """Whether that is all that can be done about it now."""
        return self.state in (FINISHED, FAILED)


def run(commands: Commands, task: Task, **changes: object) -> Outcome:
    """Runs a task in this process, as its command would; keyword arguments stand in for values of flags."""
    try:
        platform, job = commands.parse(task.command, task.arguments)
        with provenance.command_line([task.command, *task.arguments]):
            dataclasses.replace(platform, wait=platform.wait and task.wait).run_job(lambda: job(**changes))
    except Busy as error:
        return Outcome(BUSY, one_line(str(error)))
    except ConfigError as error:
        return Outcome(FAILED, one_line(str(error)))
    except signals.Stopped as stopped:
        return Outcome(STOPPED, str(stopped))
    except Exception as error:  # a defect in one run is no reason to leave out the others
        traceback.print_exc(file=sys.stderr)
        return Outcome(FAILED, one_line(f"{type(error).__name__}: {reason(error)}"))
    return Outcome(FINISHED)


class _Queue:
    """Tasks in their order, with their places; those that others are at work on come again at the end, and wait then."""

    def __init__(self, tasks: Sequence[Task]):
        self._tasks, self._waiting = [*tasks], collections.deque(range(len(tasks)))

    def next(self) -> tuple[int, Task] | None:
        """The next one; None where there is none, or somebody has asked to stop."""
        if signals.requested() or not self._waiting:
            return None
        place = self._waiting.popleft()
        return place, self._tasks[place]

    def note(self, place: int, outcome: Outcome) -> None:
        """Takes a task back that has been put off."""
        if outcome.state == BUSY and not self._tasks[place].wait:
            self._tasks[place] = dataclasses.replace(self._tasks[place], wait=True)
            self._waiting.append(place)


def one_by_one(commands: Commands, tasks: Sequence[Task], begin: Callable[[int], None]) -> Iterator[tuple[int, Outcome]]:
    """Runs tasks here, telling the place of each before; gives the place of each and what came of it, until somebody asks to stop."""
    queue = _Queue(tasks)
    while (found := queue.next()) is not None:
        place, task = found
        begin(place)
        outcome = run(commands, task)
        queue.note(place, outcome)
        yield place, outcome


class _Worker:
    """A process that runs one task at a time; `place` is that of its task, None where it has none."""

    def __init__(self, commands: Commands, environment: Mapping[str, str], threads: int):
        context = multiprocessing.get_context("spawn")  # a fork of a process that has computed may hang
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(commands, theirs, threads))
        self.place: int | None = None
        with _starting(environment):
            self.process.start()
        theirs.close()

    def give(self, place: int, task: Task) -> None:
        """Has it run a task."""
        self.place = place
        with contextlib.suppress(OSError):  # it has died, which its end of the pipe tells
            self.connection.send(task)

    def take(self) -> Outcome:
        """What came of its task, once there is something to read."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
            return Outcome(STOPPED if signals.requested() else FAILED, f"its process {how}")

    def end(self, at_once: bool) -> None:
        """Lets it go when it has nothing more to do, or kills it."""
        if at_once:
            self.process.kill()
        self.connection.close()
        self.process.join()


def side_by_side(commands: Commands, tasks: Sequence[Task], processes: int) -> Iterator[tuple[int, Outcome]]:
    """Runs tasks in several processes, quietly; gives the place of each and what came of it, as they end, until somebody asks to stop."""
    queue, places, at_once = _Queue(tasks), surroundings(min(processes, len(tasks))), True
    workers: dict[int, _Worker] = {}
    try:
        while True:
            for number in range(len(places)):
                if (number not in workers or workers[number].place is None) and (found := queue.next()) is not None:
                    if number not in workers:
                        workers[number] = _Worker(commands, *places[number])
                    workers[number].give(*found)
            busy = {worker.connection: number for number, worker in workers.items() if worker.place is not None}
            if not busy:
                break
            _hand_on([workers[number] for number in busy.values()])
            for ready in connection.wait([*busy], GLANCE_SECONDS):
                worker = workers[busy[ready]]
                outcome, place, worker.place = worker.take(), worker.place, None
                if outcome.state == STOPPED or not worker.process.is_alive():
                    workers.pop(busy[ready]).end(at_once=False)  # where there is more to do, another one does it
                queue.note(place, outcome)
                yield place, outcome
        at_once = False
    finally:
        for worker in workers.values():
            worker.end(at_once)


def _hand_on(workers: Sequence[_Worker]) -> None:
    """Asks processes to stop where this one has been asked to."""
    if signals.requested():
        for worker in workers:
            with contextlib.suppress(OSError):
                worker.process.terminate()


def surroundings(processes: int) -> list[tuple[dict[str, str], int]]:
    """For each of some processes variables of its environment, and the number of its threads."""
    import torch

    threads = max(1, torch.get_num_threads() // processes)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    found = []
    for number in range(processes):
        environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        if len(devices) > 1:
            environment["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
        found.append((environment, threads))
    return found


@contextlib.contextmanager
def _starting(environment: Mapping[str, str]) -> Iterator[None]:
    """Has the processes that the block starts find some variables set, and pass over a Ctrl-C, which this process hears for them."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(commands: Commands, tasks: connection.Connection, threads: int) -> None:
    """What a process does: it runs the tasks that come, and tells what came of them, until nobody is there any more."""
    import torch

    torch.set_num_threads(threads)
    with signals.watching(), contextlib.suppress(EOFError, OSError):
        while True:
            task = tasks.recv()
            tasks.send(Outcome(STOPPED) if signals.requested() else run(commands, task, quiet=True))
