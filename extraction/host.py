"""The boundary between the platform's device, where extraction computes, and the host, where scipy computes and matplotlib draws.

Tensors leave the device here and nowhere else: for linkage, assignment and pivoted QR (scipy), and for pictures.
"""

from __future__ import annotations

import numpy as np
import torch


def to_host(tensor: torch.Tensor) -> np.ndarray:
    """The values of a tensor as an array on the host."""
    return tensor.detach().cpu().numpy()


def from_host(array: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """An array as a tensor on the device of another tensor; the number format stays that of the array."""
    return torch.from_numpy(array).to(like.device)
