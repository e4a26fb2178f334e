"""Teachers that are ONNX files, run by onnxruntime on the CPU. onnxruntime is imported only for them."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from dataclasses import dataclass

import numpy as np

from datasets.teachers.live import LiveTeacher, file_digest
from datasets.teachers.responding import Connection, in_batches
from foundations import imports
from foundations.errors import ConfigError, reason

TYPES = {"tensor(double)": np.float64, "tensor(float)": np.float32, "tensor(float16)": np.float16}
QUIET = 3  # the level of messages of onnxruntime: errors only


@dataclass(frozen=True)
class OnnxNetwork(LiveTeacher):
    """A network with one input; of several outputs, the first that is a tensor of floating-point numbers answers."""

    @classmethod
    def recognises(cls, text: str) -> bool:
        return text.lower().endswith(".onnx")

    @classmethod
    def digest_of(cls, text: str) -> str:
        digest = file_digest(os.path.expanduser(text))
        with contextlib.suppress(ConfigError):
            digest += file_digest(os.path.expanduser(f"{text}.data"))  # where large weights are
        return hashlib.md5(digest).hexdigest()

    @classmethod
    def connect(cls, text: str) -> Connection:
        path = os.path.expanduser(text)
        file_digest(path)
        runtime = imports.optional("onnxruntime", f"--teacher_name {text}", "onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = QUIET
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # the same bits whatever the machine
        try:
            session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises exceptions of many types
            raise ConfigError(f"--teacher_name: {path} is not an ONNX network that onnxruntime can run ({reason(error)})") from None
        inputs = session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in TYPES or not inputs[0].shape:
            shown = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs)
            raise ConfigError(f"--teacher_name: {path} has the inputs {shown}; valid: one, a tensor of floating-point numbers")
        outputs = [each for each in session.get_outputs() if each.type in TYPES]
        if not outputs:
            shown = ", ".join(f"{each.name} {each.type}" for each in session.get_outputs())
            advice = "a tensor of floating-point numbers (for a classifier of scikit-learn: convert it with zipmap=False)"
            raise ConfigError(f"--teacher_name: {path} has the outputs {shown}; valid: {advice}")
        name, (batch, *sizes) = inputs[0].name, inputs[0].shape
        known = all(isinstance(size, int) and size > 0 for size in sizes) and bool(sizes)

        def answer(queries: np.ndarray) -> object:
            shaped = queries.reshape(len(queries), *sizes) if known else queries
            returned = session.run([outputs[0].name], {name: shaped})[0]
            if returned.ndim == 2 and returned.shape[1] == 1 and len(returned) % len(queries) == 0:
                return returned.reshape(len(queries), -1)  # skl2onnx writes the outputs of a regressor one below the other
            return returned

        fixed = batch if isinstance(batch, int) and batch > 0 else None
        return Connection(in_batches(answer, fixed), math.prod(sizes) if known else None, TYPES[inputs[0].type])
