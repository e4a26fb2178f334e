"""What is written down in the folders of runs: hyperparameters, in whatever condition their records are."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Mapping
from dataclasses import MISSING, fields

from foundations import paths
from foundations.dataset_hparams import DatasetHparams
from foundations.desc import parse_display_text
from foundations.extraction_hparams import ExtractionHparams
from foundations.model_hparams import ModelHparams
from foundations.training_hparams import TrainingHparams

BUNDLES = {"dataset": DatasetHparams, "model": ModelHparams, "training": TrainingHparams, "extraction": ExtractionHparams}
LONGEST_RECORD = 2**20  # bytes that are no sign of damage
PIECE = 2**13  # bytes; most files are shorter, and room for more takes time to make
RECORD, LOG = (os.path.basename(path("")) for path in (paths.hparams_dict, paths.hparams_log))
_DECODER = json.JSONDecoder()


class Damaged(Exception):
    """A file is there and not whole; the text says which and why."""


def read(path: str, longest: int, end: bool = False) -> bytes:
    """The bytes of a file, or where it is longer and that will do, the lines at its end; what is a pipe is not waited for.

    Raises:
        Damaged: it cannot be read, or is longer.
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
    """What a file of JSON holds.

    Raises:
        Damaged: it does not hold a whole object.
    """
    try:
        content = _DECODER.decode(read(path, LONGEST_RECORD).decode())
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise Damaged(f"{os.path.basename(path)} is not whole")
    return content


def hparams(folder: str, files: frozenset[str], known: dict[str, object]) -> tuple[dict[str, object], bool, str]:
    """The hyperparameters of a run folder, whether it is foreign, and what is wrong with it.

    Seeds of an experiment have them in common: of those but the first it is only looked at whether the record ends as it should.
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
            groups = parse_display_text(read(os.path.join(folder, LOG), LONGEST_RECORD).decode(errors="replace"))
        except Damaged as error:
            return {}, True, str(error)
        return {name: _value(text) for group in groups.values() for name, text in group.items()}, True, "no record of this framework's"
    return known, False, "it has no hparams_dict" if files else "it is empty or cannot be read"


def is_torch_file(path: str) -> bool:
    """Whether a file begins as torch's do; the records of the published Expand-and-Cluster code are such files."""
    try:
        return read(path, os.stat(path).st_size)[:2] in (b"PK", b"\x80\x02")
    except (OSError, Damaged):
        return False


def extraction(folder: str) -> tuple[dict[str, object], str]:
    """The hyperparameters of a clustering, and what is wrong with their record."""
    try:
        return flatten({"extraction_hparams": read_json(paths.hparams_dict(folder, "extraction_"))}), ""
    except Damaged as error:
        return {}, str(error)


@functools.cache
def defaults(bundle: str) -> dict[str, object]:
    """The defaults of the hyperparameters that need not be in an older record."""
    return {field.name: field.default for field in fields(BUNDLES[bundle]) if field.default is not MISSING}


def flatten(record: Mapping[str, object]) -> dict[str, object]:
    """The hyperparameters of a record by the names of their flags, those that it does not know of with their defaults.

    A bundle `dataset_hparams` gives `batch_size`, `pretrain_dataset_hparams` gives `pretrain_batch_size`, and a bundle among the arguments
    of a branch is prefixed with the argument's name. A branch's `seed` is `branch_seed`, for a run has a seed as well.
    """
    found: dict[str, object] = {}
    for name, values in record.items():
        if not isinstance(values, dict):
            continue
        if name in _COMPLETE and len(values) == _COMPLETE[name]:
            found.update(values)
        elif name.endswith("_hparams"):
            prefix, _, bundle = name.removesuffix("_hparams").rpartition("_")
            known = {**values, **_missing(defaults(bundle), values)} if bundle in BUNDLES else values
            found.update(_prefixed(known, f"{prefix}_" if prefix else ""))
    return found


_COMPLETE = {f"{name}_hparams": len(fields(bundle)) for name, bundle in BUNDLES.items()}


def _missing(known: Mapping[str, object], values: Mapping[str, object]) -> dict[str, object]:
    return {name: default for name, default in known.items() if name not in values}


def _prefixed(values: Mapping[str, object], prefix: str) -> dict[str, object]:
    """Hyperparameters under the names of their flags, those of nested bundles one by one."""
    found: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _prefixed(value, f"{prefix}{name}_")
        else:
            found["branch_seed" if prefix + name == "seed" else prefix + name] = value
    return found


def unhashed() -> set[str]:
    """The hyperparameters that do not name a run."""
    bundles = (field for bundle in BUNDLES.values() for field in fields(bundle))
    return {field.name for field in bundles if not field.metadata.get("hashed", True)}


def _value(text: str) -> object:
    """A value that OpenLTH has shown as text."""
    words = {"True": True, "False": False, "None": None}
    if text in words:
        return words[text]
    with contextlib.suppress(ValueError):
        return float(text) if "." in text or "e" in text else int(text)
    return text
