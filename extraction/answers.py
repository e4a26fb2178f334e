"""What the answers tell of the outputs of the network behind them: the spread of each output, and the precision of its answers.

Axes: Q queries, O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from datasets import repeats
from foundations.extraction_hparams import EXACT_ANSWERS, parse_answers

UNITS = {"float32": 2.0**-24, "float16": 2.0**-11}  # the largest relative error of rounding to a number format
MOST_DECIMALS = 12
SIMILAR = 3.0  # errors of outputs that differ by this factor or less count as equal
MOST_WEIGHT = 1e3  # of an output in a fit; with larger weights the curvature is lost in rounding
SPILLED = 10 / MOST_WEIGHT**2  # the share of the errors of other outputs that a fit leaves in an exact one
COARSER = 10.0  # decimals whose step is as many times the errors of the number format are coarser
TELLING = 100.0  # a number tells whether it is rounded to decimals where their step is as many times its error in the number format
LEAST = 10  # numbers that tell
VISIBLE = 1e-11  # the share of errors of rounding to float64 from which they show
GRID = 4.0  # units of float64 rounding within which a number counts as one with so many decimals
ARITHMETIC = 10.0  # a network that computes in a number format is off by up to this many times the rounding of its answers
TOLERANCE = 1.1  # the same for rounding alone and for noise, whose size is known
SAMPLING = 4.0  # standard deviations by which the root mean square of errors may exceed their standard deviation by chance


@dataclass(frozen=True)
class Answers:
    """How precise answers are, output by output.

    Shares of an output's spread do not change when outputs are shifted or scaled.

    Attributes:
        precision: 'float64' (exact), 'float32', 'float16', 'decimals:N' or 'noise:S', one for each output.
        shares: the standard deviation of the error of an answer, as a share of the spread of its output; 0 where answers are exact.
        is_given: whether the user said so; what is noticed in the numbers themselves is a lower bound, because noise can be larger.
        repeats: the number of repeated questions whose answers show the errors; 0 where these are given or noticed otherwise.
    """

    precision: tuple[str, ...]
    shares: tuple[float, ...]
    is_given: bool = False
    repeats: int = 0

    @classmethod
    def exact(cls, outputs: int) -> Answers:
        """Answers that are exact to float64."""
        return cls((EXACT_ANSWERS,) * outputs, (0.0,) * outputs)

    @classmethod
    def of(cls, answers: torch.Tensor, given: str | None = None, queries: torch.Tensor | None = None) -> Answers:
        """The precision of answers `[Q, O]` in the user's own units.

        It is the one that `--answers` gives. Without, it is the one that the numbers show, or the noise where answers to repeated queries
        differ by more.

        Args:
            answers: `[Q, O]`.
            given: the text of `--answers`.
            queries: `[Q, inputs]`; where they are left out, none counts as repeated.
        """
        columns = [noticed(column) if given is None else given for column in answers.T]
        deviations = [deviation(name, column) for name, column in zip(columns, answers.T, strict=True)]
        shown = repeats.noise(queries, answers) if given is None and queries is not None else None
        count = 0
        for output, noise in enumerate(shown[0].tolist() if shown else ()):
            rounding = ARITHMETIC * torch.finfo(answers.dtype).eps * float(answers[:, output].abs().max())
            if shown and noise > max(TOLERANCE * deviations[output], rounding):
                columns[output], deviations[output], count = f"noise:{noise:.2g}", noise, shown[1]
        shares = tuple(noise / spread for noise, spread in zip(deviations, spreads(answers).tolist(), strict=True))
        return cls(tuple(columns), shares, given is not None, count)

    @classmethod
    def of_logits(cls, answers: torch.Tensor, precision: str, error: float) -> Answers:
        """The precision of logits `[Q, O]` whose errors have a standard deviation, from probabilities of a precision."""
        return cls((precision,) * answers.shape[1], tuple(error / spread for spread in spreads(answers).tolist()))

    def with_noise(self, noise: Sequence[float], answers: torch.Tensor) -> Answers:
        """The precision with noise of a standard deviation that was measured for each output, where there is any.

        Args:
            noise: of each output, `[O]`; 0 where there is none.
            answers: `[Q, O]`, for the spread of each output.
        """
        shares = [max(share, each / spread) for share, each, spread in zip(self.shares, noise, spreads(answers).tolist(), strict=True)]
        names = [f"noise:{each:.2g}" if each else name for name, each in zip(self.precision, noise, strict=True)]
        return Answers(tuple(names), tuple(shares), self.is_given)

    @property
    def name(self) -> str:
        """The precision as text."""
        source = f", as {self.repeats:,} repeated questions show" if self.repeats else ""
        return ", ".join(sorted(set(self.precision))) + source

    @property
    def is_stated(self) -> bool:
        """Whether larger errors than these contradict what is known: they were given, or repeated questions show them."""
        return self.is_given or self.repeats > 0

    @property
    def is_exact(self) -> bool:
        """Whether all answers are exact to float64, as far as their numbers tell."""
        return not any(self.shares)

    def allowed(self, count: int) -> list[float]:
        """The largest root mean square error of the right network over `count` answers, as a share of each output's spread, `[O]`."""
        chance = 1 + SAMPLING / math.sqrt(2 * count)
        if self.repeats:
            chance *= 1 + SAMPLING / math.sqrt(2 * self.repeats)
        factors = (ARITHMETIC if name in UNITS else TOLERANCE for name in self.precision)
        least = SPILLED * max(self.shares)
        return [max(share, least) * factor * chance for share, factor in zip(self.shares, factors, strict=True)]

    @property
    def weights(self) -> torch.Tensor | None:
        """The factors of outputs in a fit that make their errors about equal, `[O]`; None where the errors differ little.

        Errors of the least exact output would otherwise keep the network from the answers of the others.
        """
        largest = max(self.shares)
        factors = torch.tensor([min(MOST_WEIGHT, largest / max(share, largest / MOST_WEIGHT)) if largest else 1.0 for share in self.shares])
        return factors.double() if float(factors.max()) > SIMILAR else None

    def mixed(self, weights: torch.Tensor, answers: torch.Tensor) -> Answers:
        """The precision of mixtures of outputs, each output and each mixture in the unit of its spread.

        Rounding to float64 counts where a mixture varies so little, or answers are so large, that it shows.

        Args:
            weights: of the outputs in each mixture, `[O, C]`.
            answers: `[Q, O]`.
        """
        rounded = torch.finfo(answers.dtype).eps * answers.square().mean(0).sqrt() / spreads(answers)
        parts, least = (weights * shares.to(weights)[:, None] for shares in (torch.tensor(self.shares), rounded))
        largest, rounding = parts.abs().argmax(0).tolist(), least.norm(dim=0)
        shares = torch.maximum(parts.norm(dim=0), torch.where(rounding > VISIBLE, rounding, 0.0))
        return Answers(tuple(self.precision[output] for output in largest), tuple(shares.tolist()), self.is_given, self.repeats)


