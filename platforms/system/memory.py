"""Memory that a process gives back and asks for again, once a step."""

from __future__ import annotations

import ctypes
import functools

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # numbers of glibc's parameters, of its malloc.h
LARGEST = 32 << 20  # bytes: tensors up to this size share one heap, and glibc allows no more
KEPT = 1 << 30  # bytes that may lie free at the end of that heap


@functools.cache
def keep_freed() -> bool:
    """Makes this process keep memory that it has freed, for tensors of the next step, and says whether it can.

    Left to itself, glibc hands the gradients of some megabytes back to the system after each step and asks for them again in the next,
    where every page must be mapped and cleared anew: 1,500 page faults a step, a quarter of its time, for ten students 784-80-10. Only
    glibc has this to set; elsewhere nothing is done.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST) and mallopt(TRIM_THRESHOLD, KEPT))
