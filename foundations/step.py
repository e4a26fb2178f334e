"""A moment of training, as an iteration or as an epoch and an iteration within it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from foundations.errors import ConfigError

_PATTERN = re.compile(r"(?:(\d+)ep)?(?:(\d+)it)?")


@dataclass(frozen=True, order=True)
class Step:
    """Training after `iteration` updates, where an epoch has `iterations_per_epoch` of them.

    `last` marks the step at which training ends, early or as planned; it takes no part in comparisons.
    """

    iteration: int
    iterations_per_epoch: int = field(compare=False)
    last: bool = field(default=False, compare=False)

    def __post_init__(self):
        if self.iteration < 0 or self.iterations_per_epoch < 1:
            raise ValueError(f"no such step: iteration {self.iteration} of {self.iterations_per_epoch} an epoch")

    @staticmethod
    def from_epoch(epoch: int, iteration: int, iterations_per_epoch: int) -> Step:
        """The step `iteration` updates after the start of `epoch`."""
        return Step(epoch * iterations_per_epoch + iteration, iterations_per_epoch)

    @staticmethod
    def from_str(text: str, iterations_per_epoch: int) -> Step:
        """The step that `40ep`, `500it` or `3ep20it` names.

        Raises:
            ConfigError: the text has another form.
        """
        epochs, iterations = parse(text)
        return Step.from_epoch(epochs, iterations, iterations_per_epoch)

    @staticmethod
    def zero(iterations_per_epoch: int) -> Step:
        """The step before the first update."""
        return Step(0, iterations_per_epoch)

    @property
    def ep(self) -> int:
        """The epoch under way."""
        return self.iteration // self.iterations_per_epoch

    @property
    def it(self) -> int:
        """The iteration within that epoch."""
        return self.iteration % self.iterations_per_epoch

    def __str__(self):
        return f"ep{self.ep}_it{self.it}"


def parse(text: str, flag: str = "a step") -> tuple[int, int]:
    """Epochs and iterations that a step string names; `flag` says in the error where it stood."""
    match = _PATTERN.fullmatch(text) if text else None
    if match is None:
        raise ConfigError(f"{flag}: {text!r} is no step; write 40ep (epochs), 500it (iterations) or 3ep20it (both)")
    return int(match[1] or 0), int(match[2] or 0)
