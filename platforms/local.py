"""The local machine. Edit the folders here, or set them by environment variables."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from platforms import base

if TYPE_CHECKING:
    import torch

ROOT = "./data/sims"
DATASET_ROOT = "./data/datasets"
IMAGENET_ROOT = "./data/imagenet"
BORUTA_ROOT = "./data/boruta"


@dataclass
class Platform(base.Platform):
    """The local machine, with all GPUs that CUDA_VISIBLE_DEVICES lists."""

    def data_parallel(self, forward: torch.nn.Module) -> torch.nn.Module:
        import torch

        return forward if self.devices == 1 else torch.nn.DataParallel(forward)

    @property
    def devices(self) -> int:
        import torch

        return torch.cuda.device_count() if self.torch_device.type == "cuda" else 1

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that give another process the same folders, from any working directory."""
        roots = {"EC_ROOT": self.root, "EC_DATASET_ROOT": self.dataset_root}
        return roots | {"EC_IMAGENET_ROOT": self.imagenet_root, "EC_BORUTA_ROOT": self.boruta_root}

    @staticmethod
    def _folder(variable: str, default: str) -> str:
        """The folder that an environment variable names, as an absolute path; `~` is the home of the user."""
        return os.path.abspath(os.path.expanduser(os.environ.get(variable) or default))

    @property
    def root(self) -> str:
        return self._folder("EC_ROOT", ROOT)

    @property
    def dataset_root(self) -> str:
        return self._folder("EC_DATASET_ROOT", DATASET_ROOT)

    @property
    def imagenet_root(self) -> str:
        return self._folder("EC_IMAGENET_ROOT", IMAGENET_ROOT)

    @property
    def boruta_root(self) -> str:
        return self._folder("EC_BORUTA_ROOT", BORUTA_ROOT)
