"""Locks of run folders and of single files: only one process at a time works there. `lock_files` implements them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from foundations import paths
from platforms.platform import get_platform
from platforms.system import lock_files


@contextlib.contextmanager
def held(folder: str) -> Iterator[None]:
    """Locks a run folder within the block. A missing folder is made. Temporary files of killed processes are removed.

    If another process holds the lock, this process names it and waits. After waiting, the caller should check whether the work is already
    done. Within a process locks may be nested. If several processes share a job, the primary process locks.

    Raises:
        Busy: another process holds the lock, and the platform does not wait.
        Stopped: a signal has requested a stop while this process waited.
        ConfigError: the lock cannot be written.
    """
    path = paths.lock(folder)
    taken = get_platform().on_primary(lambda: lock_files.acquire(path, get_platform().wait))
    with lock_files.maintained(path) if taken and get_platform().is_primary_process else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def held_file(path: str) -> Iterator[None]:
    """Locks a single file within the block, in this process only. The other processes of its job do not wait. Errors as in `held`."""
    path = paths.lock_of(path)
    with lock_files.maintained(path) if lock_files.acquire(path, get_platform().wait) else contextlib.nullcontext():
        yield


def remove_dead(folder: str) -> None:
    """Removes the lock of a finished run whose holder was killed after its last write. Errors of the file system are ignored."""
    get_platform().on_primary(lambda: lock_files.remove_dead(paths.lock(folder)))
