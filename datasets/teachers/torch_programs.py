"""Teachers that are programs of torch: TorchScript (`torch.jit.save`) and exported programs (`torch.export.save`). They run on the CPU."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from datasets.teachers.live import LiveTeacher, file_digest
from datasets.teachers.responding import Connection, in_batches
from foundations.errors import ConfigError, reason

TYPES = {torch.float64: np.float64, torch.float32: np.float32, torch.float16: np.float16}
Program = Callable[[torch.Tensor], object]


@dataclass(frozen=True)
class TorchScript(LiveTeacher):
    """A module that was traced or scripted. It takes numbers of the type of its weights, and does not say how many."""

    @classmethod
    def recognises(cls, text: str) -> bool:
        return text.lower().endswith((".pt", ".ts", ".torchscript"))

    @classmethod
    def connect(cls, text: str) -> Connection:
        path = os.path.expanduser(text)
        file_digest(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # TorchScript is deprecated, but people have such files
                module = torch.jit.load(path, map_location="cpu")
        except (RuntimeError, ValueError, OSError) as error:
            valid = "valid: a file of torch.jit.save, or of torch.export.save as .pt2"
            raise ConfigError(f"--teacher_name: {path} is not a TorchScript program ({reason(error)}); {valid}") from None
        dtype = _dtype([*module.parameters(), *module.buffers()])
        return Connection(_answering(module, dtype), None, dtype)


@dataclass(frozen=True)
class ExportedProgram(LiveTeacher):
    """A program with one input, whose shape and number type it contains."""

    @classmethod
    def recognises(cls, text: str) -> bool:
        return text.lower().endswith(".pt2")

    @classmethod
    def connect(cls, text: str) -> Connection:
        path = os.path.expanduser(text)
        file_digest(path)
        logging.disable()  # torch logs what it tries
        try:
            program = torch.export.load(path)
            names = program.graph_signature.user_inputs
            inputs = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
            (example,) = inputs
            batch, *sizes = example.shape
            module = program.module()
        except Exception as error:  # damaged and foreign files raise exceptions of many types
            why = reason(error)
            raise ConfigError(f"--teacher_name: {path} is not an exported program with one input that is a batch ({why})") from None
        finally:
            logging.disable(logging.NOTSET)
        known = [size for size in sizes if isinstance(size, int)] == sizes and bool(sizes)
        dtype = TYPES.get(example.dtype, np.float64)
        answer = _answering(module, dtype, sizes if known else None)
        fixed = batch if isinstance(batch, int) else None
        return Connection(in_batches(answer, fixed), math.prod(sizes) if known else None, dtype)


def _dtype(tensors: Iterable[torch.Tensor]) -> type[np.floating]:
    """The number type of a program, by its first floating-point tensor."""
    kinds = [tensor.dtype for tensor in tensors if tensor.dtype in TYPES]
    return TYPES[kinds[0]] if kinds else np.float64


def _answering(program: Program, dtype: type[np.floating], sizes: list[int] | None = None) -> Callable[[np.ndarray], object]:
    """A program as a function of queries in numpy; `sizes` is the shape of a query where it is known."""

    def answer(queries: np.ndarray) -> object:
        with torch.no_grad():
            values = torch.from_numpy(np.ascontiguousarray(queries.astype(dtype)))
            returned = program(values if sizes is None else values.reshape(len(values), *sizes))
        return returned[0] if isinstance(returned, (tuple, list)) and len(returned) == 1 else returned

    return answer
