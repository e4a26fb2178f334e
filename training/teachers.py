"""Which weights the teachers of a run have.

A run records the digest of the weights of its teachers. The hyperparameters of two runs are the same if their teachers have the same name
and seed, but the weights may differ: a teacher is trained further, is trained again, or has the folders `seed_1` and `replicate_1`. The
first run of a name keeps the plain name. A run with another teacher has the digest in its name.
"""

from __future__ import annotations

import dataclasses
import datetime
import glob
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from foundations import paths
from foundations.dataset_hparams import DatasetHparams
from foundations.desc import Desc
from foundations.errors import ConfigError
from foundations.hparams import Hparams
from foundations.seeds import NOT_CHOSEN
from platforms.platform import get_platform
from platforms.system import provenance

DIGESTS = "teacher_digests"  # the entry of a record: a digest for each dataset with a network as teacher, by the name of its field
SHOWN = 8  # digits of a digest in messages
COMPARED = 100  # the largest number of seeds of an experiment whose records are read
AnyDesc = TypeVar("AnyDesc", bound=Desc)


@dataclass(frozen=True)
class Earlier:
    """The record of a run with the plain name.

    Attributes:
        location: its folder.
        is_own: whether it has the seed of the run that is named; if not, it is another seed of the same experiment.
        content: its hyperparameters and digests.
    """

    location: str
    is_own: bool
    content: Mapping[str, Any]


def settle(desc: AnyDesc, seed: int) -> AnyDesc:
    """The descriptor with the folder of each teacher, and with a digest for each teacher that is not the one of the plain name.

    Args:
        desc: a descriptor with the resolved names of its teachers.
        seed: the seed of the run, -1 if it is not chosen.

    Raises:
        ConfigError: no folder of a teacher has the weights with the digest of `--teacher_digest`, or the weights for a new run are damaged.
    """
    plain = plain_name(desc)
    if not _datasets(plain):
        return desc
    earlier = _earlier(plain, f"seed_{seed}")
    settled = _changed(desc, lambda field, hparams: _settled(field, hparams, earlier))
    if settled.hashname != plain.hashname or any(run.is_own for run in earlier):
        return settled
    known = digests(settled)
    named = _changed(settled, lambda field, hparams: dataclasses.replace(hparams, teacher_digest=known.get(field)))
    later = _earlier(named, f"seed_{seed}")  # they exist if the first run of the plain name has been removed
    return named if any(run.is_own for run in later) or (later and not earlier) else settled


def digests(desc: Desc) -> dict[str, str]:
    """The digest of the weights of each teacher that is a trained network, by the name of the field of its dataset."""
    found = {field: _digest(hparams, hparams.teacher_folder) for field, hparams in _datasets(desc).items()}
    return {field: digest for field, digest in found.items() if digest is not None}


def check_unchanged(desc: Desc, location: str) -> None:
    """Raises a ConfigError if the teachers of a run in `location` are not those that are recorded under its name.

    This happens only if a teacher has changed after the command was checked, or was missing and has been trained again.
    """
    datasets = _datasets(desc)
    if not datasets:
        return
    _, seed_folder, *_ = [*os.path.relpath(location, get_platform().root).split(os.sep), ""]
    earlier = _earlier(desc, seed_folder)
    for field, hparams in datasets.items():
        digest = _digest(hparams, hparams.teacher_folder)
        if not _is_same(field, hparams, hparams.teacher_folder or f"seed_{hparams.teacher_seed}", digest, earlier):
            raise ConfigError(
                f"--teacher_name: the weights of {hparams.teacher_name} are not those that {desc.hashname} was run with (their digest is "
                f"{str(digest)[:SHOWN]} now); repeat the command for a run in a folder of its own"
            )


def print_remark(desc: Desc) -> None:
    """Prints a line about teachers that have changed since the first run of the plain name."""
    for hparams in _datasets(desc).values():
        if hparams.teacher_digest is not None:
            plain, digest = plain_name(desc).hashname, hparams.teacher_digest[:SHOWN]
            print(f"Note: the weights of {hparams.teacher_name} have changed since {plain} was run; their digest is {digest} now.")
            return


def plain_name(desc: AnyDesc) -> AnyDesc:
    """The descriptor without what distinguishes the weights of teachers. Its name is that of the first run."""
    return _changed(desc, lambda _, hparams: dataclasses.replace(hparams, teacher_folder=None, teacher_digest=None))


def _changed(desc: AnyDesc, change: Callable[[str, DatasetHparams], DatasetHparams]) -> AnyDesc:
    """The descriptor with other hyperparameters of each dataset that has a network as teacher."""
    changes: dict[str, object] = {}
    for field in dataclasses.fields(desc):
        value = getattr(desc, field.name)
        if isinstance(value, DatasetHparams):
            changes[field.name] = change(field.name, value) if _has_network(value) else value
        elif isinstance(value, Hparams):  # the arguments of a branch
            nested = {name: one for name, one in vars(value).items() if isinstance(one, DatasetHparams) and _has_network(one)}
            new = {name: change(f"{field.name}.{name}", one) for name, one in nested.items()}
            changes[field.name] = dataclasses.replace(value, **new) if new else value
    return dataclasses.replace(desc, **changes)


