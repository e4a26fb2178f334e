"""Locks of run folders and of single files: only one process at a time works there (`lock_files` is the mechanism)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from foundations import paths
from platforms.platform import get_platform
from platforms.system import lock_files


@contextlib.contextmanager
def held(folder: str) -> Iterator[None]:
    """Keeps a run folder for this process, which makes it where it is absent, and removes what writers that were killed left in it.

    Another process that has it is waited for, and named; or, where the platform says so, it is an error. Whoever has waited should look
    whether there is anything left to do. Within a process locks may be nested; of several processes of a job the primary one locks.

    Raises:
        Busy: another process has the folder, and the platform does not wait.
        Stopped: the platform has been asked to stop while waiting.
        ConfigError: no file can be made there.
    """
    path = paths.lock(folder)
    taken = get_platform().on_primary(lambda: lock_files.acquire(path, get_platform().wait))
    with lock_files.kept(path) if taken and get_platform().is_primary_process else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def held_file(path: str) -> Iterator[None]:
    """Keeps a single file for this process, which other processes of its job do not wait for; its errors are those of `held`."""
    path = paths.lock_of(path)
    with lock_files.kept(path) if lock_files.acquire(path, get_platform().wait) else contextlib.nullcontext():
        yield


def remove_dead(folder: str) -> None:
    """Removes the lock of a finished run whose holder was killed after its last write; where nothing may be removed, it stays."""
    get_platform().on_primary(lambda: lock_files.remove_dead(paths.lock(folder)))
