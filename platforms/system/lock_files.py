"""Lock files: they reserve a folder or a file for one process, also on file systems that several machines share.

A lock is a file `.lock` that names its holder. It is made atomically, and only if none exists (`link`). The holder touches it every few
seconds. If the holder is dead, another process may take over its lock. Several processes may try this at the same time, so each first
makes a claim: a second lock whose name contains the token of the dead holder. Only one process gets the claim. It then reads the lock
again, because the lock may have changed, and replaces it. If the owner of a claim dies, its claim is taken over in the same way.

A process on the same machine sees directly whether the holder is alive. A process on another machine takes the holder for dead if the
lock has not been touched for `STALE` seconds. The waiting process measures this time by its own clock, so clocks need not agree. A holder
that was only suspended for so long detects that it has lost its lock, and stops writing.

A lock makes the folders that are missing. If they are still empty when it is released, they are removed, so that a refused command leaves
nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
import time
from collections.abc import Iterator

from foundations import json_text, paths
from foundations.errors import Busy, ConfigError, reason
from platforms.system import processes, signals
from platforms.system.processes import Process

HEARTBEAT = 10.0  # seconds between touches
STALE = 120.0  # seconds without a touch after which a holder on another machine is dead; file system caches may delay a touch by a minute
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # seconds between checks while waiting
LONGEST_LOCK = 2**16  # characters
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)  # errors of file systems without hard links

_lost: dict[str, str] = {}  # the locks that this process has lost, with the new holder
_made: dict[str, list[str]] = {}  # the folders that this process has made for each of its locks, the innermost first


def check() -> None:
    """Checks that this process has lost no lock. It is called before each write.

    Raises:
        Busy: another process has taken over a lock of this process.
    """
    for path, taker in list(_lost.items()):
        raise Busy(f"{path} was taken over by {taker} while this process was suspended; this process stops")


def acquire(path: str, wait: bool) -> bool:
    """Takes a lock. Returns False if this process already holds it.

    Args:
        path: the path of the lock.
        wait: whether to wait if another process holds the lock.

    Raises:
        Busy: another process holds the lock, and `wait` is False.
        Stopped: a signal has requested a stop while this process waited.
        ConfigError: the lock cannot be written.
    """
    watch, named, pause = Watch(), None, FIRST_PAUSE
    try:
        if _holder(path) == processes.this():
            return False
        while not _take_in_folder(path, watch):
            holder = _holder(path)
            if holder is not None and not wait:
                raise Busy(f"{os.path.dirname(path)} is locked by {holder.display}; without --no-wait, this command waits")
            if holder not in (None, named):
                print(f"Waiting for {holder.display}, which has locked {os.path.dirname(path)}", file=sys.stderr, flush=True)
                named = holder
            if signals.requested():
                raise signals.Stopped(f"Stopped while waiting for {os.path.dirname(path)}")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        _remove_leftovers(path)
    except OSError as error:
        _remove_empty_folders(path)
        raise ConfigError(f"{path} cannot be written ({error.strerror or error}); a run needs this lock") from error
    return True


def remove_dead(path: str) -> None:
    """Removes a lock whose holder is dead. Errors of the file system are ignored; the lock then remains."""
    with contextlib.suppress(OSError):
        holder = _holder(path)
        if holder is not None and holder.is_alive is False and _take(path, Watch()):
            os.unlink(path)


def _take_in_folder(path: str, watch: Watch) -> bool:
    """As `_take`, but makes the folder of the lock if it is missing."""
    folder, missing = os.path.dirname(path), []
    while not os.path.exists(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    _made[path] = missing or _made.get(path, [])
    try:
        return _take(path, watch)
    except FileNotFoundError:  # another process has just removed the folder, because it was empty
        return False


def _remove_empty_folders(path: str) -> None:
    """Removes the folders that this process has made for a lock, as far as they are empty."""
    with contextlib.suppress(OSError):
        for folder in _made.pop(path, []):
            os.rmdir(folder)


def _take(path: str, watch: Watch) -> bool:
    """Takes a lock if it is free or its holder is dead. Returns whether this process now holds it."""
    holder = _holder(path)
    if holder is None:
        return _create(path)
    claim = f"{path}.{holder.token}"
    if not watch.holder_is_dead(path, holder) or not _take(claim, watch):
        return False
    try:
        if _holder(path) != holder:
            return False
        with _temporary_lock(path) as temporary:
            os.replace(temporary, path)
        _remove_temporary_files(os.path.dirname(path), holder)
        return True
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(claim)


def _create(path: str) -> bool:
    """Makes a lock of this process if none exists. Returns whether this process now holds it."""
    try:
        with _temporary_lock(path) as temporary:
            _link(temporary, path)
    except FileExistsError:
        return _holder(path) == processes.this()  # a file server may have received the request twice
    return True


def _link(temporary: str, path: str) -> None:
    """Gives a lock file its final name, unless that name exists. Without hard links it makes a new file, which is empty for a moment."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        with open(path, "xb") as file:
            file.write(processes.this().to_json().encode())


