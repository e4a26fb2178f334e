"""Taking runs, and what they need no more, out of the way: everything is moved to a folder under the root and nothing is deleted.

What is moved is locked first, so that nobody can be at work on it, and a list of it is on the disk before the first move, so that what was
broken off can be put back as well. `<root>/trash/<time>/` holds one command's share, each file under its path below the root.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import time
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from cli.runs import index
from cli.runs.index import DAMAGED, FINISHED, RUNNING, Run
from foundations import paths
from foundations.errors import Busy, ConfigError
from platforms.base import installed
from platforms.platform import get_platform
from platforms.system import files, locks

LIST = "moved.json"
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}(\.new)?")  # half-written files, and claims to locks, with the token of their process
ABANDONED_SECONDS = 3600.0  # after which a half-written file is nobody's
CHECKPOINTS = tuple(os.path.basename(path("")) for path in (paths.checkpoint, paths.previous_checkpoint, paths.progress))


@dataclass(frozen=True)
class Removal:
    """A file or folder to move, why, and the folders whose locks must be free."""

    path: str
    why: str
    locks: tuple[str, ...]

    @property
    def size(self) -> int:
        return index.size_of(self.path)


def of_runs(runs: Sequence[Run], whole: Container[str]) -> list[Removal]:
    """The folders of some runs, those within others left out; of experiments with certain names the whole folders of their seeds.

    Raises:
        Busy: one of them is running.
    """
    lock_folders: dict[str, set[str]] = {}
    for run in runs:
        if run.state == RUNNING:
            raise Busy(f"{run.location} is being worked on by {run.note}; nothing has been moved")
        for path in [folder for folder, _ in run.folders] if run.part and run.name not in whole else [run.location]:
            lock_folders.setdefault(path, set()).update(run.lock_folders)
    found = []
    for path in sorted(lock_folders):
        if not any(path.startswith(each.path + os.sep) for each in found):
            within = (folder for other in lock_folders if f"{other}{os.sep}".startswith(path + os.sep) for folder in lock_folders[other])
            found.append(Removal(path, "", tuple(sorted(set(within)))))
    return found


def needless(runs: Sequence[Run], checkpoints: bool) -> Iterator[Removal]:
    """What some runs need no more: temporary files of dead processes, folders without a result, and if wanted checkpoints of what is done.

    Of runs that are running and of foreign ones that is nothing.
    """
    seen: set[str] = set()
    for run in runs:
        if run.state == RUNNING or run.kind == "other" or run.foreign:
            continue
        for removal in _needless(run, checkpoints):
            if removal.path not in seen:
                seen.add(removal.path)
                yield removal


def _needless(run: Run, checkpoints: bool) -> Iterator[Removal]:
    lock_folders = tuple(run.lock_folders)
    if run.state == DAMAGED:
        path = run.folders[0][0] if run.part and run.folders else run.location
        if _age(path) > ABANDONED_SECONDS and _is_worthless(path):
            yield Removal(path, f"nothing in it can be used: {run.note}", lock_folders)
        return
    folders = [*run.folders, *filter(None, [run.students])]
    for folder, names in folders:
        for name in sorted(filter(TEMPORARY.fullmatch, names)):
            if _age(os.path.join(folder, name)) > ABANDONED_SECONDS:
                yield Removal(os.path.join(folder, name), "left half written", lock_folders)
    if not checkpoints or run.state != FINISHED:
        return
    for folder, names in folders:
        for name in CHECKPOINTS:
            if name in names:
                yield Removal(os.path.join(folder, name), f"finished; {_USE.get(run.kind, 'nothing needs it')}", lock_folders)
    if run.kind == "extract":
        (folder, _), inner = run.folders[0], "finished; the recovered network is there"
        spent = [paths.finetune_checkpoints(folder), *(os.path.join(paths.reconstructed_model(folder), name) for name in CHECKPOINTS)]
        yield from (Removal(path, inner, lock_folders) for path in spent if os.path.exists(path))


_USE = dict.fromkeys(("train", "extract"), "only --further_training needs it")


def _is_worthless(path: str) -> bool:
    """Whether it is certain that nothing in a folder and below took work; of what cannot be read it is not."""

    def refuse(error: OSError) -> None:
        raise error

    worth = {*CHECKPOINTS, os.path.basename(paths.barrier("")), os.path.basename(paths.logger("")), os.path.basename(paths.report(""))}
    try:
        return not any(worth & set(names) or paths.latest_model(names) for _, _, names in os.walk(path, onerror=refuse))
    except OSError:
        return False


def _age(path: str) -> float:
    """The seconds since a file was written."""
    try:
        return time.time() - os.lstat(path).st_mtime
    except OSError:
        return 0.0


# Moving.


def move(removals: Sequence[Removal], root: str, command: str) -> tuple[str, list[str]]:
    """Moves files and folders to the trash.

    Args:
        removals: what to move.
        root: the folder of all results.
        command: for the list, what was asked for.

    Returns:
        The folder that they are in now, and a line for each that somebody has begun to work on, or that cannot be moved, and is left.

    Raises:
        ConfigError: nothing can be written under the root.
    """
    batch = _fresh(root)
    moved = [os.path.relpath(removal.path, root) for removal in removals]
    get_platform().write(os.path.join(batch, LIST), json.dumps({"command": command, "moved": moved}, indent=2) + "\n")
    left = []
    with installed(dataclasses.replace(get_platform(), wait=False)):
        for removal, name in zip(removals, moved, strict=True):
            try:
                _move(removal, os.path.join(batch, name))
                _drop_empty(os.path.dirname(removal.path), root)
            except (ConfigError, OSError) as error:
                left.append(f"{name} is left: {error}")
    return batch, left


def _move(removal: Removal, target: str) -> None:
    """Moves a file or folder whose locks this process gets; those within it do not go with it."""
    with contextlib.ExitStack() as held:
        folders = [folder for folder in removal.locks if os.path.isdir(folder)]
        for folder in folders:
            held.enter_context(locks.held(folder))
        for folder in _locked(removal.path):
            if folder not in folders and (who := index.holder(folder)):
                raise Busy(f"{folder} is being worked on by {who.display}")
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(removal.path, target)
        for folder in folders:
            if f"{folder}{os.sep}".startswith(removal.path + os.sep):
                os.unlink(paths.lock(target + folder.removeprefix(removal.path)))


def _locked(path: str) -> Iterator[str]:
    """The folders in a folder that have a lock."""
    name = os.path.basename(paths.lock(""))
    yield from (folder for folder, _, names in os.walk(path) if name in names)


def _fresh(root: str) -> str:
    """A folder in the trash that is not there yet."""
    stamp = os.path.join(root, index.TRASH, time.strftime("%Y-%m-%d_%H-%M-%S"))
    candidates = (stamp if count == 1 else f"{stamp}_{count}" for count in range(1, 1000))
    return next(path for path in candidates if not os.path.exists(path))


def _drop_empty(folder: str, top: str) -> None:
    """Removes a folder and those around it, up to the top, for as long as they are empty."""
    while folder.startswith(top + os.sep):
        try:
            os.rmdir(folder)
        except OSError:
            return
        folder = os.path.dirname(folder)


# Putting back.


def batches(root: str) -> list[str]:
    """The names of what is in the trash, the oldest first."""
    return [name for name in get_platform().listdir(os.path.join(root, index.TRASH)) if _list(root, name) is not None]


def _list(root: str, name: str) -> dict | None:
    """The list of what a command has moved; None where there is none that can be believed."""
    path = os.path.join(root, index.TRASH, name, LIST)
    if not os.path.isfile(path):
        return None
    content = files.read_json(path, "move what is beside it back by hand")
    moved = content.get("moved") if isinstance(content, dict) else None
    plain = isinstance(moved, list) and all(isinstance(each, str) and _is_below(each) for each in moved)
    return content if plain else None


def _is_below(path: str) -> bool:
    return not os.path.isabs(path) and ".." not in path.split(os.sep) and path not in ("", ".")


def describe(root: str, name: str) -> str:
    """A share of the trash in a line."""
    content = _list(root, name)
    there = [path for path in content["moved"] if os.path.lexists(os.path.join(root, index.TRASH, name, path))]
    return f"{name}  {len(there):,} of {len(content['moved']):,} there  {content.get('command', '')}"


def restore(root: str, name: str) -> tuple[int, list[str]]:
    """Puts back what a command has moved.

    Returns:
        How many files and folders are back, and a line for each that is left because there is something in its place.
    """
    batch, back, left = os.path.join(root, index.TRASH, name), 0, []
    for path in _list(root, name)["moved"]:
        source, target = os.path.join(batch, path), os.path.join(root, path)
        if not os.path.lexists(source):
            continue
        if os.path.lexists(target):
            left.append(f"{path} is left in the trash: there is another one in its place")
            continue
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(source, target)
        _drop_empty(os.path.dirname(source), batch)
        back += 1
    if not left:
        get_platform().remove(os.path.join(batch, LIST))
        _drop_empty(batch, root)
    return back, left
