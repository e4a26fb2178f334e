"""Libraries that only some runs need, imported when they are needed, with a line of explanation where that fails."""

from __future__ import annotations

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
