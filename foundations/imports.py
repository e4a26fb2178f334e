"""Imports of libraries that only some runs need. If an import fails, the error explains how to install the library."""

from __future__ import annotations

import importlib
import types

from foundations.errors import ConfigError, reason


def torchvision() -> types.ModuleType:
    """Imports torchvision.

    Raises:
        ConfigError: torchvision is missing, or does not match the installed torch.
    """
    import torch

    try:
        import torchvision
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"torchvision cannot be imported with torch {torch.__version__} ({reason(error)}); "
            "`pip install -r requirements.txt` in a fresh environment installs versions that match"
        ) from error
    return torchvision


def optional(module: str, flag: str, package: str) -> types.ModuleType:
    """Imports a library that `requirements.txt` does not install.

    Args:
        module: the module to import.
        flag: the flag that needs the library.
        package: the name of the library in pip.

    Raises:
        ConfigError: the library is missing, or its import fails.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # a library that does not match the others can raise any error
        raise ConfigError(f"{flag} needs {package}, which cannot be imported ({reason(error)}): pip install {package}") from error
