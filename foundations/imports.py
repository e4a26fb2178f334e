"""Libraries that only some runs need, imported when they are needed, with a line of explanation where that fails."""

from __future__ import annotations

import importlib
import types

from foundations.errors import ConfigError, reason


def torchvision() -> types.ModuleType:
    """torchvision, which must fit the installed torch.

    Raises:
        ConfigError: it does not, or is not there.
    """
    import torch

    try:
        import torchvision
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"torchvision cannot be imported beside torch {torch.__version__} ({reason(error)}); "
            "`pip install -r requirements.txt` in a fresh environment installs a pair that fits"
        ) from error
    return torchvision


def optional(module: str, wanted_by: str, package: str) -> types.ModuleType:
    """A library that is none of the requirements.

    Args:
        module: what of it is imported.
        wanted_by: the flag that asks for it.
        package: what pip installs.

    Raises:
        ConfigError: it is not there, or does not work here.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # a library that does not fit the others fails in any way
        raise ConfigError(f"{wanted_by} needs {package}, which cannot be imported ({reason(error)}): pip install {package}") from error
