"""The platform that the program uses."""

from __future__ import annotations

import functools

from platforms import base, local


def get_platform() -> base.Platform:
    """The installed platform, or the local platform if none is installed."""
    return base.current() or _default()


@functools.cache
def _default() -> base.Platform:
    return local.Platform()
