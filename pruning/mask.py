"""Pruning masks: which weights of a network remain."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TypeGuard

import numpy as np
import torch

from foundations import json_text, paths
from foundations.errors import ConfigError, reason, unknown
from models import base
from platforms.platform import get_platform
from platforms.system import files

LARGEST_COUNT = 2**63  # of weights


class Mask(Mapping[str, torch.Tensor]):
    """A mapping from the name of each prunable layer to a boolean tensor on the CPU: True where a weight remains.

    Args:
        layers: tensors or arrays of zeros and ones, of any dtype. Boolean tensors are not copied, and must not be changed afterwards.

    Raises:
        ConfigError: there are no layers, or a value is neither 0 nor 1.
    """

    def __init__(self, layers: Mapping[str, torch.Tensor | np.ndarray]):
        if not layers:
            raise ConfigError("a mask needs one layer or more")
        self._layers = {name: _as_boolean(name, values) for name, values in layers.items()}

    @staticmethod
    def ones_like(model: base.Model) -> Mask:
        """The mask of a network without pruned weights."""
        shapes = model.state_dict()
        return Mask({name: torch.ones(shapes[name].shape, dtype=torch.bool) for name in model.prunable_layer_names})

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mask) and self.keys() == other.keys() and all(torch.equal(self[name], other[name]) for name in self)

    __hash__ = None

    @property
    def total(self) -> int:
        """The number of all weights of the layers."""
        return sum(values.numel() for values in self.values())

    @property
    def unpruned(self) -> int:
        """The number of remaining weights."""
        return sum(int(values.count_nonzero()) for values in self.values())

    @property
    def density(self) -> float:
        """The share of the weights that remains."""
        return self.unpruned / self.total

    def select(self, i: int) -> Mask:
        """The mask of student i, as the mask of a stack of one."""
        return self.part(i, i + 1)

    def part(self, first: int, end: int) -> Mask:
        """The mask of the students `first` to `end - 1`."""
        return Mask({name: values[first:end] for name, values in self.items()})

    def check_fits(self, model: base.Model) -> None:
        """Raises a ConfigError unless the mask has exactly the prunable layers of a model, with the same shapes."""
        names, state = model.prunable_layer_names, model.state_dict()
        for name in self:
            if name not in names:
                raise unknown("layer of a mask", name, names)
        for name in names:
            if name not in self:
                raise ConfigError(f"the mask lacks the layer {name} of its model")
            if self[name].shape != state[name].shape:
                raise ConfigError(f"the mask has shape {list(self[name].shape)} for {name}; its model has {list(state[name].shape)}")

    def save(self, location: str) -> None:
        """Writes the mask to a run folder, with eight weights per byte, after a report with the numbers of all and of remaining weights."""
        report = json_text.dumps({"total": self.total, "unpruned": self.unpruned}, indent=4)
        packed = {name: {"shape": list(values.shape), "bits": _pack(values)} for name, values in self.items()}
        get_platform().write(paths.sparsity_report(location), report + "\n")
        get_platform().write(paths.mask(location), base.to_bytes(packed))

    @staticmethod
    def load(location: str) -> Mask:
        """The mask in a run folder. Masks of OpenLTH and of the published code are tensors of zeros and ones.

        Raises:
            ConfigError: the file is missing or damaged.
        """
        state = base.read_state(paths.mask(location))
        try:
            return Mask({name: entry if _is_theirs(entry) else _unpack(**entry) for name, entry in state.items()})
        except (ConfigError, AttributeError, TypeError, ValueError, RuntimeError) as error:
            remedy = "move it away and run the same command again"
            raise files.damaged(paths.mask(location), f"not a mask: {reason(error)}", remedy) from None

    @staticmethod
    def counts(location: str) -> tuple[int, int]:
        """The numbers of remaining weights and of all weights of the mask in a run folder, read from its report.

        Raises:
            ConfigError: the report is missing or damaged.
        """
        path, remedy = paths.sparsity_report(location), "delete it and its mask, and run the same command again"
        content = files.read_json(path, remedy)
        unpruned, total = (content.get("unpruned"), content.get("total")) if isinstance(content, dict) else (None, None)
        if _is_count(unpruned) and _is_count(total) and 0 <= unpruned <= total < LARGEST_COUNT and total:
            return int(unpruned), int(total)
        raise files.damaged(path, "it lacks the numbers of remaining weights and of all weights", remedy)

    @staticmethod
    def exists(location: str) -> bool:
        """Whether a run folder has a mask."""
        return get_platform().exists(paths.mask(location))


def _is_theirs(entry: object) -> TypeGuard[torch.Tensor]:
    """Whether the entry of a layer is one of OpenLTH or of the published code."""
    return isinstance(entry, torch.Tensor) and entry.dtype == torch.int32


def _is_count(value: object) -> TypeGuard[float]:
    """Whether a value is a whole number. OpenLTH writes counts with a decimal point."""
    return type(value) is int or (type(value) is float and value.is_integer())


def _as_boolean(name: str, values: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Zeros and ones as booleans on the CPU; a ConfigError for other values."""
    values = torch.as_tensor(values).detach()
    if values.dtype != torch.bool and not bool(((values == 0) | (values == 1)).all()):
        raise ConfigError(f"the mask of {name} has values other than 0 and 1")
    return values.to("cpu", torch.bool).contiguous()


def _pack(values: torch.Tensor) -> torch.Tensor:
    """Booleans as bits in bytes, `[ceil(n / 8)]`; the first boolean is the highest bit of the first byte."""
    return torch.from_numpy(np.packbits(values.numpy()))


def _unpack(shape: list[int], bits: torch.Tensor) -> torch.Tensor:
    """The inverse of `_pack`."""
    count = math.prod(shape)
    if bits.dtype != torch.uint8 or bits.shape != (-(-count // 8),):
        raise ValueError(f"{bits.numel()} bytes for {count} weights")
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=count).reshape(shape))
