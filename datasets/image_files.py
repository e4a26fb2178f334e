"""The check of the image files of a dataset before training: a look at the header and the end of each file, once.

A file without the end marker of a JPEG is decoded as a whole, because it may be cut short. The result is remembered in the folder of the
datasets, by the names, sizes and modification times of the files in each folder; only folders that have changed are checked again.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from foundations import json_text
from foundations.errors import ConfigError, reason
from platforms.platform import get_platform
from platforms.system import files
from platforms.system.signals import Stopped

THREADS = 16  # most of the time is spent waiting for a disk or a file server
CHUNK = 64  # files of a task
LINE_SECONDS = 10.0  # between lines of progress without a terminal
END = b"\xff\xd9"  # of a JPEG


def check(paths: Sequence[str], dataset_name: str) -> None:
    """Checks that image files can be read. Only the primary process checks them.

    Args:
        paths: the paths of the files; those of a folder stand together.
        dataset_name: the name of the dataset, which names the file in which the result is remembered.

    Raises:
        ConfigError: a file cannot be read as an image.
        Stopped: the platform is stopping.
    """
    get_platform().on_primary(lambda: _check(paths, os.path.join(get_platform().dataset_root, f"{dataset_name}_checked.json")))


def _check(paths: Sequence[str], memory: str) -> None:
    folders = {folder: list(members) for folder, members in itertools.groupby(paths, os.path.dirname)}
    known = _remembered(memory)
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            states = dict(zip(folders, pool.map(_state, folders.values()), strict=True))
            changed = [folder for folder in folders if known.get(folder) != states[folder]]
            unchecked = [path for folder in changed for path in folders[folder]]
            chunks = [unchecked[start : start + CHUNK] for start in range(0, len(unchecked), CHUNK)]
            wrong = [fault for faults in _with_progress(pool.map(_faults, chunks), len(unchecked)) for fault in faults]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if wrong:
        others = f", and {len(wrong) - 1:,} more of the {len(unchecked):,} files" if len(wrong) > 1 else ""
        raise ConfigError(f"{wrong[0]}{others}; replace it or delete it")
    if changed:
        with contextlib.suppress(ConfigError):  # the folder cannot be written to: the next run checks again
            get_platform().write(memory, json_text.dumps({**known, **states}) + "\n")


def _remembered(memory: str) -> Mapping[str, object]:
    """The states of the folders that have been checked."""
    try:
        content = files.read_json(memory, "") if get_platform().exists(memory) else {}
    except ConfigError:
        return {}
    return content if isinstance(content, dict) else {}


def _state(paths: Sequence[str]) -> str:
    """The MD5 of the names, sizes and modification times of some files."""
    digest = hashlib.md5()
    for path in paths:
        try:
            status = os.stat(path)
            facts = status.st_size, status.st_mtime_ns
        except OSError as error:
            facts = (error.errno,)
        digest.update(f"{os.path.basename(path)!r} {facts}\n".encode())
    return digest.hexdigest()


def _faults(paths: Sequence[str]) -> list[str]:
    """What is wrong with each of some files that cannot be read."""
    return [fault for fault in map(_fault, paths) if fault]


def _fault(path: str) -> str:
    """What is wrong with a file; empty if it can be read as an image."""
    from PIL import Image

    try:
        with get_platform().open(path, "rb") as file:
            image = Image.open(file)
            file.seek(-len(END), os.SEEK_END)
            if file.read() != END or image.format != "JPEG":
                file.seek(0)
                Image.open(file).load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"{path} cannot be read as an image ({reason(error)})"
    return ""


def _with_progress(chunks: Iterator[list[str]], total: int) -> Iterator[list[str]]:
    """The results of tasks; shows their progress, and ends where the platform is stopping."""
    terminal = bool(sys.stderr and sys.stderr.isatty())
    shown = time.monotonic()
    with tqdm(total=total, unit="image", desc="Checking images", leave=False, disable=not terminal) as bar:
        for number, faults in enumerate(chunks, start=1):
            if get_platform().is_stopping:
                raise Stopped("Stopped while images were checked")
            yield faults
            bar.update(CHUNK)
            if not terminal and time.monotonic() - shown >= LINE_SECONDS:
                shown = time.monotonic()
                print(f"Checking images: {min(total, number * CHUNK):,} of {total:,}", file=sys.stderr, flush=True)
