"""Standard output and standard error of the program: they may be closed, full, a pipe without a reader, or able to show ASCII only.

`run` surrounds the program. A closed stream is replaced by one that discards everything; a file of the program must not get its number.
When a pipe has lost its reader, such as `head`, the program ends without a message, with the status of a program that SIGPIPE ends. After
any other error, such as a full disk, the stream is discarded, the program continues, and its status is 1.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from foundations.tables import ASCII

READER_GONE = 141  # 128 + SIGPIPE, as shells report it
LOST = 1
ERRORS = "ec_replace"  # the name of `_replace` as a handler of encoding errors


class ReaderGone(BaseException):
    """The reader of standard output or standard error has ended. Error handlers do not catch it: the run has not failed."""

    exit_status = READER_GONE


class _Stream(io.FileIO):
    """The file of a stream. It discards everything after an error.

    Attributes:
        reports: whether an error is reported on standard error.
        failed: whether an error other than the end of the reader has occurred.
    """

    def __init__(self, number: int, reports: bool):
        super().__init__(number, "w", closefd=False)
        self.reports, self.failed, self._discards = reports, False, False

    def write(self, content) -> int:
        """Writes bytes; returns their number.

        Raises:
            ReaderGone: the stream is a pipe, and its reader has ended.
        """
        if not self._discards:
            try:
                return super().write(content) or 0
            except BrokenPipeError:
                self._discards = True
                raise ReaderGone from None
            except OSError as error:
                self._discards, self.failed = True, self.reports
                if self.reports:
                    with contextlib.suppress(OSError, ReaderGone):
                        print(f"EC.py: standard output cannot be written ({error.strerror or error})", file=sys.stderr, flush=True)
        return len(memoryview(content).cast("B"))


def run(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Runs the program with streams that cannot fail it, and returns the exit status."""
    _open_closed_streams()
    codecs.register_error(ERRORS, _replace)
    out, err = _Stream(1, reports=True), _Stream(2, reports=False)
    sys.stdout, sys.stderr = _wrapped(sys.stdout, out), _wrapped(sys.stderr, err)
    try:
        try:
            status = main(arguments)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    except ReaderGone as gone:
        return gone.exit_status
    return status or (LOST if out.failed else 0)


def _open_closed_streams() -> None:
    """Opens the null device for each of the three standard streams that is closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest free number
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8")


def _wrapped(stream: Any, file: _Stream) -> io.TextIOWrapper:
    """A text stream on a file, like the stream of the interpreter, which is None if it was closed."""
    if stream is None:
        return io.TextIOWrapper(io.BufferedWriter(file), "utf-8", ERRORS)
    stream.flush()
    unbuffered = isinstance(stream.buffer, io.RawIOBase)
    buffer = file if unbuffered else io.BufferedWriter(file)
    return io.TextIOWrapper(buffer, stream.encoding, ERRORS, None, stream.line_buffering, stream.write_through)


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Replaces the characters that an encoding lacks: by similar characters of ASCII, or by their numbers in Python's notation."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(ASCII.get(ord(character)) or character.encode("ascii", "backslashreplace").decode() for character in text), error.end
