"""The memory of the machine, and memory that is freed and allocated again in each training step."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # the numbers of these parameters in glibc's malloc.h
LARGEST = 32 << 20  # bytes: tensors up to this size are allocated on the heap; the maximum that glibc allows
KEPT = 1 << 30  # bytes that may remain free at the end of the heap


CONTAINER_LIMITS = "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"


@functools.cache
def total() -> int:
    """The bytes of main memory that this process may use at most: those of the machine, or of its container if that has fewer."""
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in CONTAINER_LIMITS:
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
            limit = min(limit, int(file.read()))
    return limit


@functools.cache
def keep_freed() -> bool:
    """Makes this process keep freed memory for the tensors of the next step. Returns whether the system supports this.

    By default glibc returns the memory of gradients of some megabytes to the system after each step and allocates it again in the next.
    Every page must then be mapped and cleared again: 1,500 page faults per step, a quarter of its time, for ten students 784-80-10.
    Systems without glibc have no such setting; there the function has no effect.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST) and mallopt(TRIM_THRESHOLD, KEPT))