def _datasets(desc: Desc) -> dict[str, DatasetHparams]:
    """The hyperparameters of each dataset of a descriptor that has a network as teacher, by the name of its field."""
    found: dict[str, DatasetHparams] = {}
    _changed(desc, lambda field, hparams: found.setdefault(field, hparams))
    return found


def _has_network(hparams: DatasetHparams) -> bool:
    """Whether the teacher of a dataset is a network in a run folder, whose weights may change, under its resolved name."""
    return hparams.dataset_name == "teacher" and hparams.teacher_name is not None and hparams.teacher_name.startswith("train_")


def _earlier(desc: Desc, seed_folder: str) -> list[Earlier]:
    """The records with the name of a descriptor: first those in the folder of its seed, then those of other seeds."""
    return list(itertools.islice(_records(desc, seed_folder), COMPARED))


def _records(desc: Desc, seed_folder: str) -> Iterator[Earlier]:
    root = glob.escape(get_platform().root)
    relative = desc.run_path("").replace("level_0", "level_*")  # a branch has a record at each level
    own, all_seeds = (
        sorted(glob.glob(os.path.join(root, relative.replace(f"seed_{NOT_CHOSEN}", folder)))) for folder in (seed_folder, "seed_*")
    )
    for location in [*own, *(location for location in all_seeds if location not in own)]:
        try:
            with get_platform().open(paths.hparams_dict(location)) as file:
                content = json.load(file)
        except (OSError, ValueError, RecursionError):
            continue  # not started, foreign, or damaged, which the run itself reports
        if isinstance(content, dict):
            yield Earlier(location, location in own, content)


def _settled(field: str, hparams: DatasetHparams, earlier: list[Earlier]) -> DatasetHparams:
    """The hyperparameters of a dataset with the folder of its teacher, and with its digest if earlier runs had another teacher."""
    from datasets.teachers import run_folders

    seed, plain = hparams.teacher_seed, f"seed_{hparams.teacher_seed}"
    folders = [hparams.teacher_folder] if hparams.teacher_folder else run_folders.seed_folders(str(hparams.teacher_name), seed) or [plain]
    try:
        known = {folder: _digest(hparams, folder) for folder in folders}
    except ConfigError:
        if not any(run.is_own for run in earlier):
            raise
        known = dict.fromkeys(folders)  # a run that exists is found without its teacher
    if hparams.teacher_digest is not None:
        wanted = [folder for folder, digest in known.items() if digest is not None and digest.startswith(hparams.teacher_digest)]
        if not wanted:
            valid = ", ".join(digest or "none before the teacher is trained" for digest in known.values())
            raise ConfigError(f"--teacher_digest: {hparams.teacher_digest} is not the digest of {hparams.teacher_name}; valid: {valid}")
        folders = wanted
    same = next((folder for folder in folders if _is_same(field, hparams, folder, known[folder], earlier)), None)
    folder = same or folders[0]
    return dataclasses.replace(hparams, teacher_folder=None if folder == plain else folder, teacher_digest=None if same else known[folder])


def _is_same(field: str, hparams: DatasetHparams, folder: str, digest: str | None, earlier: list[Earlier]) -> bool:
    """Whether a teacher has the weights that it had in earlier runs. Nothing contradicts this for a teacher without a digest."""
    from datasets.teachers import run_folders

    if digest is None:
        return True
    number = folder.rpartition("_")[2]
    for run in earlier:
        then = _recorded(run, field)
        if not run.is_own and number != _number(run, field, hparams.teacher_seed):
            continue  # that seed has a teacher of its own
        if then is not None:
            return then == digest
        if _started_after(run_folders.location_of(str(hparams.teacher_name), hparams.teacher_seed, folder), run.location):
            return False
    return True


def _digest(hparams: DatasetHparams, folder: str | None) -> str | None:
    """The digest of the weights in a folder of the teacher of a dataset; None before they are trained."""
    from datasets.teachers import run_folders

    name, seed = str(hparams.teacher_name), hparams.teacher_seed
    is_there = run_folders.is_run(run_folders.location_of(name, seed, folder))
    return run_folders.read(name, seed, folder).digest if is_there else None


def _recorded(run: Earlier, field: str) -> object:
    """The digest of a teacher in a record; None in the records of older versions."""
    recorded = run.content.get(DIGESTS)
    return recorded.get(field) if isinstance(recorded, dict) else None


def _number(run: Earlier, field: str, seed: int) -> str:
    """The number in the name of the folder of a teacher in a record."""
    bundle: Any = run.content
    for name in field.split("."):
        bundle = bundle.get(name) if isinstance(bundle, dict) else None
    folder = bundle.get("teacher_folder") if isinstance(bundle, dict) else None
    return folder.rpartition("_")[2] if isinstance(folder, str) else str(seed)


def _started_after(teacher: str, run: str) -> bool:
    """Whether the training of a teacher was started or continued after a run that used the teacher. Unknown times are no evidence."""
    last, first = provenance.read(teacher) or {}, provenance.read(run) or {}
    try:
        trained, used = (datetime.datetime.fromisoformat(entry["time"]) for entry in (last["starts"][-1], first["starts"][0]))
        return trained > used
    except (LookupError, TypeError, ValueError):
        return False
