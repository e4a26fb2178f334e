"""The provenance of a run: its command line, the revision of the program, the versions of libraries, the machine and the time.

It is stored in `provenance.json` of the run folder: the facts of the first start, the seed, and the list `starts` with the time of each
start and the facts that differed from the first.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
import platform as machine
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence

from foundations import json_text, paths
from foundations.errors import ConfigError
from platforms.platform import get_platform
from platforms.system import files

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIBRARIES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "matplotlib")
ANSWER_SECONDS = 5  # the timeout of git

_command_line: tuple[str, str] | None = None


@contextlib.contextmanager
def command_line(arguments: Sequence[str]) -> Iterator[None]:
    """Sets the command line and the start time of the runs in the block. `arguments` are those of `EC.py`."""
    global _command_line
    previous, _command_line = _command_line, (shlex.join(["python", "EC.py", *arguments]), _now())
    try:
        yield
    finally:
        _command_line = previous


@contextlib.contextmanager
def further_flags(*flags: str) -> Iterator[None]:
    """Adds flags to the command line of the runs in the block."""
    global _command_line
    previous, (command, time) = _command_line, _current()
    _command_line = (f"{command} {shlex.join(flags)}", time)
    try:
        yield
    finally:
        _command_line = previous


def _current() -> tuple[str, str]:
    """The command line, and its start time."""
    return _command_line or (shlex.join(sys.orig_argv), _now())


def record(location: str, seed: int) -> None:
    """Records in a run folder that its run has started, once per command line.

    A damaged file is replaced, because no result depends on it.
    """
    get_platform().on_primary(lambda: _record(location, seed))


def _record(location: str, seed: int) -> None:
    command, time = _current()
    facts, first = {"command": command, "seed": seed} | _surroundings(), read(location)
    if first is None:
        content = facts | {"starts": [{"time": time}]}
    elif first["starts"][-1:] and first["starts"][-1].get("time") == time:
        return
    else:
        different = {name: value for name, value in facts.items() if first.get(name) != value}
        content = first | {"starts": [*first["starts"], {"time": time} | different]}
    get_platform().write(paths.provenance(location), json_text.dumps(content, indent=2) + "\n")


def read(location: str) -> dict | None:
    """The provenance of a run; None if the file is missing or damaged."""
    path = paths.provenance(location)
    if not get_platform().exists(path):
        return None
    try:
        content = files.read_json(path, "delete it")
    except ConfigError:
        return None
    starts = content.get("starts") if isinstance(content, dict) else None
    return content if isinstance(starts, list) and all(isinstance(start, dict) for start in starts) else None


def last_command(location: str) -> str | None:
    """The command line of the last start of a run; None if it is not known."""
    content = read(location)
    if content is None:
        return None
    last = content["starts"][-1] if content["starts"] else {}
    command = last.get("command", content.get("command"))
    return command if isinstance(command, str) else None


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")


def _surroundings() -> dict[str, object]:
    """The program, the libraries and the machine, ready for JSON."""
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
    """The commit of the program, and whether its files have changed since. None if it is not a checkout, or git fails."""
    if not os.path.exists(os.path.join(CHECKOUT, ".git")):
        return None, None
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    return commit, None if changes is None else bool(changes)


def _git(*arguments: str) -> str | None:
    """The output of a git command in the folder of the program, without locks on its index; None if git fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | {"GIT_OPTIONAL_LOCKS": "0"}
    command, quiet = ["git", "-C", CHECKOUT, *arguments], subprocess.DEVNULL
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS, stdin=quiet, env=environment, check=False)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout.strip()


@functools.cache
def _versions() -> dict[str, str | None]:
    """The version of Python and of each library; None for a library that is not installed."""
    import importlib.metadata  # a slow import, which the welcome text does not need

    versions: dict[str, str | None] = {"python": machine.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


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
