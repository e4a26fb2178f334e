"""Masks of earlier versions of this program, whose magnitude pruning removed fewer weights. Their experiments cannot be continued.

The number of removed weights tells them apart: see `pruning/magnitude.py`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from foundations.errors import ConfigError
from lottery.desc import LotteryDesc
from models import registry as models
from platforms.platform import get_platform
from pruning import registry as pruning
from pruning.mask import Mask


def reason(desc: LotteryDesc, seed: int, levels: Iterable[int]) -> str | None:
    """The reason why the levels of a seed cannot be continued; None if they can. Levels without a readable mask are skipped."""
    strategy, outline = pruning.get(desc.pruning_hparams), models.meta_model(desc.model_hparams)
    before = None
    for level in levels:
        location = desc.run_path(get_platform().root, seed, level)
        mask = readable_mask(location)
        surplus = 0
        if before is not None and mask is not None:
            try:
                surplus = strategy.surplus(desc.pruning_hparams, outline, before, mask)
            except (ConfigError, KeyError, RuntimeError):  # masks of another model are reported where they are used
                return None
        if mask is not None and surplus:
            folder = os.path.dirname(os.path.dirname(location))
            return (
                f"an earlier version of this program pruned level {level} of {folder}: {mask.unpruned:,} of {mask.total:,} weights are "
                f"left, and this version leaves {mask.unpruned - surplus:,}; its finished levels can be read, but not continued: move this "
                "folder away, or use another --global_seed"
            )
        before = mask
    return None


def readable_mask(location: str) -> Mask | None:
    """The mask in a folder; None without a readable mask."""
    try:
        return Mask.load(location) if Mask.exists(location) else None
    except ConfigError:
        return None


def seeds(desc: LotteryDesc) -> list[int]:
    """The seeds of an experiment with masks of earlier versions, if other seeds have none: their levels have other numbers of weights."""
    root = os.path.join(get_platform().root, desc.hashname)
    everyone = sorted(int(name[5:]) for name in get_platform().listdir(root) if re.fullmatch(r"seed_-?\d+", name))
    found = [seed for seed in everyone if reason(desc, seed, _levels(desc.seed_path(get_platform().root, seed)))]
    return found if len(found) < len(everyone) else []


def _levels(folder: str) -> list[int]:
    """The numbers of the levels in the folder of a seed, in increasing order."""
    return sorted(int(name[6:]) for name in get_platform().listdir(folder) if re.fullmatch(r"level_\d+", name))
