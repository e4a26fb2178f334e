"""Files of queries and answers: `.npz` archives, tables (`.csv`, `.tsv`, `.npy`), and pairs of tables.

Whatever the format, a run stores an archive with the arrays `X` and `y`. An archive with these names is stored as it is; the other formats
are converted, with the number type of the file. Files are read as data: nothing in them is executed.
"""

from __future__ import annotations

import dataclasses
import io
import math
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

import numpy as np

from datasets.teachers import links, text_tables
from foundations.errors import ConfigError, one_line, reason
from platforms.platform import get_platform

NAMES = ("X", "y")  # the arrays of a stored archive
ROWS = "file_rows"  # the array with the numbers of the rows in the user's file, in a stored archive where some are left out
ERRORS = "logit_errors"  # the array with the errors of logits (`links.Errors`)
SEPARATORS = {".csv": ",", ".tsv": "\t"}
TABLES = (*SEPARATORS, ".npy")
# The ends of the names of files that people may try, with the way to a format that can be read.
FOREIGN = {".txt": "", ".dat": "", ".gz": "unpack it, then use ", ".zip": "unpack it, then use ", ".bz2": "unpack it, then use "}
FOREIGN |= dict.fromkeys((".xz", ".7z", ".tar"), "unpack it, then use ")
FOREIGN |= dict.fromkeys((".xlsx", ".xls", ".ods", ".parquet", ".feather", ".json", ".mat", ".h5", ".hdf5", ".arff"), "")
FOREIGN |= dict.fromkeys((".pkl", ".pickle", ".joblib", ".pt"), "")
FOREIGN[".pth"] = "a network as a program (torch.jit.save, .pt), "
VALID = "a .npz file, a table (.csv, .tsv or .npy) with --outputs, or two tables joined by +, such as inputs.npy+answers.npy"
SHOWN = 12  # arrays or columns that an error lists
CLASSES = "the answers must be the numbers that the network gives (logits or probabilities), one column for each output"
KINDS = {"U": "texts", "S": "texts", "O": "objects", "c": "complex numbers", "M": "dates", "m": "times"}  # by the kind of a numpy type
FEW = 20  # distinct whole numbers in a column of class labels, if they do not count from 0 or 1


@dataclass(frozen=True)
class Layout:
    """Which part of a file are the queries and which the answers.

    Attributes:
        arrays: for an archive, the names of the arrays of queries and answers, joined by a comma; X and y by default.
        outputs: for a table, the number of columns at its end that are answers.
        link: one of LINKS; noticed by default.
    """

    arrays: str | None = None
    outputs: int | None = None
    link: str | None = None


@dataclass(frozen=True)
class Pairs:
    """The queries and answers of a file.

    Attributes:
        content: the bytes of the archive that a run stores.
        queries: `[n, inputs]`, float64.
        answers: `[n, outputs]`, float64.
        names: the names of both in errors.
        note: what was decided in reading the file, for the user; empty if nothing.
        link: what the answers in the file are, if they were converted to logits or if the user has said that they are raw.
        rows: the numbers of the pairs in the user's file, `[n]`, counted from 0; None where no row was left out.
        errors: of answers that were converted to logits, where these are not exact to float64.
        columns: the names of the queries' and of the answers' columns; empty where the file has none.
    """

    content: bytes
    queries: np.ndarray
    answers: np.ndarray
    names: tuple[str, str] = NAMES
    note: str = ""
    link: str | None = None
    rows: np.ndarray | None = None
    errors: links.Errors | None = None
    columns: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


def is_file(name: str) -> bool:
    """Whether the name of a teacher names files. They need not exist, and may have a format that cannot be read."""
    return all(_suffix(path) in (".npz", *TABLES, *FOREIGN) for path in split(name)) or (os.sep in name and os.path.isfile(name))


def split(name: str) -> list[str]:
    """The paths in the name of a teacher: one, or two that are joined by `+` or a comma."""
    if os.path.exists(os.path.expanduser(name)):
        return [os.path.expanduser(name)]
    for sign in "+,":
        paths = name.split(sign)
        if len(paths) == 2 and all(_suffix(path) in (".npz", *TABLES, *FOREIGN) for path in paths):
            return [os.path.expanduser(path) for path in paths]
    return [os.path.expanduser(name)]


def label(name: str) -> str:
    """The name of a file, or of both files, without folders, as lists of runs show it."""
    names = "+".join(os.path.basename(path) for path in split(name))
    return one_line(os.fsencode(names).decode("utf-8", errors="replace"))