@contextlib.contextmanager
def _temporary_lock(path: str) -> Iterator[str]:
    """A lock of this process under a temporary name, which is removed after the block."""
    temporary = f"{path}.{processes.this().token}.new"
    try:
        with open(temporary, "wb") as file:
            file.write(processes.this().to_json().encode())
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _holder(path: str) -> Process | None:
    """The holder of a lock; None if no process holds it."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return Process.from_json(file.read(LONGEST_LOCK))
    except FileNotFoundError:
        return None


class Watch:
    """The observations of a waiting process: when, by its own clock, it last saw each lock touched."""

    def __init__(self):
        self._seen: dict[tuple[str, Process], tuple[int, float]] = {}

    def holder_is_dead(self, path: str, holder: Process) -> bool:
        """Whether the holder of a lock is dead. On another machine this takes `STALE` seconds of observation."""
        if holder.is_alive is not None:
            return not holder.is_alive
        try:
            with open(path, "rb") as file:  # opening a file refreshes the cache of a file server
                touched = os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return False
        now = time.monotonic()
        before, since = self._seen.setdefault((path, holder), (touched, now))
        if touched != before:
            self._seen[path, holder] = touched, now
            return False
        return now - since >= STALE


@contextlib.contextmanager
def maintained(path: str) -> Iterator[None]:
    """Touches a lock regularly within the block, and releases it afterwards. An error in the block, except a ConfigError, is recorded."""
    folder = os.path.dirname(path)
    with contextlib.suppress(OSError):
        os.unlink(paths.failure(folder))
    released = threading.Event()
    heartbeat = threading.Thread(target=_touch_regularly, args=(path, released), daemon=True)
    heartbeat.start()
    try:
        yield
    except ConfigError:  # an error of the user: the folder remains unchanged
        raise
    except Exception as error:
        _record_failure(folder, error)
        raise
    finally:
        released.set()
        heartbeat.join()
        _lost.pop(path, None)
        with contextlib.suppress(OSError):
            if _holder(path) == processes.this():
                os.unlink(path)
        _remove_empty_folders(path)


def _record_failure(folder: str, error: Exception) -> None:
    """Records the error that ended the work in a folder, unless the folder is empty or cannot be written to."""
    with contextlib.suppress(OSError):
        if any(not name.startswith(".") for name in os.listdir(folder)):
            with open(paths.failure(folder), "w", encoding="utf-8") as file:
                file.write(json_text.dumps({"error": f"{type(error).__name__}: {reason(error)}"}) + "\n")


def _touch_regularly(path: str, released: threading.Event) -> None:
    """Touches a lock until it is released, or another process has taken it over."""
    while not released.wait(HEARTBEAT):
        with contextlib.suppress(OSError):  # a file server may be unreachable for a while
            holder = _holder(path)
            if holder != processes.this():
                _lost[path] = holder.display if holder else "a process that removed it"
                return
            os.utime(path)


def _remove_temporary_files(folder: str, dead: Process) -> None:
    """Removes the temporary files of a killed process in a folder and its subfolders."""
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.endswith(f".{dead.token}.new"):
                os.unlink(os.path.join(parent, name))


def _remove_leftovers(path: str) -> None:
    """Removes leftover claims and temporary locks. They exist only for moments while a lock is taken, and this process has taken it."""
    folder, now = os.path.dirname(path), os.stat(path).st_mtime
    for name in os.listdir(folder):
        other = os.path.join(folder, name)
        if other.startswith(f"{path}."):
            with contextlib.suppress(FileNotFoundError):
                maker = _holder(other)
                if maker and (maker.is_alive is False or os.stat(other).st_mtime < now - STALE):
                    os.unlink(other)
