"""Signals that request a stop. A signal is only recorded here. Code that can stop without loss checks the record, and stops.

Schedulers send such signals before the time limit of a job and before they preempt it. Some send them twice.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h: no error; the command should be started again
SIGNALS = ("SIGTERM", "SIGUSR1", "SIGUSR2")  # signals that the system does not have are ignored

_received: str | None = None


class Stopped(BaseException):
    """A run has written its checkpoint and stopped because of a signal. Error handlers do not catch it: it is not an Exception."""


def requested() -> str | None:
    """The name of the signal that has requested a stop, or None."""
    return _received


@contextlib.contextmanager
def watching() -> Iterator[None]:
    """Records the signals within the block. Only the main thread can handle signals; in other threads nothing changes."""
    global _received
    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    in_main_thread = threading.current_thread() is threading.main_thread()
    previous = {number: signal.signal(number, _record) for number in numbers} if in_main_thread else {}
    try:
        yield
    finally:
        _received = None
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within the block Ctrl-C requests a stop, too. A second Ctrl-C interrupts immediately."""

    def handle(number: int, frame: object) -> None:
        signal.signal(number, signal.default_int_handler)
        with contextlib.suppress(OSError):
            os.write(2, b"\nStopping as soon as checkpoints are written. Another Ctrl-C interrupts immediately.\n")  # print is not safe
        _record(number, frame)

    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # shells let background jobs ignore it
        yield
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _record(number: int, frame: object) -> None:
    """The signal handler."""
    global _received
    _received = signal.Signals(number).name