def read(name: str, layout: Layout) -> Pairs:
    """The queries and answers in the files that the name of a teacher names.

    Raises:
        ConfigError: a file is missing, damaged or has another format, or the layout does not fit it.
    """
    paths = split(name)
    for path in paths:
        if _suffix(path) not in (".npz", *TABLES):
            raise ConfigError(f"--teacher_name: {path} cannot be read; valid: {FOREIGN.get(_suffix(path), '')}{VALID}")
    if len(paths) == 2:
        return _pair(paths, layout)
    return _archive(paths[0], layout) if _suffix(paths[0]) == ".npz" else _table(paths[0], layout)


def read_stored(path: str) -> Pairs:
    """The queries and answers in an archive that a run has stored; errors as in `read`."""
    pairs = _archive(path, Layout())
    try:
        with zipfile.ZipFile(io.BytesIO(pairs.content)) as file:
            members = {name: _member(file, name) for name in (ROWS, ERRORS) if f"{name}.npy" in file.namelist()}
    except Exception as error:  # as in `_archive`
        raise ConfigError(f"--teacher_name: {path} is damaged ({reason(error)})") from None
    rows, errors = members.get(ROWS), members.get(ERRORS)
    rows = rows.astype(np.int64) if rows is not None and rows.shape == (len(pairs.queries),) else None
    return dataclasses.replace(pairs, rows=rows, errors=None if errors is None else links.Errors.of(errors))


def linked(pairs: Pairs, link: str | None, path: str) -> Pairs:
    """Pairs whose answers are logits, if those of the file are probabilities; `link` is noticed if it is None.

    Raises:
        ConfigError: no network with this link gives these answers.
    """
    chosen = link or links.notice(pairs.answers)
    if chosen == links.RAW:
        return dataclasses.replace(pairs, link=chosen)
    if chosen is None:
        return dataclasses.replace(pairs, note=_joined(pairs.note, path, links.hint(pairs.answers)))
    try:
        converted = links.convert(pairs.answers, chosen)
    except ValueError as error:
        flag = "--teacher_name" if link is None else "--link"
        raise ConfigError(f"{flag}: {path}: {reason(error)}") from None
    queries, rows = pairs.queries[converted.kept], None if converted.kept.all() else np.flatnonzero(converted.kept)
    content, note = archive(queries, converted.logits, rows, converted.errors), _joined(pairs.note, path, converted.note)
    return Pairs(content, queries, converted.logits, pairs.names, note, chosen, rows, converted.errors, pairs.columns)


def _joined(notes: str, path: str, note: str) -> str:
    """Notes on a file, and one more unless it is empty."""
    return "; ".join(filter(None, [notes, note and f"{os.path.basename(path)}: {note}"]))


def check_outputs(pairs: Pairs, path: str) -> None:
    """Raises a ConfigError if an answer contains classes instead of the outputs of a network."""
    answers = pairs.answers
    if answers.shape[1] > 1 and np.isin(answers, (0, 1)).all() and (answers.sum(1) == 1).all():
        raise ConfigError(f"--teacher_name: the answers in {path} are classes in one-hot form; {CLASSES}")
    for place, column in enumerate(answers.T):
        values = np.unique(column)
        if len(values) < 2 or 2 * len(values) > len(column) or (values != np.round(values)).any():
            continue
        counts = values[0] in (0, 1) and (np.diff(values) == 1).all()
        if counts or len(values) <= FEW:
            which = f"column {place} of the answers" if answers.shape[1] > 1 else "the column of answers"
            shown = ", ".join(f"{value:g}" for value in values[:5]) + (", ..." if len(values) > 5 else "")
            raise ConfigError(f"--teacher_name: {which} in {path} contains only the whole numbers {shown}: classes; {CLASSES}")


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _content(path: str) -> bytes:
    """The bytes of a file.

    Raises:
        ConfigError: the file does not exist.
        ValueError: the file is too large for the memory.
        OSError: the file cannot be read.
    """
    try:
        with get_platform().open(path, "rb") as file:
            if file.seek(0, os.SEEK_END) > get_platform().memory_bytes:
                raise ValueError("it is too large for the memory")
            file.seek(0)
            return file.read()
    except FileNotFoundError:
        raise ConfigError(f"--teacher_name: {path} does not exist") from None


