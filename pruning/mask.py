"""Which weights of a network are left."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from foundations import paths
from foundations.errors import ConfigError, reason, unknown
from models import base
from platforms.platform import get_platform
from platforms.system import files

LARGEST = 2**63  # number of weights


class Mask(Mapping[str, torch.Tensor]):
    """For each prunable layer of a network, by name, a boolean tensor on the CPU: True where a weight is left.

    Args:
        layers: tensors or arrays of zeros and ones, of any number format. Booleans are kept as they are, and not to be changed afterwards.

    Raises:
        ConfigError: there is no layer, or a value other than 0 and 1.
    """

    def __init__(self, layers: Mapping[str, torch.Tensor | np.ndarray]):
        if not layers:
            raise ConfigError("a mask needs one layer or more")
        self._layers = {name: _binary(name, values) for name, values in layers.items()}

    @staticmethod
    def ones_like(model: base.Model) -> Mask:
        """The mask of a network of which nothing is pruned."""
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
        """All weights of the layers."""
        return sum(values.numel() for values in self.values())

    @property
    def unpruned(self) -> int:
        """The weights that are left."""
        return sum(int(values.count_nonzero()) for values in self.values())

    @property
    def density(self) -> float:
        """The share of the weights that is left."""
        return self.unpruned / self.total

    def select(self, i: int) -> Mask:
        """The mask of student i alone, as that of a stack of one."""
        return self.part(i, i + 1)

    def part(self, first: int, end: int) -> Mask:
        """The mask of the students from one up to another."""
        return Mask({name: values[first:end] for name, values in self.items()})

    def check_fits(self, model: base.Model) -> None:
        """Raises a ConfigError unless the mask has exactly the prunable layers of a model, in their shapes."""
        names, state = model.prunable_layer_names, model.state_dict()
        for name in self:
            if name not in names:
                raise unknown("layer of a mask", name, names)
        for name in names:
            if name not in self:
                raise ConfigError(f"a mask lacks the layer {name} of its model")
            if self[name].shape != state[name].shape:
                raise ConfigError(f"a mask has {list(self[name].shape)} for {name}; its model has {list(state[name].shape)}")

    def save(self, location: str) -> None:
        """Writes the mask to a run folder, eight weights a byte, and beside it how many there are and how many are left."""
        report = json.dumps({"total": self.total, "unpruned": self.unpruned}, indent=4)
        packed = {name: {"shape": list(values.shape), "bits": _pack(values)} for name, values in self.items()}
        get_platform().write(paths.sparsity_report(location), report + "\n")
        get_platform().write(paths.mask(location), base.to_bytes(packed))

    @staticmethod
    def load(location: str) -> Mask:
        """The mask that a run folder holds.

        Raises:
            ConfigError: there is none, or it is damaged.
        """
        state = base.read_state(paths.mask(location))
        try:
            return Mask({name: _unpack(**entry) for name, entry in state.items()})
        except (ConfigError, AttributeError, TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(f"{paths.mask(location)} is no mask ({reason(error)}); move it away and run the same command again") from None

    @staticmethod
    def counts(location: str) -> tuple[int, int]:
        """How many weights are left in a run folder's mask, and how many there are, without reading the mask.

        Raises:
            ConfigError: the file that says so is missing or damaged.
        """
        path, remedy = paths.sparsity_report(location), "delete it and its mask, and run the same command again"
        content = files.read_json(path, remedy)
        found = [content.get(name) for name in ("unpruned", "total")] if isinstance(content, dict) else [None]
        if any(type(count) is not int for count in found) or not 0 <= found[0] <= found[1] < LARGEST or not found[1]:
            raise files.damaged(path, "it does not say how many weights are left of how many", remedy)
        return tuple(found)

    @staticmethod
    def exists(location: str) -> bool:
        """Whether a run folder holds a mask."""
        return get_platform().exists(paths.mask(location))


def _binary(name: str, values: torch.Tensor | np.ndarray) -> torch.Tensor:
    values = torch.as_tensor(values).detach()
    if values.dtype != torch.bool and not bool(((values == 0) | (values == 1)).all()):
        raise ConfigError(f"a mask of {name} has values other than 0 and 1")
    return values.to("cpu", torch.bool).contiguous()


def _pack(values: torch.Tensor) -> torch.Tensor:
    """Booleans as bits, `[ceil(n / 8)]`, the first in the highest bit of the first byte."""
    return torch.from_numpy(np.packbits(values.numpy()))


def _unpack(shape: list[int], bits: torch.Tensor) -> torch.Tensor:
    """The inverse of `_pack`."""
    count = math.prod(shape)
    if bits.dtype != torch.uint8 or bits.shape != (-(-count // 8),):
        raise ValueError(f"{bits.numel()} bytes for {count} weights")
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=count).reshape(shape))
