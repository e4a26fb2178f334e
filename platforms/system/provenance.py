"""Where a run comes from: what was asked of which state of the program, with which libraries, on which machine, and when.

It is kept beside the results, in `provenance.json`: what held at the first start, the seed, and under `starts` the moment of every start,
with whatever was then different from the first.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import os
import platform as machine
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence

from foundations import paths
from foundations.errors import ConfigError
from platforms.platform import get_platform
from platforms.system import files

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIBRARIES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "matplotlib")
ANSWER_SECONDS = 5  # that git may take

_command_line: tuple[str, str] | None = None


@contextlib.contextmanager
def command_line(arguments: Sequence[str]) -> Iterator[None]:
    """Takes some arguments of `EC.py`, and this moment, for what is asked and when, for as long as the block takes."""
    global _command_line
    before, _command_line = _command_line, (shlex.join(["python", "EC.py", *arguments]), _now())
    try:
        yield
    finally:
        _command_line = before


def record(location: str, seed: int) -> None:
    """Notes in a run folder that its run begins to work, or goes on; once for what is asked.

    A file that is damaged is begun anew, for no result depends on it.
    """
    get_platform().on_primary(lambda: _record(location, seed))


def _record(location: str, seed: int) -> None:
    command, time = _command_line or (shlex.join(sys.orig_argv), _now())
    facts, first = {"command": command, "seed": seed} | _surroundings(), read(location)
    if first is None:
        content = facts | {"starts": [{"time": time}]}
    elif first["starts"][-1:] and first["starts"][-1].get("time") == time:
        return
    else:
        different = {name: value for name, value in facts.items() if first.get(name) != value}
        content = first | {"starts": [*first["starts"], {"time": time} | different]}
    get_platform().write(paths.provenance(location), json.dumps(content, indent=2) + "\n")


def read(location: str) -> dict | None:
    """What is kept of a run's provenance; None where there is nothing that makes sense."""
    path = paths.provenance(location)
    if not get_platform().exists(path):
        return None
    try:
        content = files.read_json(path, "delete it")
    except ConfigError:
        return None
    starts = content.get("starts") if isinstance(content, dict) else None
    return content if isinstance(starts, list) and all(isinstance(start, dict) for start in starts) else None


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")


def _surroundings() -> dict[str, object]:
    """The program, the libraries and the machine, as JSON can hold them."""
    import torch

    revision, changed = _revision()
    return {
        "revision": revision,
        "dirty": changed,
        "versions": _versions(),
        "platform": type(get_platform()).__module__.rpartition(".")[2],
        "host": socket.gethostname(),
        "system": machine.platform(),
        "device": _device(get_platform().torch_device.type),
        "threads": torch.get_num_threads(),
    }


@functools.cache
def _revision() -> tuple[str | None, bool | None]:
    """The commit that the program is at, and whether a file of it has changed since; None where it is no checkout, or git does not say."""
    if not os.path.exists(os.path.join(CHECKOUT, ".git")):
        return None, None
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    return commit, None if changes is None else bool(changes)


def _git(*arguments: str) -> str | None:
    """What git says of the program's folder, which it leaves as it is; None where it cannot be asked."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | {"GIT_OPTIONAL_LOCKS": "0"}
    options = {"capture_output": True, "text": True, "timeout": ANSWER_SECONDS, "stdin": subprocess.DEVNULL, "env": environment}
    try:
        done = subprocess.run(["git", "-C", CHECKOUT, *arguments], **options)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout.strip()


@functools.cache
def _versions() -> dict[str, str | None]:
    import importlib.metadata  # slow, as imports go, and nothing for a welcome

    found = {"python": machine.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


@functools.cache
def _device(kind: str) -> list[str]:
    """The names of the GPUs, or the model of the processor."""
    import torch

    if kind == "cuda":
        return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return [value.strip()]
    return [machine.processor() or machine.machine()]
