"""What is in folders: the names, times and sizes of files, in few system calls. A folder that cannot be read is empty."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator


@contextlib.contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Pauses garbage collection, which would take as long as reading the records."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def folders_in(path: str) -> list[str]:
    """The names of the folders in a folder."""
    names = []
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # a link to itself
                if entry.is_dir():
                    names.append(entry.name)
    return names


def names_in(path: str) -> frozenset[str]:
    """The names of the files and folders in a folder; empty if the folder cannot be read."""
    try:
        return frozenset(os.listdir(path))
    except OSError:
        return frozenset()


def modification_time(folder: str, name: str = "") -> float:
    """The time at which a file was last written, in seconds since 1970; 0 without such a file."""
    try:
        return os.stat(f"{folder}/{name}" if name else folder).st_mtime
    except OSError:
        return 0.0


def size_of(path: str) -> int:
    """The number of bytes of a file, or of all files in a folder and its subfolders. Links are not followed."""
    try:
        with os.scandir(path) as entries:
            return sum(size_of(entry.path) if entry.is_dir(follow_symlinks=False) else _bytes(entry) for entry in entries)
    except NotADirectoryError:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _bytes(entry: os.DirEntry) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0
