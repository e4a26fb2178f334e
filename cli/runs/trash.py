"""The trash: runs and unneeded files are moved to a folder in the results folder. Nothing is deleted.

A folder is locked before it moves, so that no other process works on it. The list of all moves is written before the first move, so that an
interrupted command can be undone as well. `<root>/trash/<time>/` contains the batch of one command, each file under its relative path.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import time
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from cli.runs import index, listing
from cli.runs.index import DAMAGED, FINISHED, RUNNING, Run
from foundations import json_text, paths
from foundations.errors import Busy, ConfigError
from platforms.base import installed
from platforms.platform import get_platform
from platforms.system import files, locks

LIST = "moved.json"
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}(\.new)?")  # unfinished files, and requests for locks, with the token of their process
ABANDONED_SECONDS = 3600.0  # the age at which an unfinished file is no longer in use
CHECKPOINTS = tuple(os.path.basename(path("")) for path in (paths.checkpoint, paths.previous_checkpoint, paths.progress))


@dataclass(frozen=True)
class Removal:
    """A file or folder to move.

    Attributes:
        path: the file or folder.
        reason: the reason for the move; empty if the user has named the run.
        locks: the folders that are locked during the move.
    """

    path: str
    reason: str
    locks: tuple[str, ...]

    @property
    def size(self) -> int:
        """The number of bytes."""
        return listing.size_of(self.path)


def of_runs(runs: Sequence[Run], whole: Container[str]) -> list[Removal]:
    """The removal of some runs, without folders inside other removed folders.

    Args:
        runs: the runs to remove.
        whole: the names of experiments whose seed folders are removed as a whole.

    Raises:
        Busy: a process works on one of the runs.
    """
    lock_folders: dict[str, set[str]] = {}
    for run in runs:
        if run.state == RUNNING:
            raise Busy(f"{run.location} is in use by {run.note}; nothing has been moved")
        for path in [folder for folder, _ in run.folders] if run.part and run.name not in whole else [run.location]:
            lock_folders.setdefault(path, set()).update(run.lock_folders)
    removals: list[Removal] = []
    for path in sorted(lock_folders):
        if not any(path.startswith(removal.path + os.sep) for removal in removals):
            within = (folder for other in lock_folders if f"{other}{os.sep}".startswith(path + os.sep) for folder in lock_folders[other])
            removals.append(Removal(path, "", tuple(sorted(set(within)))))
    return removals


def unneeded(runs: Sequence[Run], checkpoints: bool) -> Iterator[Removal]:
    """The removal of temporary files of ended processes, of folders without a result, and optionally of checkpoints of finished runs.

    Running runs and runs of other programs are left unchanged.
    """
    seen: set[str] = set()
    for run in runs:
        if run.state == RUNNING or run.kind == "other" or run.foreign:
            continue
        for removal in _unneeded(run, checkpoints):
            if removal.path not in seen:
                seen.add(removal.path)
                yield removal


def _unneeded(run: Run, checkpoints: bool) -> Iterator[Removal]:
    lock_folders = tuple(run.lock_folders)
    if run.state == DAMAGED or run.is_empty:
        path = run.folders[0][0] if run.part and run.folders else run.location
        if _age(path) > ABANDONED_SECONDS and _has_no_results(path):
            yield Removal(path, f"no usable file: {run.note}", lock_folders)
        return
    folders = [*run.folders, *filter(None, [run.students])]
    for folder, names in folders:
        for name in sorted(filter(TEMPORARY.fullmatch, names)):
            if _age(os.path.join(folder, name)) > ABANDONED_SECONDS:
                yield Removal(os.path.join(folder, name), "temporary file", lock_folders)
    if not checkpoints or run.state != FINISHED:
        return
    for folder, names in folders:
        for name in CHECKPOINTS:
            if name in names:
                use = "only --extra_training needs it" if run.kind in ("train", "extract") else "no command needs it"
                yield Removal(os.path.join(folder, name), f"finished; {use}", lock_folders)
    if run.kind == "extract":
        (folder, _), reason = run.folders[0], "finished; the recovered network is saved"
        used = [paths.finetune_checkpoints(folder), *(os.path.join(paths.reconstructed_model(folder), name) for name in CHECKPOINTS)]
        yield from (Removal(path, reason, lock_folders) for path in used if os.path.exists(path))


def _has_no_results(path: str) -> bool:
    """Whether a folder and its subfolders contain no checkpoint, log, report or model. False if one of them cannot be read."""

    def raise_error(error: OSError) -> None:
        raise error

    results = {*CHECKPOINTS, os.path.basename(paths.barrier("")), os.path.basename(paths.logger("")), os.path.basename(paths.report(""))}
    try:
        return not any(results & set(names) or paths.latest_model(names) for _, _, names in os.walk(path, onerror=raise_error))
    except OSError:
        return False


def _age(path: str) -> float:
    """The seconds since a file was written."""
    try:
        return time.time() - os.lstat(path).st_mtime
    except OSError:
        return 0.0


def move(removals: Sequence[Removal], root: str, command: str) -> tuple[str, list[str]]:
    """Moves files and folders to the trash.

    Args:
        removals: what to move.
        root: the folder of all results.
        command: the command of the user, which is recorded in the list of moves.

    Returns:
        The folder of the batch, and a line for each file or folder that is in use or cannot be moved, and stays.

    Raises:
        ConfigError: the results folder is not writable.
    """
    batch = _new_batch(root)
    moved = [os.path.relpath(removal.path, root) for removal in removals]
    get_platform().write(os.path.join(batch, LIST), json_text.dumps({"command": command, "moved": moved}, indent=2) + "\n")
    left = []
    with installed(dataclasses.replace(get_platform(), wait=False)):
        for removal, name in zip(removals, moved, strict=True):
            try:
                _move(removal, os.path.join(batch, name))
                _remove_empty(os.path.dirname(removal.path), root)
            except (ConfigError, OSError) as error:
                left.append(f"{name} was not moved: {error}")
    return batch, left


def _move(removal: Removal, target: str) -> None:
    """Moves a file or folder while this process holds its locks. The locks themselves do not move."""
    with contextlib.ExitStack() as stack:
        folders = [folder for folder in removal.locks if os.path.isdir(folder)]
        for folder in folders:
            stack.enter_context(locks.held(folder))
        for folder in _locked(removal.path):
            if folder not in folders and (process := index.lock_holder(folder)):
                raise Busy(f"{folder} is in use by {process.display}")
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(removal.path, target)
        for folder in folders:
            if f"{folder}{os.sep}".startswith(removal.path + os.sep):
                os.unlink(paths.lock(target + folder.removeprefix(removal.path)))


def _locked(path: str) -> Iterator[str]:
    """The subfolders of a folder that have a lock."""
    name = os.path.basename(paths.lock(""))
    yield from (folder for folder, _, names in os.walk(path) if name in names)


def _new_batch(root: str) -> str:
    """The path of a new folder in the trash."""
    stamp = os.path.join(root, index.TRASH, time.strftime("%Y-%m-%d_%H-%M-%S"))
    candidates = (stamp if count == 1 else f"{stamp}_{count}" for count in range(1, 1000))
    return next(path for path in candidates if not os.path.exists(path))


def _remove_empty(folder: str, top: str) -> None:
    """Removes an empty folder and its empty parent folders below `top`."""
    while folder.startswith(top + os.sep):
        try:
            os.rmdir(folder)
        except OSError:
            return
        folder = os.path.dirname(folder)


@dataclass(frozen=True)
class Batch:
    """The record of the files and folders that one command has moved.

    Attributes:
        name: the name of the batch's folder in the trash.
        command: the command of the user; empty if the record lacks it.
        moved: the paths of the files and folders, relative to the results folder.
    """

    name: str
    command: str
    moved: tuple[str, ...]


def batches(root: str) -> dict[str, Batch]:
    """The batches in the trash by name, the oldest first."""
    records = (_read_batch(root, name) for name in get_platform().listdir(os.path.join(root, index.TRASH)))
    return {batch.name: batch for batch in records if batch is not None}


def _read_batch(root: str, name: str) -> Batch | None:
    """The record of a batch; None without a valid record."""
    path = os.path.join(root, index.TRASH, name, LIST)
    if not os.path.isfile(path):
        return None
    content = files.read_json(path, "move the files beside it back by hand")
    if not isinstance(content, dict):
        return None
    moved = content.get("moved")
    if not isinstance(moved, list) or not all(isinstance(each, str) and _is_below(each) for each in moved):
        return None
    return Batch(name, str(content.get("command", "")), tuple(moved))


def _is_below(path: str) -> bool:
    """Whether a relative path leads to a place inside the results folder."""
    return not os.path.isabs(path) and ".." not in path.split(os.sep) and path not in ("", ".")


def describe(root: str, batch: Batch) -> str:
    """A line about a batch."""
    present = [path for path in batch.moved if os.path.lexists(os.path.join(root, index.TRASH, batch.name, path))]
    return f"{batch.name}  {len(present):,} of {len(batch.moved):,} in the trash  {batch.command}"


def restore(root: str, record: Batch) -> tuple[int, list[str]]:
    """Moves the files and folders of a batch back.

    Returns:
        The number of files and folders that were moved back, and a line for each that stays because another one is in its place.
    """
    batch, back, left = os.path.join(root, index.TRASH, record.name), 0, []
    for path in record.moved:
        source, target = os.path.join(batch, path), os.path.join(root, path)
        if not os.path.lexists(source):
            continue
        if os.path.lexists(target):
            left.append(f"{path} stays in the trash: its original path exists again")
            continue
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(source, target)
        _remove_empty(os.path.dirname(source), batch)
        back += 1
    if not left:
        get_platform().remove(os.path.join(batch, LIST))
        _remove_empty(batch, root)
    return back, left
