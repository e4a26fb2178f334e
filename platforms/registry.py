"""The values of `--platform`."""

from foundations.errors import unknown
from platforms import distributed, local, slurm
from platforms.base import Platform

registered_platforms = {"local": local.Platform, "distributed": distributed.Platform, "slurm": slurm.Platform}


def get(name: str) -> type[Platform]:
    """The class of a platform.

    Raises:
        ConfigError: no platform has this name.
    """
    if name not in registered_platforms:
        raise unknown("--platform", name, registered_platforms)
    return registered_platforms[name]
