"""Being asked to stop. A signal only leaves a note here; who can stop without loss looks for it, and stops.

Schedulers send such signals before the time of a job is up and when they need its place, some of them twice.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, start it again
SIGNALS = ("SIGTERM", "SIGUSR1", "SIGUSR2")  # those of them that the system has

_received: str | None = None


class Stopped(BaseException):
    """A run has stopped because it was asked to, with its checkpoint written. No error, so that nothing that handles errors takes it."""


def requested() -> str | None:
    """The name of the signal that has asked to stop; None where none has."""
    return _received


@contextlib.contextmanager
def watching() -> Iterator[None]:
    """Listens to the signals for as long as the block takes; elsewhere than in the main thread, which alone may, it leaves them alone."""
    global _received
    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    listening = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, _note) for number in numbers} if listening else {}
    try:
        yield
    finally:
        _received = None
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Takes a Ctrl-C for being asked to stop, too, for as long as the block takes; a second one interrupts at once."""

    def note(number: int, frame: object) -> None:
        signal.signal(number, signal.default_int_handler)
        os.write(2, b"\nStopping as soon as checkpoints are written. Another Ctrl-C interrupts at once.\n")  # print may be at work
        _note(number, frame)

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # a shell lets a background job ignore it
        yield
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _note(number: int, frame: object) -> None:
    global _received
    _received = signal.Signals(number).name
