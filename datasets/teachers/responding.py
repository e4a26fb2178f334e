"""Calls of a live teacher: what it does and returns is checked, and kept apart from the program."""

from __future__ import annotations

import contextlib
import os
import random
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from foundations.errors import ConfigError, reason


@dataclass(frozen=True)
class Connection:
    """What answers, once it has been loaded.

    Attributes:
        answer: takes queries `[n, inputs]` in float64, and returns an array `[n, outputs]`, or whatever it returns.
        inputs: the number of values of a query; None if it does not say.
        dtype: the number type to which it rounds queries.
    """

    answer: Callable[[np.ndarray], object]
    inputs: int | None = None
    dtype: type[np.floating] = np.float64


@dataclass
class Responding:
    """Calls a teacher, and checks what it returns; `outputs` is the number of values of an answer, once it is known."""

    label: str
    connection: Callable[[], Connection]
    outputs: int | None = None

    def __call__(self, queries: np.ndarray, number: int) -> tuple[np.ndarray, ConfigError | None]:
        """The answers to the first of some queries, and the error that prevented the others; see `ledger.Respond`."""
        connection, several = self.connection(), f"queries {number:,} to {number + len(queries) - 1:,}"
        which = several if len(queries) > 1 else f"query {number:,}"
        try:
            with own_state():
                returned = connection.answer(queries.astype(connection.dtype))
        except ConfigError as error:
            return np.empty((0, 0)), ConfigError(f"{error}; it happened on {which}")
        except (Exception, SystemExit) as error:
            return np.empty((0, 0)), self._error(f"failed on {which} ({type(error).__name__}: {reason(error)}{line_of(error)})")
        answers, why = as_matrix(returned, len(queries))
        if not why and self.outputs not in (None, answers.shape[1]):
            why = f"returned {answers.shape[1]} values for a query, not {self.outputs} as before,"
        if why:
            return np.empty((0, 0)), self._error(f"{why} for {which}")
        wrong = np.flatnonzero(~np.isfinite(answers).all(1))
        if len(wrong):
            place = int(wrong[0])
            return answers[:place], self._error(f"answered query {number + place:,} with a value that is not finite")
        return answers, None

    def _error(self, what: str) -> ConfigError:
        return ConfigError(f"--teacher_name: {self.label} {what}; the answers before are kept")


def as_matrix(returned: object, count: int) -> tuple[np.ndarray, str]:
    """What a teacher has returned for `count` queries as `[count, outputs]` in float64, and what is wrong with it, if anything."""
    if isinstance(returned, torch.Tensor):
        returned = returned.detach().cpu().numpy()
    try:
        values = np.asarray(returned)
    except ValueError:  # rows of different lengths
        values = np.asarray(None)
    if values.dtype.kind not in "fiu":
        kind = "None" if returned is None else f"{type(returned).__name__} of {values.dtype}"
        return np.empty((0, 0)), f"returned {kind}, not an array of numbers,"
    if values.ndim == 0 or len(values) != count or not values.size:
        return np.empty((0, 0)), f"returned an array of shape {list(values.shape)}, not [{count}, outputs],"
    return values.astype(np.float64).reshape(count, -1), ""


_states: list[tuple[object, ...]] = []  # the state of the generators and settings of teachers, while the program has its own


@contextlib.contextmanager
def own_state() -> Iterator[None]:
    """Keeps random generators, the settings of torch and numpy and the working folder of a teacher apart from those of the program."""
    before = _state()
    if _states:
        _restore(_states.pop())
    try:
        yield
    finally:
        _states[:] = [_state()]
        _restore(before)


def _state() -> tuple[object, ...]:
    kept = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), *kept, np.geterr(), os.path.realpath(".")


def _restore(state: tuple[object, ...]) -> None:
    python, numpy, generator, dtype, threads, grad, floating, folder = state
    random.setstate(python)  # type: ignore[arg-type]
    np.random.set_state(numpy)  # type: ignore[arg-type]
    torch.set_rng_state(generator)  # type: ignore[arg-type]
    torch.set_default_dtype(dtype)  # type: ignore[arg-type]
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)  # type: ignore[arg-type]
    torch.set_grad_enabled(grad)  # type: ignore[arg-type]
    np.seterr(**floating)  # type: ignore[arg-type]
    with contextlib.suppress(OSError):  # it has been removed
        os.chdir(folder)  # type: ignore[arg-type]


def line_of(error: BaseException) -> str:
    """Where an error was raised, as text."""
    frames = traceback.extract_tb(error.__traceback__)
    return f", line {frames[-1].lineno} of {os.path.basename(frames[-1].filename)}" if frames else ""


def in_batches(answer: Callable[[np.ndarray], object], size: int | None) -> Callable[[np.ndarray], object]:
    """A function of any number of queries, from one that takes exactly `size` of them; the last batch is filled up with its last query."""
    if size is None:
        return answer

    def answer_all(queries: np.ndarray) -> object:
        filled = np.concatenate([queries, np.repeat(queries[-1:], -len(queries) % size, axis=0)])
        parts = [answer(batch) for batch in np.split(filled, len(filled) // size)]
        arrays = [part.detach().cpu().numpy() if isinstance(part, torch.Tensor) else np.asarray(part) for part in parts]
        return np.concatenate(arrays)[: len(queries)]

    return answer_all
