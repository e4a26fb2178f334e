"""The identity of a process, as other processes can read it, and whether the process is still alive."""

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

from foundations import json_text

MAX_COMMAND = 300  # characters
MAX_PID = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Process:
    """The identity of a process. A lock stores it.

    Attributes:
        host: the name of its machine, to be displayed.
        machine: the boot of the kernel and the namespace in which process ids are valid (a container has its own namespace).
        pid: its process id.
        started: its start time in the format of the system. It distinguishes the process from a later one with the same id.
        since: the time at which it was identified, to be displayed.
        command: its command line.
        job: the number of its SLURM job; empty if it has none.
        restarts: the number of times that SLURM has restarted the job.
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
        """Twelve hexadecimal digits that identify the process in names of files."""
        return hashlib.sha256(repr((self.host, self.machine, self.pid, self.started)).encode()).hexdigest()[:12]

    @property
    def display(self) -> str:
        """A description of the process in one line."""
        return f"process {self.pid} on {self.host}, working since {self.since} ({self.command})" if self.pid else self.host

    @property
    def is_alive(self) -> bool | None:
        """Whether the process is alive; None if it is on another machine, where this is unknown."""
        here = this()
        if self.job and self.job == here.job and self.restarts < here.restarts:
            return False  # SLURM restarts a job only after its previous start has ended
        if not self.machine or self.machine != here.machine:
            return None
        return _start_of(self.pid) in (self.started, "?")

    def to_json(self) -> str:
        """The JSON that `from_json` reads."""
        return json_text.dumps(dataclasses.asdict(self)) + "\n"

    @staticmethod
    def from_json(text: str) -> Process:
        """The process of a lock. If the text is invalid, an unknown process, whose identity is the text."""
        try:
            process = Process(**json.loads(text))
            values = {field.type: [] for field in dataclasses.fields(Process)}
            for field in dataclasses.fields(Process):
                values[field.type].append(getattr(process, field.name))
            is_valid = all(type(value) is int for value in values["int"]) and all(map(str.isprintable, values["str"]))
            if is_valid and 0 < process.pid <= MAX_PID:
                return process
        except (ValueError, TypeError, RecursionError):
            pass
        return Process("an unknown process", "", 0, text, "", "")


def this() -> Process:
    """The identity of this process."""
    return _identity(os.getpid())


@functools.cache  # by process id, because a forked process inherits the cache
def _identity(pid: int) -> Process:
    job = os.environ.get("SLURM_JOB_ID", "")
    restarts = os.environ.get("SLURM_RESTART_COUNT", "")
    return Process(
        host=socket.gethostname(),
        machine=_machine(),
        pid=pid,
        started=_start_of(pid) or "",
        since=time.strftime("%Y-%m-%d %H:%M:%S"),
        command=_printable(shlex.join(sys.argv))[:MAX_COMMAND],
        job=job,
        restarts=int(restarts) if restarts.isdecimal() else 0,
    )


def _printable(text: str) -> str:
    """The text with spaces in place of all characters that cannot be printed."""
    return "".join(character if character.isprintable() else " " for character in text)


def _machine() -> str:
    """A text that is equal for two processes if the same process ids are valid for both."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux, so there are no containers with their own namespaces
        return f"{socket.gethostname()} {uuid.getnode()}"


def _start_of(pid: int) -> str | None:
    """The start time of a process of this machine; None if no live process has this id; "?" if the system hides the process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, *fields = file.read().rpartition(b")")[2].split()
        return None if state in (b"Z", b"X") else fields[18].decode()
    except OSError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except OSError:  # the process of another user
            return "?"
    done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "?"
