"""The platform that the whole program looks to."""

from __future__ import annotations

import functools

from platforms import base, local


def get_platform() -> base.Platform:
    """The installed platform; the local one where none is."""
    return base.current() or _default()


@functools.cache
def _default() -> base.Platform:
    return local.Platform()
