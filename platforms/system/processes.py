"""Who is at work: a process as others can name it, and whether it still lives."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import shlex
import socket
import subprocess
import sys
import time
import uuid

from foundations.errors import one_line

COMMAND_SHOWN = 300  # characters
MAX_PID = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Process:
    """A process, as its lock names it.

    Attributes:
        host: the name of its machine, for people.
        machine: where its number means what it means here: a boot of a kernel, and a space of process numbers (containers have their own).
        pid: its number.
        started: when, as the system puts it; it tells the process from a later one of the same number.
        since: when, for people.
        command: what it runs.
        job: of a SLURM job, its number, and how often it was started again.
    """

    host: str
    machine: str
    pid: int
    started: str
    since: str
    command: str
    job: str = ""
    restarts: int = 0

    @property
    def token(self) -> str:
        """Twelve hexadecimal digits of its own, for names of files."""
        return hashlib.sha256(repr((self.host, self.machine, self.pid, self.started)).encode()).hexdigest()[:12]

    @property
    def display(self) -> str:
        """The process in a line."""
        return f"process {self.pid} on {self.host}, at it since {self.since} ({self.command})" if self.pid else self.host

    @property
    def is_alive(self) -> bool | None:
        """Whether it lives; None for a process of another machine, of which that cannot be seen from here."""
        here = this()
        if self.job and self.job == here.job and self.restarts < here.restarts:
            return False  # SLURM starts a job again when it has seen the end of what it started before
        if not self.machine or self.machine != here.machine:
            return None
        return _start_of(self.pid) in (self.started, "?")

    def to_json(self) -> str:
        """What `from_json` reads."""
        return json.dumps(dataclasses.asdict(self)) + "\n"

    @staticmethod
    def from_json(text: str) -> Process:
        """The process that a lock names; of a lock that does not say, one of which nothing is known, another one for another text."""
        try:
            found = Process(**json.loads(text))
            values = {field.type: [] for field in dataclasses.fields(Process)}
            for field in dataclasses.fields(Process):
                values[field.type].append(getattr(found, field.name))
            plain = all(type(value) is int for value in values["int"]) and all(map(str.isprintable, values["str"]))
            if plain and 0 < found.pid <= MAX_PID:
                return found
        except (ValueError, TypeError, RecursionError):
            pass
        return Process("a process that left no name", "", 0, text, "", "")


def this() -> Process:
    """The process that asks."""
    return _named(os.getpid())


@functools.cache  # by number, for a forked process is another one
def _named(pid: int) -> Process:
    job = os.environ.get("SLURM_JOB_ID", "")
    restarts = os.environ.get("SLURM_RESTART_COUNT", "")
    return Process(
        host=socket.gethostname(),
        machine=_machine(),
        pid=pid,
        started=_start_of(pid) or "",
        since=time.strftime("%Y-%m-%d %H:%M:%S"),
        command=one_line(shlex.join(sys.argv))[:COMMAND_SHOWN],
        job=job,
        restarts=int(restarts) if restarts.isdecimal() else 0,
    )


def _machine() -> str:
    """A text that two processes have in common where each can see the other's number."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux, and then no containers that hide processes from each other
        return f"{socket.gethostname()} {uuid.getnode()}"


def _start_of(pid: int) -> str | None:
    """When a process of this machine started; None where there is none, or a dead one; "?" where the system hides it."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, *fields = file.read().rpartition(b")")[2].split()
        return None if state in (b"Z", b"X") else fields[18].decode()
    except OSError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except OSError:  # it is another user's
            return "?"
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip() or "?"