def _pair(paths: list[str], layout: Layout) -> Pairs:
    """The queries in one table, and the answers in another."""
    for path in paths:
        if _suffix(path) == ".npz":
            raise ConfigError(f"--teacher_name: {path} cannot be one of two files; valid: {VALID}")
    for flag, value in (("arrays", layout.arrays), ("outputs", layout.outputs)):
        if value is not None:
            raise ConfigError(f"--{flag}: valid only with one file; of two files the first contains the queries and the second the answers")
    (queries, inputs, first), (answers, outputs, second) = (_columns(path) for path in paths)
    notes = [f"{os.path.basename(path)}: {note}" for path, note in zip(paths, (first, second), strict=True) if note]
    names = os.path.basename(paths[0]), os.path.basename(paths[1])
    return dataclasses.replace(_converted(queries, answers, names, "; ".join(notes)), columns=(_named(inputs), _named(outputs)))


def _table(path: str, layout: Layout) -> Pairs:
    """The queries and answers in the columns of one table."""
    if layout.arrays is not None:
        raise ConfigError(f"--arrays: valid only with a .npz file; {path} is a table, whose answers are its last --outputs columns")
    values, names, note = _columns(path)
    return _divided(values, names, layout.outputs, path, f"{os.path.basename(path)}: {note}" if note else "")


def _divided(values: np.ndarray, names: tuple[str, ...], outputs: int | None, path: str, note: str = "") -> Pairs:
    """The queries and answers in the columns of an array; a ConfigError unless `outputs` is the number of answers."""
    width = math.prod(values.shape[1:])
    if width < 2:
        raise ConfigError(f"--teacher_name: {path} has a single column; valid: queries and answers in one table, or {path}+ANSWERS")
    listed = f"{width} columns" + (f" ({_listed(names)})" if names else "")
    if outputs is None:
        raise ConfigError(f"--outputs is required with {path}: how many of its {listed}, counted from the last, are answers")
    if not 1 <= outputs < width:
        raise ConfigError(f"--outputs: {outputs} is out of range; valid: 1 to {width - 1}, because {path} has {listed}")
    values = values.reshape(len(values), -1)
    pairs = _converted(values[:, :-outputs], values[:, -outputs:], ("the queries", "the answers"), note)
    return dataclasses.replace(pairs, columns=(_named(names)[:-outputs], _named(names)[-outputs:]))


