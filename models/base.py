"""The base of every model family."""

from __future__ import annotations

import abc
import io
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from typing import IO

import torch
from torch import nn
from torch.nn import functional as F

from foundations import paths
from foundations.defaults import DefaultHparams
from foundations.errors import ConfigError, reason
from foundations.step import Step
from models.parallel import KERNEL_LAYERS
from platforms.platform import get_platform

Initializer = Callable[[nn.Module], None]


class Model(abc.ABC, nn.Module):
    """A torch module that knows its family's names, defaults and prunable tensors."""

    @staticmethod
    @abc.abstractmethod
    def is_valid_model_name(model_name: str) -> bool:
        """Whether the name is one of this family's."""

    @staticmethod
    @abc.abstractmethod
    def name_rules() -> list[str]:
        """The forms of this family's names, for help and errors."""

    @staticmethod
    @abc.abstractmethod
    def default_members() -> dict[str, str]:
        """The member that each bare family name stands for."""

    @staticmethod
    @abc.abstractmethod
    def get_model_from_name(model_name: str, initializer: Initializer, outputs: int | None = None, act_fun: str = "relu") -> Model:
        """Builds the model that a name describes, with freshly initialised weights.

        Args:
            model_name: a name that `is_valid_model_name` accepts.
            initializer: what is applied to every module.
            outputs: units of the output layer, where not the family's own.
            act_fun: a key of `models/activation_functions.py`.

        Raises:
            ConfigError: the name itself says another number of outputs.
        """

    @staticmethod
    @abc.abstractmethod
    def default_hparams(model_name: str) -> DefaultHparams:
        """The hyperparameters that the model trains well with."""

    @property
    def input_size(self) -> int | None:
        """How many values an example must have; None where any image of the right channels will do."""
        return None

    @property
    def channels(self) -> int | None:
        """How many channels an image must have; None where examples need not be images."""
        return None

    @property
    def prunable_layer_names(self) -> list[str]:
        """The tensors that may be pruned: the kernels of convolutional and linear layers."""
        return [f"{name}.weight" for name, module in self.named_modules() if isinstance(module, KERNEL_LAYERS)]

    @property
    @abc.abstractmethod
    def output_layer_names(self) -> list[str]:
        """The tensors of the output layer."""

    def loss_criterion(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss that training minimises: cross-entropy for class labels, mean squared error for real-valued targets."""
        if labels.is_floating_point():
            return F.mse_loss(outputs, labels)
        return F.cross_entropy(outputs, labels)

    def convert_state_dict(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A state dict by this model's keys, where a checkpoint of another framework may have others; most have the same."""
        return state

    def save(self, location: str, step: Step) -> None:
        """Writes the weights to the run folder under the name of the step."""
        state = self.state_dict()
        state.update({name: values.contiguous() for name, values in state.items()})
        get_platform().write(paths.model(location, step), to_bytes(state))


def to_bytes(state: object) -> bytes:
    """A state of tensors and plain values in torch's own file format."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def read_state(path: str) -> dict:
    """What a file of torch's format holds, read as data only and onto the CPU.

    Raises:
        ConfigError: there is no such file, it is damaged, or it holds anything else than tensors and plain values.
    """
    remedy = "move it away or delete it, and run the same command again"
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
                warnings.simplefilter("ignore")  # of what torch has deprecated, and uses itself for older files
                state = torch.load(file, map_location="cpu", weights_only=True)
            _check_values(state)
        except pickle.UnpicklingError:
            raise ConfigError(f"{path} is damaged, or holds more than tensors and plain values, and is not opened; {remedy}") from None
        except Exception as error:  # torch's reader fails in any way when the bytes are not those that torch has written
            raise ConfigError(f"{path} is damaged or cut short ({reason(error)}); {remedy}") from None
    return state


def _check_archive(file: IO[bytes]) -> None:
    """Raises a ValueError for an archive that is not as it was written, or holds more than its file; torch looks at neither."""
    start = file.read(2)
    file.seek(0)
    if start == b"\x80\x02":  # the format before torch 1.6, which is no archive
        return
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        whole = sum(entry.file_size for entry in entries) <= file.seek(0, os.SEEK_END)
        if not whole or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it says that it holds more than it has room for")
        changed = archive.testzip()
        if changed is not None:
            raise ValueError(f"{changed} has another checksum than when it was written")
    file.seek(0)


def _check_values(state: object) -> None:
    """Raises a ValueError unless the tensors of a state are ordinary ones, and no larger than what is stored of them."""
    waiting, seen = [state], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, (list, tuple)):
            waiting += value
        elif isinstance(value, torch.Tensor):
            ordinary = value.layout == torch.strided and value.device.type == "cpu"
            if not ordinary or value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise ValueError(f"a tensor {list(value.shape)} is larger than what is stored of it")
