"""The machine at hand. Edit the folders here, or set them in the environment."""

import os
from dataclasses import dataclass

from platforms import base

ROOT = "./data/sims"
DATASET_ROOT = "./data/datasets"
IMAGENET_ROOT = "./data/imagenet"
BORUTA_ROOT = "./data/boruta"


@dataclass
class Platform(base.Platform):
    """One machine with its own disk."""

    @property
    def root(self) -> str:
        return os.path.abspath(os.environ.get("EC_ROOT") or ROOT)

    @property
    def dataset_root(self) -> str:
        return os.path.abspath(os.environ.get("EC_DATASET_ROOT") or DATASET_ROOT)

    @property
    def imagenet_root(self) -> str:
        return os.path.abspath(os.environ.get("EC_IMAGENET_ROOT") or IMAGENET_ROOT)

    @property
    def boruta_root(self) -> str:
        return os.path.abspath(os.environ.get("EC_BORUTA_ROOT") or BORUTA_ROOT)
