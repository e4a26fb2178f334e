"""The ledger of a live teacher: every question that it was asked, with its answer, in one file that only grows.

There is one ledger for each teacher under the root, `<name of the teacher>.ledger`, which all runs share. A run with another activation
function, other students or another seed asks nothing that was asked before. Results do not depend on which run was first, because the
questions of `--datagen` are the same for every seed, like the pairs in a file.

A batch is two records: the queries before they are asked, and the answers after. A process that is killed in between leaves queries without
answers. They were asked and count as such, and they are asked again. Every record has a length and a checksum. An incomplete record at the
end, which a killed process leaves, is removed by the next process that asks. Of the processes of a job only the primary one asks; all read.

Questions of derivatives, and those that examine their network (DERIVED), are many, and follow from the answers before: 150,000 queries of
784 inputs would take 0.9 GB. Of them, the ledger has the answers and the keys, which are digests of the queries of 128 bits, and not the
queries themselves: 17 MB.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import numpy as np

from foundations import json_text
from foundations.errors import ConfigError, reason
from platforms.platform import get_platform
from platforms.system import files, lock_files, locks
from platforms.system.signals import Stopped

MAGIC = b"EC ledger 1\n"
HEAD = struct.Struct("<QI")  # the length of the content of a record, and its CRC-32
KEY_BYTES = 16
REMEDY = "move it away to ask everything again"
DERIVED = ("derivatives", "fresh")  # phases whose queries are not kept

# Answers `[m, outputs]` to the first m of some queries `[n, inputs]`, the first of which has a number, counted from 1 over the ledger; and
# the error that prevented the others.
Respond = Callable[[np.ndarray, int], tuple[np.ndarray, ConfigError | None]]


class Ledger:
    """The questions and answers in a file, which need not exist.

    `on_batch` is called after each batch with the number of questions that were asked since, and of those to ask.
    """

    def __init__(self, path: str):
        self.path = path
        self.on_batch: Callable[[int, int], None] = lambda asked, total: None
        self._answers: dict[bytes, np.ndarray] = {}
        self._times: dict[bytes, int] = {}
        self._pending: list[bytes] = []  # the queries of the last record, if their answers are still to come
        self._end = 0  # where the last whole record ends
        self._asked = 0
        self.refresh()

    @property
    def asked(self) -> int:
        """How many questions the teacher was asked."""
        return self._asked

    @property
    def known(self) -> int:
        """How many questions have an answer."""
        return len(self._answers)

    def lost(self, keys: Iterable[bytes]) -> int:
        """How often some questions were asked without an answer that was kept, because the process was killed or the teacher failed."""
        return sum(self._times.get(key, 0) - (key in self._answers) for key in keys if key in self._times)

    def answers(self, keys: list[bytes]) -> np.ndarray:
        """The answers to questions that are all known, `[n, outputs]`."""
        return np.stack([self._answers[key] for key in keys])

    def knows(self, keys: list[bytes]) -> bool:
        """Whether there is an answer to each of some questions."""
        return all(key in self._answers for key in keys)

    def ask(self, queries: np.ndarray, keys: list[bytes], phase: str, batch_size: int, respond: Respond) -> None:
        """Asks those questions that have no answer yet, in batches, each once.

        Args:
            queries: `[n, inputs]`, float64.
            keys: of the questions, see `keys_of`.
            phase: what they are for, which is kept with them.
            batch_size: the number of queries in a call of the teacher.
            respond: the teacher.

        Raises:
            ConfigError: the teacher failed; the answers before are kept. Or the file is damaged, or cannot be written.
            Stopped: a signal has requested a stop.
        """
        if self.knows(keys):
            return
        with locks.held_file(self.path):
            self.refresh()
            first = {key: place for place, key in reversed(list(enumerate(keys))) if key not in self._answers}
            places = sorted(first.values())
            try:
                with get_platform().open(self.path, "r+b" if os.path.exists(self.path) else "x+b") as file:
                    file.truncate(self._end)
                    for start in range(0, len(places), batch_size):
                        chosen = places[start : start + batch_size]
                        self._ask_batch(file, queries[chosen], [keys[place] for place in chosen], phase, respond)
                        self.on_batch(start + len(chosen), len(places))
            except OSError as error:
                raise ConfigError(f"{self.path} cannot be written ({error.strerror or error})") from error

    def _ask_batch(self, file: IO[bytes], queries: np.ndarray, keys: list[bytes], phase: str, respond: Respond) -> None:
        """Asks some questions, and writes them before they are asked and their answers after."""
        if get_platform().is_stopping:
            raise Stopped(f"Stopped after {self.asked:,} questions, whose answers are kept")
        number, is_derived = self.asked + 1, phase in DERIVED
        kept_keys = {"keys": [key.hex() for key in keys]} if is_derived or _are_salted(queries, keys) else {}
        self._append(file, {"phase": phase} | kept_keys, queries[:, :0] if is_derived else queries)
        self._note_queries(keys)
        answers, error = respond(queries, number)
        self._append(file, {}, answers)
        self._note_answers(answers)
        if error is not None:
            raise error

    def _append(self, file: IO[bytes], meta: dict[str, Any], values: np.ndarray) -> None:
        """Writes a record at the end of the file."""
        lock_files.check()
        record = _record(meta, values)
        file.seek(self._end)
        content = record if self._end else MAGIC + record
        file.write(content)
        file.flush()
        self._end += len(content)

    def refresh(self) -> None:
        """Reads what was written since the last time.

        Raises:
            ConfigError: the file is damaged.
        """
        if not os.path.exists(self.path):
            return
        try:
            with get_platform().open(self.path, "rb") as file:
                for meta, values in self._records(file):
                    if "phase" in meta:
                        self._note_queries([bytes.fromhex(key) for key in meta["keys"]] if "keys" in meta else keys_of(values))
                    else:
                        self._note_answers(values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise files.damaged(self.path, reason(error), REMEDY) from None
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be read ({error.strerror or error}); {REMEDY}") from None

    def _records(self, file: IO[bytes]) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        """The records after `_end`, which moves on with them; an incomplete one at the end is left out."""
        size = file.seek(0, 2)
        file.seek(self._end)
        if not self._end:
            magic = file.read(len(MAGIC))
            if not MAGIC.startswith(magic):
                raise ValueError("it is no ledger")
            if len(magic) < len(MAGIC):
                return
            self._end = len(MAGIC)
        while len(head := file.read(HEAD.size)) == HEAD.size:
            length, checksum = HEAD.unpack(head)
            end = self._end + HEAD.size + length
            if end > size:
                return
            content = file.read(length)
            if zlib.crc32(content) != checksum:
                if end == size:
                    return  # the last record, which was not written as a whole
                raise ValueError(f"the record at byte {self._end:,} does not match its checksum")
            self._end = end
            yield _parsed(content)

    def _note_queries(self, keys: list[bytes]) -> None:
        self._pending = keys
        self._asked += len(keys)
        for key in keys:
            self._times[key] = self._times.get(key, 0) + 1

    def _note_answers(self, answers: np.ndarray) -> None:
        if len(answers) > len(self._pending):
            raise ValueError("it has answers without queries")
        self._answers.update(zip(self._pending, answers, strict=False))
        self._pending = []


def keys_of(queries: np.ndarray, occasion: int = 0) -> list[bytes]:
    """The key of the question that each query is, `[n, inputs]` in float64.

    Args:
        queries: two queries are the same question if all their bits are.
        occasion: a query that is asked again on purpose is another question.
    """
    salt = occasion.to_bytes(8, "little") if occasion else b""
    return [hashlib.blake2b(row.tobytes(), digest_size=KEY_BYTES, salt=salt).digest() for row in np.ascontiguousarray(queries, "<f8")]


def _are_salted(queries: np.ndarray, keys: list[bytes]) -> bool:
    """Whether questions are queries that are asked again on purpose, so that their keys must be kept."""
    return keys_of(queries[:1]) != keys[:1]


def _record(meta: dict[str, Any], values: np.ndarray) -> bytes:
    """A record: length and checksum, then a line of JSON and the numbers in float64."""
    values = np.ascontiguousarray(values, "<f8")
    content = json_text.dumps(meta | {"shape": list(values.shape)}).encode() + b"\n" + values.tobytes()
    return HEAD.pack(len(content), zlib.crc32(content)) + content


def _parsed(content: bytes) -> tuple[dict[str, Any], np.ndarray]:
    """The JSON and the numbers of a record.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    line, _, numbers = content.partition(b"\n")
    meta = files.parse_json(line.decode())
    return meta, np.frombuffer(numbers, "<f8").reshape(meta["shape"]).astype(np.float64)
