"""The step of a checkpoint, read without torch: the file is a zip archive of pickled records, of which nothing is executed."""

from __future__ import annotations

import collections
import io
import pickle
import zipfile

LONGEST = 2**24  # bytes of records; tensors are in other members of the archive


class _Inert:
    """What stands for every object that the records would make."""

    def __new__(cls, *args: object, **kwargs: object) -> _Inert:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


class _Reader(pickle.Unpickler):
    """An unpickler that finds no class but ordered dictionaries."""

    def find_class(self, module: str, name: str) -> type:
        return collections.OrderedDict if (module, name) == ("collections", "OrderedDict") else _Inert

    def persistent_load(self, pid: object) -> None:
        return None


def iteration(path: str) -> int | None:
    """The iteration that a checkpoint was written at; None where the file does not say."""
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if archive.getinfo(name).file_size > LONGEST:
                return None
            found = _Reader(io.BytesIO(archive.read(name))).load()["schedule"]["iteration"]
    except Exception:  # a damaged file may raise anything
        return None
    return found if type(found) is int else None
