"""Runs the tasks of a sweep: in sequence in this process, or in parallel in worker processes.

A worker process runs many tasks, because it takes longer to start a process than to finish a short run. The workers share the CPU cores
and, if there are several, the GPUs. This process passes stop signals on to its workers, which then write checkpoints and stop. Workers
ignore Ctrl-C, which this process handles for them.
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

FINISHED, FAILED, BUSY, STOPPED = "finished", "failed", "busy", "stopped"
POLL_SECONDS = 0.2  # the interval at which this process checks for a stop signal


class Defect(Exception):
    """A run has raised an error that no input of the user explains."""


@dataclass(frozen=True)
class Task:
    """A command to run.

    Attributes:
        command: the name of the command.
        arguments: its flags and values.
        wait: whether the task waits while another process works on the same run. If not, its outcome is BUSY.
    """

    command: str
    arguments: tuple[str, ...]
    wait: bool = False


@dataclass(frozen=True)
class Outcome:
    """The outcome of a task.

    Attributes:
        state: FINISHED, FAILED, BUSY or STOPPED.
        reason: the reason for the state, in one line.
    """

    state: str
    reason: str = ""

    @property
    def is_final(self) -> bool:
        """Whether this sweep will not run the task again."""
        return self.state in (FINISHED, FAILED)


def run(commands: Commands, task: Task, **changes: object) -> Outcome:
    """Runs a task in this process, as its command would. Keyword arguments replace the values of flags."""
    try:
        _run_job(commands, task, changes)
    except Busy as error:
        return Outcome(BUSY, one_line(str(error)))
    except (ConfigError, Defect) as error:
        return Outcome(FAILED, one_line(str(error)))
    except signals.Stopped as stopped:
        return Outcome(STOPPED, str(stopped))
    return Outcome(FINISHED)


def _run_job(commands: Commands, task: Task, changes: Mapping[str, object]) -> None:
    """Runs a task.

    Raises:
        ConfigError: the task cannot be run, or another process works on the same run.
        Defect: the task has raised any other error, whose traceback is on stderr. The sweep continues with its other tasks.
    """
    try:
        platform, job = commands.parse(task.command, task.arguments)
        with provenance.command_line([task.command, *task.arguments]):
            dataclasses.replace(platform, wait=platform.wait and task.wait).run_job(lambda: job(**changes))
    except ConfigError:
        raise
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        raise Defect(f"{type(error).__name__}: {reason(error)}") from error


class _Queue:
    """Tasks in their order, with their indices. Tasks that were busy run again at the end, and then wait."""

    def __init__(self, tasks: Sequence[Task]):
        self._tasks, self._waiting = [*tasks], collections.deque(range(len(tasks)))

    def next(self) -> tuple[int, Task] | None:
        """The index of the next task, and the task; None after the last task or a stop signal."""
        if signals.requested() or not self._waiting:
            return None
        index = self._waiting.popleft()
        return index, self._tasks[index]

    def requeue_if_busy(self, index: int, outcome: Outcome) -> None:
        """Adds a task to the end of the queue if it was busy for the first time."""
        if outcome.state == BUSY and not self._tasks[index].wait:
            self._tasks[index] = dataclasses.replace(self._tasks[index], wait=True)
            self._waiting.append(index)


def run_in_sequence(commands: Commands, tasks: Sequence[Task], on_start: Callable[[int], None]) -> Iterator[tuple[int, Outcome]]:
    """Runs tasks in this process until all have run or a stop signal arrives.

    Args:
        commands: the table of commands.
        tasks: in the order in which they run.
        on_start: a function that is called with the index of each task before the task runs.

    Yields:
        The index of each task and its outcome.
    """
    queue = _Queue(tasks)
    while (entry := queue.next()) is not None:
        index, task = entry
        on_start(index)
        outcome = run(commands, task)
        queue.requeue_if_busy(index, outcome)
        yield index, outcome


class _Worker:
    """A process that runs one task at a time.

    Attributes:
        connection: this process's end of the pipe to the worker.
        process: the worker process.
        index: the index of the current task; None for an idle worker.
    """

    def __init__(self, commands: Commands, environment: Mapping[str, str], threads: int):
        context = multiprocessing.get_context("spawn")  # a forked child of a process that has used torch may hang
        self.connection, worker_end = context.Pipe()
        self.process = context.Process(target=_worker_loop, args=(commands, worker_end, threads))
        self.index: int | None = None
        with _child_environment(environment):
            self.process.start()
        worker_end.close()

    def send(self, index: int, task: Task) -> None:
        """Sends a task to the worker."""
        self.index = index
        with contextlib.suppress(OSError):  # the worker has died; `receive` reports that
            self.connection.send(task)

    def receive(self) -> tuple[int, Outcome]:
        """The index of the current task and its outcome, once the connection is readable. The worker is idle afterwards."""
        assert self.index is not None
        index, self.index = self.index, None
        try:
            return index, self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            assert code is not None  # the process has ended
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"
            return index, Outcome(STOPPED if signals.requested() else FAILED, f"its process {how}")

    def close(self, kill: bool) -> None:
        """Ends the worker: at once, or after its current task."""
        if kill:
            self.process.kill()
        self.connection.close()
        self.process.join()


def run_in_parallel(commands: Commands, tasks: Sequence[Task], processes: int) -> Iterator[tuple[int, Outcome]]:
    """Runs tasks in worker processes, without their output, until all have run or a stop signal arrives.

    Args:
        commands: the table of commands.
        tasks: in the order in which they start.
        processes: the largest number of workers.

    Yields:
        The index of each task and its outcome, in the order in which the tasks end.
    """
    queue, environments, kill = _Queue(tasks), worker_environments(min(processes, len(tasks))), True
    workers: dict[int, _Worker] = {}
    try:
        while True:
            for number in range(len(environments)):
                if (number not in workers or workers[number].index is None) and (entry := queue.next()) is not None:
                    if number not in workers:
                        workers[number] = _Worker(commands, *environments[number])
                    workers[number].send(*entry)
            busy: dict[object, int] = {worker.connection: number for number, worker in workers.items() if worker.index is not None}
            if not busy:
                break
            _forward_stop([workers[number] for number in busy.values()])
            for ready in connection.wait([workers[number].connection for number in busy.values()], POLL_SECONDS):
                worker = workers[busy[ready]]
                index, outcome = worker.receive()
                if outcome.state == STOPPED or not worker.process.is_alive():
                    workers.pop(busy[ready]).close(kill=False)  # a new worker takes over if more tasks are waiting
                queue.requeue_if_busy(index, outcome)
                yield index, outcome
        kill = False
    finally:
        for worker in workers.values():
            worker.close(kill)


def _forward_stop(workers: Sequence[_Worker]) -> None:
    """Terminates workers if this process has received a stop signal."""
    if signals.requested():
        for worker in workers:
            with contextlib.suppress(OSError):
                worker.process.terminate()


def worker_environments(processes: int) -> list[tuple[dict[str, str], int]]:
    """The environment variables and the number of threads of each worker process."""
    import torch

    threads = max(1, torch.get_num_threads() // processes)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    environments = []
    for number in range(processes):
        environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        if len(devices) > 1:
            environment["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
        environments.append((environment, threads))
    return environments


@contextlib.contextmanager
def _child_environment(environment: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables for the processes that the block starts, and makes these processes ignore Ctrl-C."""
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


def _worker_loop(commands: Commands, tasks: connection.Connection, threads: int) -> None:
    """The program of a worker: receives tasks, runs them and sends their outcomes, until the other end of the pipe is closed."""
    import torch

    torch.set_num_threads(threads)
    with signals.watching(), contextlib.suppress(EOFError, OSError):
        while True:
            task = tasks.recv()
            tasks.send(Outcome(STOPPED) if signals.requested() else run(commands, task, quiet=True))
