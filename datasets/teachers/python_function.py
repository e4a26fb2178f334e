"""Teachers that are Python functions in the user's own file, `oracle.py:predict`. The file is run, because the user names it."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import os
import sys
from dataclasses import dataclass

from datasets.teachers.live import LiveTeacher, file_digest
from datasets.teachers.responding import Connection, in_batches, line_of, own_state
from foundations.errors import ConfigError, one_line, reason

ENDS = (".py", ".PY")


@dataclass(frozen=True)
class PythonFunction(LiveTeacher):
    """A function from queries `[n, inputs]` to answers `[n, outputs]`, both numpy arrays of float64.

    Its digest is that of the bytes of the file and the name of the function. Modules and data that the file loads do not count. A function
    with an attribute `batch_size` is called with so many queries each time; the last batch is filled up with its last query.
    """

    @classmethod
    def recognises(cls, text: str) -> bool:
        return text.rpartition(":")[0].endswith(ENDS) or text.endswith(ENDS)

    @classmethod
    def is_loaded_at_once(cls) -> bool:
        return False

    @classmethod
    def digest_of(cls, text: str) -> str:
        path, function = _split(text)
        return hashlib.md5(file_digest(path) + function.encode()).hexdigest()

    @classmethod
    def connect(cls, text: str) -> Connection:
        path, function = _split(text)
        name = f"teacher_{hashlib.md5(os.path.abspath(path).encode()).hexdigest()[:8]}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ConfigError(f"--teacher_name: {path} is not a Python file")
        found: object = importlib.util.module_from_spec(spec)
        sys.modules[name] = found  # type: ignore[assignment]
        try:
            with own_state(), _on_path(os.path.dirname(os.path.abspath(path))):
                spec.loader.exec_module(found)  # type: ignore[arg-type]
        except (Exception, SystemExit) as error:
            raise ConfigError(f"--teacher_name: {path} fails ({type(error).__name__}: {reason(error)}{line_of(error)})") from error
        for part in function.split("."):
            if not hasattr(found, part):
                raise ConfigError(f"--teacher_name: {path} has no {function}; valid: {_functions(path)}")
            found = getattr(found, part)
        if not callable(found):
            raise ConfigError(f"--teacher_name: {function} in {path} is no function ({type(found).__name__}); valid: {_functions(path)}")
        size = getattr(found, "batch_size", None)
        return Connection(in_batches(found, size if isinstance(size, int) and size > 0 else None))


def _split(text: str) -> tuple[str, str]:
    """The path and the name of the function; a ConfigError if there is no name."""
    path, _, function = text.rpartition(":")
    if text.endswith(ENDS):
        raise ConfigError(f"--teacher_name: {text} names no function; valid: {text}:FUNCTION, such as {_functions(text)}")
    return os.path.expanduser(path), function


def _functions(path: str) -> str:
    """The functions of a file, as they can be named; found without running it."""
    names: list[str] = []
    with contextlib.suppress(OSError, SyntaxError, ValueError), open(os.path.expanduser(path), "rb") as file:
        names = [node.name for node in ast.parse(file.read()).body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    label = one_line(os.path.basename(path))
    return ", ".join(f"{label}:{name}" for name in names[:10]) or f"{label}:predict"


@contextlib.contextmanager
def _on_path(folder: str):
    """Modules in a folder can be imported within the block, as if the file in it were run."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)