def _named(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of columns, none if all are numbers, which programs write where there are no names."""
    return () if all(map(str.isdigit, names)) else names


def _columns(path: str) -> tuple[np.ndarray, tuple[str, ...], str]:
    """The numbers of a table, the names of its columns (none for `.npy`), and a note on what was left out."""
    suffix = _suffix(path)
    try:
        content = _content(path)
        if suffix == ".npy":
            return _array(lambda: io.BytesIO(content), len(content), "the array"), (), ""
        table = text_tables.parse(content, SEPARATORS[suffix])
    except ConfigError:
        raise
    except Exception as error:  # numpy raises exceptions of many types for bytes that it has not written
        raise ConfigError(f"--teacher_name: {path} is not a table of numbers: {reason(error)}") from None
    return table.values, table.names, table.note


def _converted(queries: np.ndarray, answers: np.ndarray, names: tuple[str, str], note: str = "") -> Pairs:
    """Pairs from arrays of any number type, with the archive that a run stores."""
    return Pairs(archive(queries, answers), _matrix(queries), _matrix(answers), names, note)


def _matrix(values: np.ndarray) -> np.ndarray:
    """An array with one row for each pair, as `[n, values]` in float64."""
    return values.astype(np.float64).reshape(len(values), -1)


def archive(queries: np.ndarray, answers: np.ndarray, rows: np.ndarray | None = None, errors: links.Errors | None = None) -> bytes:
    """An `.npz` file with two arrays, the numbers of their rows in the user's file if some are left out, and the errors of logits.

    The same numbers of the same type give the same bytes.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        more = {ROWS: rows, ERRORS: None if errors is None else errors.to_array()}
        for name, values in (*zip(NAMES, (queries, answers), strict=True), *more.items()):
            if values is None:
                continue
            member = io.BytesIO()
            values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
            np.lib.format.write_array(member, values, version=(1, 0), allow_pickle=False)
            file.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    return buffer.getvalue()


def _archive(path: str, layout: Layout) -> Pairs:
    """The queries and answers in an `.npz` file."""
    names = tuple(name.strip() for name in layout.arrays.split(",")) if layout.arrays is not None else NAMES
    try:
        content = _content(path)
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            members = [name.removesuffix(".npy") for name in file.namelist() if name.endswith(".npy")]
            _check_names(path, names, layout, {name: _shape(file, name) for name in members[:SHOWN] if name}, members)
            arrays = [_member(file, name) for name in names]
    except ConfigError:
        raise
    except Exception as error:  # numpy raises exceptions of many types for bytes that it has not written
        raise ConfigError(f"--teacher_name: {path} is not an .npz file of numbers, or is damaged ({reason(error)})") from None
    if len(arrays) == 1:
        return _divided(arrays[0], (), layout.outputs, path)
    if names == NAMES:
        return Pairs(content, _matrix(arrays[0]), _matrix(arrays[1]))
    return _converted(arrays[0], arrays[1], (names[0], names[1]))


def _check_names(path: str, names: tuple[str, ...], layout: Layout, shapes: dict[str, str], members: list[str]) -> None:
    """Raises a ConfigError unless an archive with these arrays has the named ones, two of them, or one with `--outputs`."""
    listed = _listed(tuple(f"{name} {shape}".strip() for name, shape in shapes.items()), len(members)) or "no arrays"
    if layout.outputs is not None and layout.arrays is None:
        raise ConfigError(f"--outputs: valid for a single array, which --arrays names, or a table; {path} contains {listed}")
    if len(names) != (2 if layout.outputs is None else 1) or len({*names}) != len(names):
        valid = "two names, first the queries" if layout.outputs is None else "one name with --outputs"
        raise ConfigError(f"--arrays: {layout.arrays} is wrong; valid: {valid}; {path} contains {listed}")
    if missing := [name for name in names if name not in members]:
        if layout.arrays is not None:
            raise ConfigError(f"--arrays: {path} contains no array {missing[0]!r}; valid: {listed}")
        example = ",".join(_queries_first(members[:2])) if len(members) > 1 else "inputs,targets"
        choose = f"--arrays {example}" if len(members) > 1 else "--arrays chooses others"
        raise ConfigError(f"--teacher_name: {path} must contain arrays X and y, or {choose}; it contains {listed}")


def _queries_first(names: list[str]) -> list[str]:
    """Two names of arrays; names of queries begin with x, in, q or f."""
    return sorted(names, key=lambda name: not name.lower().startswith(("x", "in", "q", "f")))


def _listed(names: tuple[str, ...], count: int | None = None) -> str:
    """Names in a line, the first ones if there are many."""
    return ", ".join(names[:SHOWN]) + (", ..." if max(len(names), count or 0) > SHOWN else "")


def _shape(file: zipfile.ZipFile, name: str) -> str:
    """The shape of an array in an archive as text; empty if its header cannot be read."""
    try:
        with file.open(f"{name}.npy") as member:
            np.lib.format.read_magic(member)
            return str([*np.lib.format.read_array_header_1_0(member)[0]])
    except Exception:  # the array is not necessarily needed
        return ""


def _member(file: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array in an archive; errors as in `_array`."""
    entry = file.getinfo(f"{name}.npy")
    return _array(lambda: file.open(entry), entry.file_size, name)


def _array(opened: Callable[[], IO[bytes]], size: int, name: str) -> np.ndarray:
    """An array of real numbers, with one row for each pair. Its size is checked before it is unpacked.

    Args:
        opened: opens the bytes of a `.npy` file.
        size: their number.
        name: the name of the array in errors.

    Raises:
        ValueError: the array has another type, or its header claims a size that does not match its content or exceeds the memory.
    """
    with opened() as member:
        if np.lib.format.read_magic(member) != (1, 0):  # later versions are for structured arrays, and allow headers of 4 GB
            raise ValueError(f"{name} is not an array of numbers")
        shape, _, kind = np.lib.format.read_array_header_1_0(member)
        count = math.prod(shape)
        if kind.kind not in "fiub" or not count or not shape or min(shape) < 0:
            what = f"contains {KINDS[kind.kind]} (type {kind})" if kind.kind in KINDS else f"has shape {shape} and type {kind}"
            raise ValueError(f"{name} {what}; valid: real numbers{f'; {CLASSES}' if kind.kind in 'USO' else ''}")
        if member.tell() + count * kind.itemsize != size:
            raise ValueError(f"{name} of shape {shape} and type {kind} does not have {size} bytes")
        if 2 * count * np.dtype(np.float64).itemsize > get_platform().memory_bytes:
            raise ValueError(f"{name} of shape {shape} is too large for the memory")
    with opened() as member:
        return np.lib.format.read_array(member, allow_pickle=False)
