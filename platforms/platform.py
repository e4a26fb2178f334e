"""The platform that the whole program looks to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from platforms.base import Platform

_PLATFORM: Platform | None = None


def get_platform() -> Platform:
    """The installed platform; the local one where none is."""
    global _PLATFORM
    if _PLATFORM is None:
        from platforms.local import Platform as Local

        _PLATFORM = Local()
    return _PLATFORM


@contextlib.contextmanager
def installed(platform: Platform) -> Iterator[None]:
    """Makes a platform the global one for a while."""
    global _PLATFORM
    before, _PLATFORM = _PLATFORM, platform
    try:
        yield
    finally:
        _PLATFORM = before
