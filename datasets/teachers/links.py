"""Links: what answers say of the outputs of a network whose last step is softmax, its logarithm, or sigmoid.

Answers are converted to the logits before that step, so that everything else sees the outputs of a plain network. The softmax of logits
does not change if a number is added to all of them. The logits are those whose mean over the outputs is zero, and the network that is
recovered has these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

RAW = "raw"
NORMALISED = 1e-3  # the largest deviation of the sum of the probabilities of a row, which may be rounded, from one
MOST = 0.05  # of the rows are no probabilities, where the others are
GROSS = 5.0  # numbers from this size on are no outputs of a plain network whose other outputs are from zero to one
SATURATED = 0.01  # probabilities of a sigmoid are noticed if some are as near to zero, and others to one, and none is either
FLOAT32 = 2.0**-24  # the largest relative error of rounding to float32
MOST_DECIMALS = 12
EXACTLY, ROUGHLY = 1e-11, 0.05  # the largest error of a logit from answers of float64, and of one from answers with fewer digits
ADVICE = "leave them out or give --link raw"
SHIFT = "A number that is added to all logits affects no answer; the network is the one whose logits have mean zero."
MEANINGS = {
    "softmax": f"The answers are softmax probabilities, and the recovered network gives their logits. {SHIFT}",
    "log_softmax": f"The answers are logarithms of softmax probabilities, and the recovered network gives the logits. {SHIFT}",
    "sigmoid": "The answers are probabilities of a sigmoid, and the recovered network gives their logits.",
}
LINKS = (*MEANINGS, RAW)
HINT = "all answers are from 0 to 1 and taken as raw; if they are the probabilities of a sigmoid, give --link sigmoid"


def notice(answers: np.ndarray) -> str | None:
    """The link of answers `[n, outputs]` that can be told from their values alone; None for raw answers.

    The rows of softmax probabilities sum to one. Those of a sigmoid are between zero and one, and come near both; if they do not, they
    could as well be the outputs of a plain network. A few rows may be wrong; those of a sigmoid must then be far from these numbers.
    """
    if not np.isfinite(answers).all() or len(np.unique(answers)) < 3:
        return None
    for link in ("softmax", "log_softmax") if answers.shape[1] > 1 else ():
        if _are_few(~fitting(answers, link)):
            return link
    right = _of_sigmoid(answers)
    if right is None:
        return None
    return "sigmoid" if right.min() < SATURATED and right.max() > 1 - SATURATED and _is_inside(right) else None


def alternative(answers: np.ndarray) -> str | None:
    """The link that answers `[n, outputs]` may have which are taken as raw: sigmoid where all are from zero to one; otherwise None.

    A few rows may be wrong, as in `notice`. Half of the rows at least must have logits.
    """
    right = _of_sigmoid(answers) if np.isfinite(answers).all() else None
    return "sigmoid" if right is not None and 2 * ((right > 0) & (right < 1)).all(1).sum() >= len(answers) else None


def _of_sigmoid(answers: np.ndarray) -> np.ndarray | None:
    """The rows of answers that a sigmoid can give; None unless all others are few, and far from its probabilities."""
    fits = fitting(answers, "sigmoid")
    is_possible = _are_few(~fits) and (np.abs(answers[~fits]).max(1, initial=0) >= GROSS).all()
    return answers[fits] if is_possible else None


def fitting(answers: np.ndarray, link: str) -> np.ndarray:
    """Which rows of answers `[n, outputs]` a network with a link can give, `[n]`: probabilities that sum to one within their rounding."""
    if link == RAW:
        return np.full(len(answers), True)
    is_logarithm = link == "log_softmax"
    low, high = (-np.inf, 0) if is_logarithm else (0, 1)
    inside = np.asarray(((answers >= low) & (answers <= high)).all(1))
    if link == "sigmoid" or not inside.any():
        return inside
    digits = _digits(answers[inside])
    rounding = 0.5 * answers.shape[1] * 10.0**-digits if digits is not None and digits > 1 else 0.0
    sums = (np.exp(np.minimum(answers, 0)) if is_logarithm else answers).sum(1)
    return np.asarray(inside & (np.abs(sums - 1) <= max(NORMALISED, rounding)))


def _are_few(rows: np.ndarray) -> bool:
    """Whether rows `[n]` are so few that they may be errors."""
    return bool(rows.mean() <= MOST)


def hint(answers: np.ndarray) -> str:
    """A note on raw answers that may be probabilities; empty for others."""
    return HINT if alternative(answers) else ""


def _is_inside(answers: np.ndarray) -> bool:
    """Whether no number is exactly zero or one, as some are where numbers were scaled to this range."""
    return bool((answers > 0).all() and (answers < 1).all())


def logits(answers: np.ndarray, link: str) -> np.ndarray:
    """The logits of answers `[n, outputs]`, in float64; infinite or NaN where a probability is zero or one.

    Raises:
        ValueError: no network with this link gives these answers.
    """
    answers = answers.astype(np.float64)
    if link == RAW:
        return answers
    if link == "log_softmax":
        _require(answers, (answers <= 0).all(), "log_softmax needs logarithms of probabilities, which are at most 0")
        return _centred(answers)
    _require(answers, ((answers >= 0) & (answers <= 1)).all(), f"{link} needs probabilities from 0 to 1")
    with np.errstate(divide="ignore", invalid="ignore"):
        return _centred(np.log(answers)) if link == "softmax" else np.log(answers) - np.log1p(-answers)


def _require(answers: np.ndarray, condition: bool | np.bool_, need: str) -> None:
    if not condition:
        raise ValueError(f"{need}; the answers are from {answers.min():.4g} to {answers.max():.4g}")


def _centred(logarithms: np.ndarray) -> np.ndarray:
    """Logits with mean zero in each row, from logarithms of probabilities."""
    if logarithms.shape[1] < 2:
        raise ValueError("softmax needs two outputs or more; valid: --link sigmoid for the probability of one of two classes")
    with np.errstate(invalid="ignore"):
        return logarithms - logarithms.mean(1, keepdims=True)


@dataclass(frozen=True)
class Errors:
    """How precise logits are that were converted from answers with fewer digits than float64.

    Attributes:
        logits: the standard deviation of the error of a logit; root mean square where it differs.
        probabilities: that of a probability, where this is the same for all; 0 where the errors of the logits are about the same.
        decimals: of the answers; -1 for float32.
    """

    logits: float
    probabilities: float
    decimals: int

    @property
    def name(self) -> str:
        """The precision of the answers as `--answers` states it."""
        return "float32" if self.decimals < 0 else f"decimals:{self.decimals}"

    def to_array(self) -> np.ndarray:
        """All numbers, `[3]`."""
        return np.array([self.logits, self.probabilities, self.decimals])

    @classmethod
    def of(cls, numbers: np.ndarray) -> Errors | None:
        """The inverse of `to_array`; None for other numbers."""
        valid = numbers.shape == (3,) and np.isfinite(numbers).all() and (numbers[:2] >= 0).all()
        return cls(float(numbers[0]), float(numbers[1]), int(numbers[2])) if valid else None


@dataclass(frozen=True)
class Converted:
    """Answers as logits.

    Attributes:
        kept: which rows have logits that are known well enough, `[n]`.
        logits: of these rows.
        note: for the user.
        errors: None for answers that are exact to float64.
    """

    kept: np.ndarray
    logits: np.ndarray
    note: str
    errors: Errors | None = None


def _digits(answers: np.ndarray) -> int | None:
    """The decimals of answers `[n, outputs]`; -1 for those of float32, None for others."""
    with np.errstate(over="ignore"):  # too large for float32
        is_float32 = bool((answers.astype(np.float32) == answers).all())
    unit = FLOAT32 if is_float32 else np.finfo(np.float64).eps
    for decimals in range(1, MOST_DECIMALS if not is_float32 else 7):
        if (np.abs(np.round(answers, decimals) - answers) <= 2 * unit * np.abs(answers)).all():
            return decimals
    return -1 if is_float32 else None


def deviations(answers: np.ndarray, link: str) -> tuple[np.ndarray, float, int | None]:
    """The standard deviations of the errors of logits, `[n, outputs]`, of a probability, and the digits as in `_digits`.

    An error e of a probability p moves log p by e / p, and the logit of a sigmoid by e / (p (1 - p)). A probability of float32 has relative
    errors, but absolute ones where it was computed as one minus others.
    """
    digits = _digits(answers)
    relative = np.finfo(np.float64).eps / 2 if digits is None else FLOAT32
    absolute = 10.0**-digits / math.sqrt(12) if digits is not None and digits >= 0 else 0.0
    if link == "log_softmax":
        return np.maximum(absolute, 0.0 if absolute else relative * np.abs(answers)) + 0 * answers, 0.0, digits
    is_complement = link == "sigmoid" or answers.shape[1] == 2
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = 1 / (answers * (1 - answers)) if is_complement else 1 / answers
        if absolute or is_complement:
            absolute = absolute or relative / 2
            return absolute * slopes, absolute, digits
        return relative * answers * slopes, 0.0, digits


def convert(answers: np.ndarray, link: str) -> Converted:
    """The logits of answers `[n, outputs]`.

    Rows with a probability of zero or one, whose logits are infinite, are left out, and rows whose logits are known far less well than
    others, unless these are most rows.

    Raises:
        ValueError: no network with this link gives these answers, or most rows have no logits.
    """
    wrong = ~fitting(answers, link)
    wrong &= _are_few(wrong)
    converted = np.full(answers.shape, np.nan)
    converted[~wrong] = logits(answers[~wrong], link)
    finite = np.asarray(np.isfinite(converted).all(1))
    lost = int((~finite & ~wrong).sum())
    if 2 * lost > len(finite):
        raise ValueError(f"{lost} of {len(finite)} rows have a probability of exactly 0 or 1, whose logit is infinite; {ADVICE}")
    sizes = np.full(answers.shape, np.inf)
    sizes[finite], absolute, digits = deviations(answers[finite].astype(np.float64), link)
    known = finite & (sizes.max(1) <= (EXACTLY if digits is None else ROUGHLY))
    kept = known if 2 * known.sum() >= len(known) else finite
    note = f"the answers are taken as {link} and converted to logits{_GAUGES.get(link, '')}; --link raw keeps them"
    if lost:
        note += f"; {lost} rows have a probability of exactly 0 or 1 and are left out, by number from 0: {_first(~finite & ~wrong)}"
    if wrong.any():
        note += f"; {wrong.sum()} rows are no such answers and are left out: {_first(wrong)}"
    if (finite & ~kept).any():
        rough = finite & ~kept
        note += f"; {rough.sum()} rows have probabilities so near 0 or 1 that logits are inexact, and are left out: {_first(rough)}"
    if digits is None:
        return Converted(kept, converted[kept], note)
    errors = Errors(float(np.sqrt(np.square(sizes[kept]).mean())), absolute, digits)
    return Converted(kept, converted[kept], f"{note}; their precision is {errors.name}", errors)


def _first(rows: np.ndarray) -> str:
    """The numbers of the first of some rows `[n]`."""
    numbers = np.flatnonzero(rows)
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")


_GAUGES: Mapping[str, str] = {"softmax": " with mean zero in each row", "log_softmax": " with mean zero in each row"}
