"""Links: what answers say of the outputs of a network whose last step is softmax, its logarithm, or sigmoid.

Answers are converted to the logits before that step, so that everything else sees the outputs of a plain network. The softmax of logits
does not change if a number is added to all of them. The logits are those whose mean over the outputs is zero, and the network that is
recovered has these.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

RAW = "raw"
NORMALISED = 1e-3  # the largest deviation of the sum of the probabilities of a row, which may be rounded, from one
SATURATED = 0.01  # probabilities of a sigmoid are noticed if some are as near to zero, and others to one, and none is either
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
    could as well be the outputs of a plain network.
    """
    if not np.isfinite(answers).all() or len(np.unique(answers)) < 3:
        return None
    several = answers.shape[1] > 1
    if (answers >= 0).all() and (answers <= 1).all():
        if several and (np.abs(answers.sum(1) - 1) <= NORMALISED).all():
            return "softmax"
        return "sigmoid" if answers.min() < SATURATED and answers.max() > 1 - SATURATED and _is_inside(answers) else None
    if several and (answers <= 0).all() and (np.abs(np.exp(answers).sum(1) - 1) <= NORMALISED).all():
        return "log_softmax"
    return None


def hint(answers: np.ndarray) -> str:
    """A note on raw answers that may be probabilities; empty for others."""
    return HINT if (answers >= 0).all() and (answers <= 1).all() else ""


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


def convert(queries: np.ndarray, answers: np.ndarray, link: str) -> tuple[np.ndarray, np.ndarray, str]:
    """The queries, the logits of their answers, and a note.

    Rows with a probability of zero or one, whose logits are infinite, are left out.

    Raises:
        ValueError: no network with this link gives these answers, or most rows have no logits.
    """
    converted = logits(answers, link)
    kept = np.asarray(np.isfinite(converted).all(1))
    lost = len(kept) - int(kept.sum())
    if 2 * lost > len(kept):
        raise ValueError(f"{lost} of {len(kept)} rows have a probability of exactly 0 or 1, whose logit is infinite; {ADVICE}")
    note = f"the answers are taken as {link} and converted to logits{_GAUGES.get(link, '')}; --link raw keeps them"
    if lost:
        first = ", ".join(map(str, np.flatnonzero(~kept)[:5])) + (", ..." if lost > 5 else "")
        note += f"; {lost} rows have a probability of exactly 0 or 1 and are left out, by number from 0: {first}"
    return queries[kept], converted[kept], note


_GAUGES: Mapping[str, str] = {"softmax": " with mean zero in each row", "log_softmax": " with mean zero in each row"}
