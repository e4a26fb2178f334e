"""The hyperparameters of an extraction."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from dataclasses import dataclass

from foundations import limits, step
from foundations.errors import ConfigError, unknown
from foundations.hparams import Hparams, normalised

LINKAGES = ("average", "complete", "single", "weighted")
SEEDS = (AUTO, STUDENTS, DERIVATIVES) = ("auto", "students", "derivatives")  # where the neurons come from
EXACT_ANSWERS = "float64"
PRECISIONS = "float64, float32, float16, decimals:N (N decimals, such as decimals:4), noise:S (a standard deviation, such as noise:0.001)"


def parse_answers(text: str) -> tuple[str, float]:
    """The kind of precision that a text like `noise:0.001` names, and its amount, which is 0 for a number format.

    Raises:
        ConfigError: the text is not valid.
    """
    kind, _, amount = text.partition(":")
    if kind in (EXACT_ANSWERS, "float32", "float16") and amount == "" and ":" not in text:
        return kind, 0.0
    if kind == "decimals" and re.fullmatch(r"\d{1,2}", amount):
        return kind, float(amount)
    if kind == "noise" and re.fullmatch(r"[\d.]+(e[+-]?\d+)?", amount, re.ASCII | re.IGNORECASE):
        with contextlib.suppress(ValueError):
            if 0 < float(amount) < math.inf:
                return kind, float(amount)
    raise ConfigError(f"--answers: {text!r} is not a precision; valid: {PRECISIONS}")


def parse_domain(text: str) -> tuple[float, float]:
    """The bounds that a text like `-3:3` names.

    Raises:
        ConfigError: the text is not valid.
    """
    bounds: list[float] = []
    with contextlib.suppress(ValueError):
        bounds = [float(part) for part in text.split(":")]
    if len(bounds) != 2 or not all(map(math.isfinite, bounds)) or bounds[0] >= bounds[1]:
        raise ConfigError(f"--domain: {text!r} is not a domain; valid: LOW:HIGH, two finite numbers, the first smaller, such as -3:3")
    return bounds[0], bounds[1]


def canonical_domain(text: str) -> str:
    """The canonical text of a domain: `-3:3` for `-3.0:3`."""
    return ":".join(repr(bound).removesuffix(".0") for bound in parse_domain(text))


def canonical_answers(text: str) -> str:
    """The canonical text of a precision: `noise:0.001` for `noise:1e-3`."""
    kind, amount = parse_answers(text)
    return {"decimals": f"decimals:{amount:.0f}", "noise": f"noise:{amount!r}"}.get(kind, kind)


@dataclass
class ExtractionHparams(Hparams):
    """How the network is reconstructed from its students. Their hash is separate, so that several extractions can share students."""

    gamma: float = 0.7
    beta: float = 6.0
    _: dataclasses.KW_ONLY  # the published code has other fields from here on
    linkage: str = "average"
    boruta: str | None = None
    finetune_optimizer: str = "levenberg_marquardt"
    finetune_lr: float = 1.0
    finetune_training_steps: str = normalised(step.canonical, "60it")
    finetune_batch_size: int | None = None
    answers: str | None = normalised(canonical_answers, None)
    domain: str | None = normalised(canonical_domain, None)
    seeds_from: str = AUTO

    _name = "Extraction Hyperparameters"
    _description = "Clustering of the students' neurons, and fine-tuning of the reconstructed network."
    _gamma = "A cluster is accepted only if it contains neurons of at least this fraction of the students."
    _beta = "A cluster is accepted only if the median angle between its neurons is at most pi/beta."
    _linkage = "How the distance between two clusters is computed from the distances between their neurons."
    _boruta = (
        "A dataset. The inputs that the Boruta procedure finds uninformative on it are left out of clustering and of the comparison with "
        "the teacher."
    )
    _finetune_optimizer = "The optimizer that fine-tunes the reconstructed network."
    _finetune_lr = "The learning rate of fine-tuning."
    _finetune_training_steps = "The maximum length of fine-tuning. It stops earlier if the loss reaches the rounding floor."
    _finetune_batch_size = (
        "Queries per step of fine-tuning (by default as many as give twenty equations per unknown, or all queries if there are fewer)."
    )
    _answers = (
        f"The precision of the answers: {PRECISIONS}. By default, number format and decimals are noticed in the answers, and the noise is "
        "estimated from the errors of the recovered network."
    )

    _domain = (
        "LOW:HIGH, such as --domain -3:3: the bounds of every input within which a teacher may be asked what its answers have left open. "
        "By default, these are the bounds of the first queries. A wider domain is entered in steps, if nothing is open in the smaller one."
    )

    _seeds_from = (
        f"Where the neurons come from: {STUDENTS} that imitate the teacher; {DERIVATIVES} of a teacher that can be asked, which also show "
        f"depth, widths and activation function; or {AUTO}: derivatives first for a black box whose answers are always the same, students "
        "where they find no network, and students for all other teachers. Except on SLURM, --seeds is the same."
    )

    def __post_init__(self):
        if self.seeds_from not in SEEDS:
            raise unknown("--seeds_from", self.seeds_from, SEEDS)
        if self.domain is not None:
            parse_domain(self.domain)
        if self.answers is not None:
            parse_answers(self.answers)
        self.require("gamma", 0 < self.gamma <= 1, "more than 0 and at most 1")
        self.require("beta", 1 <= self.beta < math.inf, "a finite number, 1 or more")
        if self.linkage not in LINKAGES:
            raise unknown("--linkage", self.linkage, LINKAGES)
        self.require("finetune_lr", 0 < self.finetune_lr < math.inf, "a finite number more than 0")
        is_valid = self.finetune_batch_size is None or 1 <= self.finetune_batch_size <= limits.EXAMPLES
        self.require("finetune_batch_size", is_valid, f"1 to {limits.EXAMPLES:,}, because a batch is in memory as a whole")
        length = step.parse(self.finetune_training_steps, "--finetune_training_steps")
        self.require("finetune_training_steps", any(length), "1it or more")
