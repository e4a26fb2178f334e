"""A training step, as an iteration or as an epoch and an iteration within the epoch."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field

from foundations.errors import ConfigError

_PATTERN = re.compile(r"(?:(\d+)ep)?(?:(\d+)it)?")
LARGEST = 10**12  # epochs or iterations of a step


@dataclass(frozen=True, order=True)
class Step:
    """The state of training after `iteration` updates.

    Attributes:
        iteration: the number of updates before this step.
        iterations_per_epoch: the number of updates in an epoch. Comparisons ignore it.
        last: whether training ends at this step, early or as planned. Comparisons ignore it.
    """

    iteration: int
    iterations_per_epoch: int = field(compare=False)
    last: bool = field(default=False, compare=False)

    def __post_init__(self):
        if self.iteration < 0 or self.iterations_per_epoch < 1:
            raise ValueError(f"invalid step: iteration {self.iteration} with {self.iterations_per_epoch} iterations per epoch")

    @staticmethod
    def from_iteration(iteration: int, iterations_per_epoch: int) -> Step:
        """The step after `iteration` updates."""
        return Step(iteration, iterations_per_epoch)

    @staticmethod
    def from_epoch(epoch: int, iteration: int, iterations_per_epoch: int) -> Step:
        """The step `iteration` updates after the start of `epoch`."""
        return Step(epoch * iterations_per_epoch + iteration, iterations_per_epoch)

    @staticmethod
    def from_str(text: str, iterations_per_epoch: int) -> Step:
        """The step of a text such as `40ep`, `500it` or `3ep20it`.

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
        """The index of the current epoch."""
        return self.iteration // self.iterations_per_epoch

    @property
    def it(self) -> int:
        """The iteration within the current epoch."""
        return self.iteration % self.iterations_per_epoch

    def __str__(self):
        return f"ep{self.ep}_it{self.it}"


def parse(text: str, flag: str = "a step") -> tuple[int, int]:
    """The epochs and iterations of a text such as `3ep20it`. The error names the flag.

    Raises:
        ConfigError: the text has another form.
    """
    match = _PATTERN.fullmatch(text) if text else None
    if match is None:
        raise ConfigError(f"{flag}: {text!r:.80} is not a step; write 40ep (epochs), 500it (iterations) or 3ep20it (both)")
    numbers = [(digits or "0").lstrip("0") or "0" for digits in match.groups()]
    if any(len(digits) > len(str(LARGEST)) or int(digits) > LARGEST for digits in numbers):
        raise ConfigError(f"{flag}: {text:.80} is out of range; valid: up to {LARGEST:,} epochs or iterations, which take years")
    return int(numbers[0]), int(numbers[1])


def canonical(text: str) -> str:
    """The canonical text of a step: `40ep` for `040ep` and `40ep0it`, `500it` for `0ep500it`. OpenLTH writes all its defaults this way."""
    epochs, iterations = parse(text)
    return f"{epochs}ep" * (epochs > 0) + f"{iterations}it" * (iterations > 0) or "0ep"


def canonical_list(texts: str) -> str:
    """The canonical text of steps that are joined by commas.

    They are sorted if the order is certain. The order of `2ep,15it` depends on the length of an epoch, so that such lists are not sorted.
    """
    steps = sorted(parse(text) for text in texts.split(","))
    is_certain = all(early[1] <= late[1] for early, late in itertools.pairwise(steps))
    return ",".join(canonical(text) for text in (sorted(texts.split(","), key=parse) if is_certain else texts.split(",")))