def finer(answers: torch.Tensor, given: str) -> bool:
    """Whether answers `[Q, O]` have more digits than the precision given by `--answers` has."""
    kind, amount = parse_answers(given)
    if kind in UNITS:
        return bool((answers.to(getattr(torch, kind)) != answers).any())
    step = 10.0**-amount
    rounded = (answers / step).round() * step
    return kind == "decimals" and bool(((rounded - answers).abs() > 1e-3 * step + 1e-6 * answers.abs()).any())


def spreads(answers: torch.Tensor) -> torch.Tensor:
    """The standard deviation of each output, `[O]`, which is the unit of errors of that output.

    Errors in a common unit say nothing about an output of a smaller scale: with outputs of scale 1 and 1e-12, a network without the four
    neurons that feed the second output alone had an error of 1e-12 in the unit of the first.

    Args:
        answers: `[Q, O]`. An output that is constant gets the root mean square of all outputs' standard deviations, or 1 where all are
            constant.
    """
    variances = (answers - answers.mean(0)).square().mean(0)
    pooled = float(variances.mean()) or 1.0
    return torch.where(variances > 0, variances, pooled).sqrt()


def noticed(column: torch.Tensor) -> str:
    """The precision that the numbers of an output show, `[Q]`: a number format with fewer digits than float64, or a number of decimals.

    Decimals count where they are coarser than the number format, and where enough numbers are so small that the format could give them
    more decimals: float16 has all whole numbers up to 2048, and whole numbers are no sign of it. A constant shows nothing.
    """
    if bool((column == column[0]).all()):
        return EXACT_ANSWERS
    formats = [name for name, dtype in (("float16", torch.float16), ("float32", torch.float32)) if bool((column.to(dtype) == column).all())]
    unit = UNITS[formats[0]] if formats else torch.finfo(torch.float64).eps * GRID
    errors = unit * column.abs()
    typical, largest = float(errors.square().mean().sqrt()), float(errors.max())
    for decimals in range(MOST_DECIMALS + 1):
        step = 10.0**-decimals
        is_coarser = step >= COARSER * typical or (decimals == 0 and largest <= step)
        telling = (errors > 0) & (TELLING * errors <= step)
        if not is_coarser or int(telling.sum()) < LEAST:
            break  # too fine to be told from the number format
        if bool(((column / step).round() * step - column).abs().le(errors).all()):
            return f"decimals:{decimals}"
    return formats[0] if formats else EXACT_ANSWERS


def deviation(precision: str, column: torch.Tensor) -> float:
    """The standard deviation of the error of the answers of an output, `[Q]`, with a precision."""
    kind, amount = parse_answers(precision)
    if kind in UNITS:
        return UNITS[kind] * float(column.square().mean().sqrt())
    return {"noise": amount, "decimals": 10.0**-amount / math.sqrt(12)}.get(kind, 0.0)
