"""The base class of all model families, and reading files of weights safely."""

from __future__ import annotations

import abc
import io
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from typing import IO

import torch
from torch import nn
from torch.nn import functional as F

from foundations import ancestors, paths
from foundations.defaults import DefaultHparams
from foundations.errors import ConfigError, reason
from foundations.step import Step
from models.parallel import KERNEL_LAYERS
from platforms.platform import get_platform

Initializer = Callable[[nn.Module], None]


class Model(abc.ABC, nn.Module):
    """A torch module with the names and the default hyperparameters of its family, and the names of its prunable tensors."""

    @staticmethod
    @abc.abstractmethod
    def is_valid_model_name(model_name: str) -> bool:
        """Whether the name is valid in this family."""

    @staticmethod
    @abc.abstractmethod
    def name_rules() -> list[str]:
        """The patterns of the valid names, for help texts and error messages."""

    @staticmethod
    @abc.abstractmethod
    def default_members() -> dict[str, str]:
        """For each bare family name, the full name of its default model."""

    @staticmethod
    @abc.abstractmethod
    def get_model_from_name(model_name: str, initializer: Initializer, outputs: int | None = None, act_fun: str = "relu") -> Model:
        """Builds the model with this name and initialises its weights.

        Args:
            model_name: a name that `is_valid_model_name` accepts.
            initializer: a function that is applied to every module.
            outputs: units of the output layer; the default of the family if None.
            act_fun: a key of `models/activation_functions.py`.

        Raises:
            ConfigError: the name contains another number of outputs.
        """

    @staticmethod
    @abc.abstractmethod
    def default_hparams(model_name: str) -> DefaultHparams:
        """The default hyperparameters for training this model."""

    @property
    def input_size(self) -> int | None:
        """The number of values of an example; None if the model accepts images of any size."""
        return None

    @property
    def channels(self) -> int | None:
        """The number of channels of an image; None if the model accepts examples that are not images."""
        return None

    @property
    def prunable_layer_names(self) -> list[str]:
        """The names of the tensors that can be pruned: the kernels of convolutional and linear layers."""
        return [f"{name}.weight" for name, module in self.named_modules() if isinstance(module, KERNEL_LAYERS)]

    @property
    @abc.abstractmethod
    def output_layer_names(self) -> list[str]:
        """The names of the tensors of the output layer, the bias last."""

    def loss_criterion(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The training loss: cross-entropy for class labels, mean squared error for real-valued targets."""
        if labels.is_floating_point():
            return F.mse_loss(outputs, labels)
        return F.cross_entropy(outputs, labels)

    def convert_state_dict(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Converts a state dict of another framework to the keys and layouts of this model. Most models use the same ones."""
        return state

    def save(self, location: str, step: Step) -> None:
        """Writes the weights to the file in the run folder that is named after the step, kernels of convolutions with channels first."""
        state = self.state_dict()
        state.update({name: values.contiguous() for name, values in state.items() if values.dim() == 4})
        get_platform().write(paths.model(location, step), to_bytes(state))


def to_bytes(state: object) -> bytes:
    """Serialises tensors and plain values in the file format of torch."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def read_state(path: str) -> dict:
    """Reads a file in the format of torch onto the CPU, without executing any code in it.

    Raises:
        ConfigError: the file does not exist, is damaged, or contains objects other than tensors and plain values.
    """
    program = ancestors.program_of(path)
    remedy = f"{program} has written it" if program else "move it away or delete it, and run the same command again"
    try:
        file = get_platform().open(path, "rb")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror or error})") from None
    with file:
        try:
            _check_archive(file)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch uses deprecated functions for files in its older format
                with torch.serialization.safe_globals(_PLAIN_NUMPY):
                    state = torch.load(file, map_location="cpu", weights_only=True)
            _check_values(state)
        except pickle.UnpicklingError:
            raise ConfigError(f"{path} is damaged or contains more than tensors and plain values, so it was not loaded; {remedy}") from None
        except Exception as error:  # torch raises exceptions of many types for bytes that it has not written
            raise ConfigError(f"{path} is damaged or truncated ({reason(error)}); {remedy}") from None
    return state


class _NumberType:
    """The type of a number of numpy, in place of `numpy.dtype`."""

    def __init__(self, name: str, *_: object):
        self.name = name

    def __setstate__(self, state: tuple) -> None:
        """Checks the byte order, the second item of the state; a ValueError for another one than that of files of torch."""
        if state[1] != "<":
            raise ValueError(f"{state[1]!r:.20} is not the byte order of a file of torch")


def _plain_number(kind: _NumberType, content: bytes) -> float:
    """A whole or real number of 4 or 8 bytes as a plain number. Checkpoints of OpenLTH contain such numbers.

    Raises:
        ValueError: the type or the number of bytes is another one.
    """
    formats = {"i4": "<i", "i8": "<q", "f4": "<f", "f8": "<d"}
    if kind.name not in formats or len(content) != struct.calcsize(formats[kind.name]):
        raise ValueError(f"{kind.name!r:.20} is not the type of a plain number")
    return struct.unpack(formats[kind.name], content)[0]


# What is loaded in place of the objects of numpy, by their names in the versions 1 and 2, so that no code of numpy runs.
_PLAIN_NUMPY = [
    (_NumberType, "numpy.dtype"),
    (_plain_number, "numpy.core.multiarray.scalar"),
    (_plain_number, "numpy._core.multiarray.scalar"),
]


def _check_archive(file: IO[bytes]) -> None:
    """Raises a ValueError if an archive has wrong checksums or claims to be larger than its file. torch checks neither."""
    start = file.read(2)
    file.seek(0)
    if start == b"\x80\x02":  # the format before torch 1.6, which is not an archive
        return
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        fits = sum(entry.file_size for entry in entries) <= file.seek(0, os.SEEK_END)
        if not fits or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("its entries are larger than the file")
        corrupt = archive.testzip()
        if corrupt is not None:
            raise ValueError(f"{corrupt} has a wrong checksum")
    file.seek(0)


def _check_values(state: object) -> None:
    """Raises a ValueError unless all tensors of a state are dense CPU tensors that are no larger than their storage, and without types."""
    pending, visited = [state], set()
    while pending:
        value = pending.pop()
        if id(value) in visited:
            continue
        visited.add(id(value))
        if isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, (list, tuple)):
            pending += value
        elif isinstance(value, _NumberType):
            raise ValueError("it contains a type of numpy")
        elif isinstance(value, torch.Tensor):
            is_dense = value.layout == torch.strided and value.device.type == "cpu"
            if not is_dense or value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise ValueError(f"a tensor of shape {list(value.shape)} is larger than its storage")
