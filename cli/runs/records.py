"""The records in the folders of runs: reads hyperparameters, also from damaged records and from records of other programs."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Mapping
from dataclasses import MISSING, fields

from foundations import ancestors, paths, revisions
from foundations.dataset_hparams import DatasetHparams
from foundations.extraction_hparams import ExtractionHparams
from foundations.model_hparams import ModelHparams
from foundations.training_hparams import TrainingHparams

BUNDLES = {"dataset": DatasetHparams, "model": ModelHparams, "training": TrainingHparams, "extraction": ExtractionHparams}
LONGEST_RECORD = 2**20  # bytes; a longer record is damaged
PER_SEED = "teacher_folder"  # a hyperparameter that may differ between the seeds of an experiment, and is shown for none
PIECE = 2**13  # bytes of the first read; most files are shorter, and a larger buffer takes time to allocate
RECORD, LOG = (os.path.basename(path("")) for path in (paths.hparams_dict, paths.hparams_log))
_DECODER = json.JSONDecoder()


class Damaged(Exception):
    """A file exists but is incomplete or unreadable. The message names the file and the reason."""


def read(path: str, longest: int, end: bool = False) -> bytes:
    """The bytes of a file. A pipe does not block.

    Args:
        path: the file.
        longest: the largest number of bytes.
        end: whether a longer file is read from its end, beginning with a whole line; if not, a longer file is an error.

    Raises:
        Damaged: the file cannot be read, or is too long.
    """
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            content = os.read(file, PIECE)
            if len(content) == PIECE:
                content += os.read(file, longest + 1 - PIECE)
            if len(content) > longest and end:
                os.lseek(file, -longest, os.SEEK_END)
                content = os.read(file, longest).partition(b"\n")[2]
        finally:
            os.close(file)
    except OSError as error:
        raise Damaged(f"{os.path.basename(path)} cannot be read ({error.strerror})") from None
    if len(content) > longest:
        raise Damaged(f"{os.path.basename(path)} has more than {longest:,} bytes")
    return content


def read_json(path: str) -> dict:
    """The object in a JSON file.

    Raises:
        Damaged: the file does not contain a complete object.
    """
    try:
        content = _DECODER.decode(read(path, LONGEST_RECORD).decode())
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise Damaged(f"{os.path.basename(path)} is incomplete")
    return content


def hparams(folder: str, files: frozenset[str], known: dict[str, object]) -> tuple[dict[str, object], bool, str]:
    """The hyperparameters of a run folder, whether another program has made the folder, and its defect.

    All seeds of an experiment have the same hyperparameters: `known` stores those of the first seed, and of the records of other seeds only
    the end is checked.
    """
    if RECORD in files:
        try:
            if known and read(f"{folder}/{RECORD}", LONGEST_RECORD).endswith(b"}\n"):
                return known, False, ""
            known.update(flatten(read_json(f"{folder}/{RECORD}")))
            return known, False, ""
        except Damaged as error:
            if LOG not in files or not is_torch_file(os.path.join(folder, RECORD)):
                return known, False, str(error)
    if LOG in files:
        try:
            return read_log(os.path.join(folder, LOG)), True, "" if ancestors.program_of(folder) else "no record of this framework"
        except Damaged as error:
            return {}, True, str(error)
    theirs = ancestors.program_of(folder) is not None
    visible = any(not name.startswith(".") for name in files)
    return known, theirs, f"the folder has no {LOG if theirs else RECORD}" if visible else "the folder is empty or cannot be read"


def read_log(path: str) -> dict[str, object]:
    """The hyperparameters in a log of OpenLTH or of the published code, by the names of the flags.

    Raises:
        Damaged: the file cannot be read.
    """
    groups = ancestors.renamed(ancestors.parse_log(read(path, LONGEST_RECORD).decode(errors="replace")))
    values = {bundle: {name: _value(text) for name, text in texts.items()} for bundle, texts in groups.items()}
    own = values.pop("extraction_hparams", {})  # their other defaults are different
    return flatten(values) | own


def results(folder: str) -> int:
    """The number of `foundations.revisions` that a run has recorded; 1 without a record."""
    try:
        number = read_json(f"{folder}/{RECORD}").get(revisions.ENTRY)
    except Damaged:
        return 1
    return number if type(number) is int else 1


def is_torch_file(path: str) -> bool:
    """Whether a file begins like a file of torch. The records of the published Expand-and-Cluster code are such files."""
    try:
        return read(path, os.stat(path).st_size)[:2] in (b"PK", b"\x80\x02")
    except (OSError, Damaged):
        return False


def extraction(folder: str) -> tuple[dict[str, object], str]:
    """The hyperparameters of a clustering, and the defect of their record."""
    path, log = paths.hparams_dict(folder, "extraction_"), paths.hparams_log(folder, "extraction_")
    try:
        if ancestors.program_of(folder) and os.path.exists(log):
            return read_log(log), ""
        return flatten({"extraction_hparams": read_json(path)}), ""
    except Damaged as error:
        return {}, str(error)


@functools.cache
def defaults(bundle: str) -> dict[str, object]:
    """The defaults of the hyperparameters of a bundle, which an older record may lack."""
    return {field.name: field.default for field in fields(BUNDLES[bundle]) if field.default is not MISSING}


def flatten(record: Mapping[str, object]) -> dict[str, object]:
    """The hyperparameters of a record by the names of their flags. Hyperparameters that the record lacks have their defaults.

    A bundle `dataset_hparams` contains `batch_size`, and `pretrain_dataset_hparams` contains `pretrain_batch_size`. The fields of a bundle
    among the arguments of a branch have the argument's name as a prefix. The `seed` of a branch becomes `branch_seed`, because a run has a
    seed as well.
    """
    flat: dict[str, object] = {}
    for name, values in record.items():
        if not isinstance(values, dict):
            continue
        if name in _COMPLETE and len(values) == _COMPLETE[name]:
            flat.update(values)
        elif name.endswith("_hparams"):
            prefix, _, bundle = name.removesuffix("_hparams").rpartition("_")
            known = {**values, **_missing(defaults(bundle), values)} if bundle in BUNDLES else values
            flat.update(_prefixed(known, f"{prefix}_" if prefix else ""))
    return {name: value for name, value in flat.items() if not name.endswith(PER_SEED)}


_COMPLETE = {f"{name}_hparams": len(fields(bundle)) for name, bundle in BUNDLES.items()}


def _missing(known: Mapping[str, object], values: Mapping[str, object]) -> dict[str, object]:
    return {name: default for name, default in known.items() if name not in values}


def _prefixed(values: Mapping[str, object], prefix: str) -> dict[str, object]:
    """The hyperparameters of a bundle and of its nested bundles, by the names of their flags."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _prefixed(value, f"{prefix}{name}_")
        else:
            flat["branch_seed" if prefix + name == "seed" else prefix + name] = value
    return flat


def unhashed() -> set[str]:
    """The hyperparameters that are not part of the name of a run."""
    bundles = (field for bundle in BUNDLES.values() for field in fields(bundle))
    return {field.name for field in bundles if not field.metadata.get("hashed", True)}


def _value(text: str) -> object:
    """The value that a log of OpenLTH shows as text."""
    constants = {"True": True, "False": False, "None": None}
    if text in constants:
        return constants[text]
    with contextlib.suppress(ValueError):
        return float(text) if "." in text or "e" in text else int(text)
    return text
