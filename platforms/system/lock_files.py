"""Files that lock a folder or a file for one process, on any file system that several machines may share.

A lock is a file `.lock` that names its holder. It comes into being whole and only where there is none (`link`), and its holder, while it
lives, touches it every few seconds. Of the processes that find its holder dead, the one takes it that first puts down a claim to it: a
lock of its own, whose name says which holder is to be followed, and which is therefore taken over in the same way where its maker dies.
Under the claim nobody else can change the lock, so that it can be looked at once more and replaced.

On the machine of the holder its death is plain. From another one it looks dead when its lock has not been touched for `STALE` seconds by
the watch of who waits, so that clocks need not agree. A process that was only held up that long finds on its return that its lock is
another's, and writes no more.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import threading
import time
from collections.abc import Iterator

from foundations import paths
from foundations.errors import Busy, ConfigError, reason
from platforms.system import processes, signals
from platforms.system.processes import Process

HEARTBEAT = 10.0  # seconds between touches
STALE = 120.0  # seconds without one after which a holder on another machine is dead; caches of file systems may hide one for a minute
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # seconds between looks while waiting
LONGEST_LOCK = 2**16  # characters
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)  # what file systems without hard links say

_lost: dict[str, str] = {}  # locks of this process that have become another's, and whose


def check() -> None:
    """To be called before anything is written.

    Raises:
        Busy: a lock that this process held has become another's.
    """
    for path, taker in list(_lost.items()):
        raise Busy(f"{path} was taken over by {taker} while this process was held up; the run is left to them")


def acquire(path: str, wait: bool) -> bool:
    """Takes a lock, or waits until it can be taken; returns False where this process has it already.

    Args:
        path: of the lock.
        wait: whether to wait for another process that has it.

    Raises:
        Busy: another process has it, and is not waited for.
        Stopped: this process has been asked to stop while waiting.
        ConfigError: no file can be made there.
    """
    watch, named, pause = Watch(), None, FIRST_PAUSE
    try:
        if _holder(path) == processes.this():
            return False
        os.makedirs(os.path.dirname(path), exist_ok=True)
        while not _take(path, watch):
            holder = _holder(path)
            if holder is not None and not wait:
                raise Busy(f"{os.path.dirname(path)} is being worked on by {holder.display}; without --no-wait its end is waited for")
            if holder not in (None, named):
                print(f"Waiting for {holder.display}, which has {os.path.dirname(path)}", file=sys.stderr, flush=True)
                named = holder
            if signals.requested():
                raise signals.Stopped(f"{os.path.dirname(path)} was waited for")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        _sweep(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror or error}), and no run is started without it") from error
    return True


def remove_dead(path: str) -> None:
    """Removes a lock whose holder is dead; where nothing may be removed, it stays."""
    with contextlib.suppress(OSError):
        holder = _holder(path)
        if holder is not None and holder.is_alive is False and _take(path, Watch()):
            os.unlink(path)


def _take(path: str, watch: Watch) -> bool:
    """Takes a lock that is free, or whose holder is dead; returns whether it did."""
    holder = _holder(path)
    if holder is None:
        return _create(path)
    claim = f"{path}.{holder.token}"
    if not watch.finds_dead(path, holder) or not _take(claim, watch):
        return False
    try:
        if _holder(path) != holder:
            return False
        with _unborn(path) as aside:
            os.replace(aside, path)
        _clean(os.path.dirname(path), holder)
        return True
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(claim)


def _create(path: str) -> bool:
    """Makes a lock of this process where there is none; returns whether it did."""
    try:
        with _unborn(path) as aside:
            _link(aside, path)
    except FileExistsError:
        return _holder(path) == processes.this()  # a file server may have done it, and have been asked twice
    return True


def _link(aside: str, path: str) -> None:
    """Gives a file a second name that no other has; where files cannot have two, makes a new one, which is empty for a moment."""
    try:
        os.link(aside, path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        with open(path, "xb") as file:
            file.write(processes.this().to_json().encode())


@contextlib.contextmanager
def _unborn(path: str) -> Iterator[str]:
    """A lock of this process under another name, which is gone after the block."""
    aside = f"{path}.{processes.this().token}.new"
    try:
        with open(aside, "wb") as file:
            file.write(processes.this().to_json().encode())
        yield aside
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)


def _holder(path: str) -> Process | None:
    """Who has a lock; None where nobody has."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return Process.from_json(file.read(LONGEST_LOCK))
    except FileNotFoundError:
        return None


class Watch:
    """What a waiting process has seen of locks: when, by its own clock, each was last seen to be touched."""

    def __init__(self):
        self._seen: dict[tuple[str, Process], tuple[int, float]] = {}

    def finds_dead(self, path: str, holder: Process) -> bool:
        """Whether the holder of a lock is dead."""
        if holder.is_alive is not None:
            return not holder.is_alive
        try:
            with open(path, "rb") as file:  # file servers are asked when a file is opened
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
def kept(path: str) -> Iterator[None]:
    """Touches a lock for as long as the block takes, and gives it back; a block that a defect ends leaves a note of it."""
    folder = os.path.dirname(path)
    with contextlib.suppress(OSError):
        os.unlink(paths.failure(folder))
    over = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, over), daemon=True)
    heart.start()
    try:
        yield
    except ConfigError:  # who refuses to go on leaves everything as it is
        raise
    except Exception as error:
        _note(folder, error)
        raise
    finally:
        over.set()
        heart.join()
        _lost.pop(path, None)
        with contextlib.suppress(OSError):
            if _holder(path) == processes.this():
                os.unlink(path)


def _note(folder: str, error: Exception) -> None:
    """Writes down why the work in a folder has failed, where some was done and it can be written."""
    with contextlib.suppress(OSError):
        if any(not name.startswith(os.path.basename(paths.lock(""))) for name in os.listdir(folder)):
            with open(paths.failure(folder), "w", encoding="utf-8") as file:
                file.write(json.dumps({"error": f"{type(error).__name__}: {reason(error)}"}) + "\n")


def _beat(path: str, over: threading.Event) -> None:
    """Touches a lock until it is over, or has become another's."""
    while not over.wait(HEARTBEAT):
        with contextlib.suppress(OSError):  # a file server that is away for a while
            holder = _holder(path)
            if holder != processes.this():
                _lost[path] = holder.display if holder else "somebody who removed it"
                return
            os.utime(path)


def _clean(folder: str, dead: Process) -> None:
    """Removes what a process that was killed had half written in a folder and below."""
    for place, _, names in os.walk(folder):
        for name in names:
            if name.endswith(f".{dead.token}.new"):
                os.unlink(os.path.join(place, name))


def _sweep(path: str) -> None:
    """Removes claims to a lock and unborn locks that were left behind: they live for moments, and this process has just taken the lock."""
    folder, now = os.path.dirname(path), os.stat(path).st_mtime
    for name in os.listdir(folder):
        other = os.path.join(folder, name)
        if other.startswith(f"{path}."):
            with contextlib.suppress(FileNotFoundError):
                maker = _holder(other)
                if maker and (maker.is_alive is False or os.stat(other).st_mtime < now - STALE):
                    os.unlink(other)
