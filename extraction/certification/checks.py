"""The checks of a certificate: the title, the requirement and the meaning of each. All that shows a certificate reads them here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Value = float | int | bool | None

FLOOR = 1e-11  # the largest error of an exact network, as a share of the spread of an output
WEIGHT_ERROR = 1e-6  # how far the answers may leave a weight from the truth, as a share of the largest in its layer
SEPARATION = 1e-6  # the angle between two neurons, in radians, below which they are one, or opposites that make a linear map
PRECISE = 1e-2  # how far a weight may be from the truth at 95%, as a share of the largest in its layer, where answers have errors
SURPRISE = 5.0  # standard deviations by which chance alone does not exceed an expectation
RESOLVED = 10.0  # the angle between two neurons, as a multiple of the errors of weights, from which they are two
FAR_ERROR = 1e-9  # at queries far from all others
DISAGREEMENT = 1e-8  # of a network and its rival, as a share of the spread of an output


@dataclass(frozen=True)
class Check:
    """One figure of a certificate.

    Attributes:
        name: the key of the figure.
        title: the name of the figure for readers.
        value: the figure; None where it was not examined.
        limit: what is required of it; None where nothing is.
        comparison: how value and limit compare where the requirement is met: 'at most', 'at least', 'more than' or 'equal to'.
        met: whether the requirement is met; None where nothing is required.
        meaning: what the figure says, in plain words.
    """

    name: str
    title: str
    value: Value
    limit: Value
    comparison: str
    met: bool | None
    meaning: str

    @property
    def shown(self) -> str:
        """The figure as text."""
        if self.value is None:
            return "not examined"
        if self.name == "agreement":
            return f"{self.value:.0%}"
        shown = _shown(self.value)
        return f"{shown} of {_shown(self.limit)}" if self.name == "rank" else shown

    @property
    def requirement(self) -> str:
        """The requirement as text; empty where nothing is required."""
        if self.limit is None:
            return ""
        limit = f"{self.limit:.0e}" if isinstance(self.limit, float) else _shown(self.limit)
        return limit if self.comparison == "equal to" else f"{self.comparison} {limit}"


@dataclass(frozen=True)
class Certificate:
    """The checks of a network that was recovered from answers, and whether the network is exact as far as answers can tell.

    Attributes:
        checks: the checks of an exact network, and of a network that is as exact as its answers where these were examined.
        accepted: whether all requirements of an exact network are met; a figure that was not examined meets none.
        accepted_to_precision: whether it is accepted, or is as exact as answers with errors can make it.
        precision: of the answers, as text.
        open: the names of the neurons and outputs whose weights the answers do not determine.
        neurons: the number of hidden neurons.
    """

    checks: list[Check]
    accepted: bool
    accepted_to_precision: bool = False
    precision: str = ""
    open: list[str] = dataclasses.field(default_factory=list)
    neurons: int = 0

    @classmethod
    def of(cls, figures: Mapping[str, Value], precision: str = "", open: Sequence[str] = (), neurons: int = 0) -> Certificate:
        """The certificate that some figures amount to; figures that are left out were not examined."""
        checks = [rule.check(figures) for rule in _exact_rules(figures)]
        accepted = all(check.met is not False for check in checks)
        precise = [rule.check(figures) for rule in PRECISION_RULES if rule.name in figures]
        needed = precise + [check for check in checks if check.name in ("equations", "rank")]
        to_precision = accepted or (bool(precise) and all(check.met is not False for check in needed))
        return cls(checks + precise, accepted, to_precision, precision, list(open), neurons)

    @property
    def grade(self) -> str:
        """Whether the network is accepted, in words."""
        if self.accepted:
            return "accepted"
        return "accepted to the precision of the answers" if self.accepted_to_precision else "not accepted"

    @property
    def is_met_exactly(self) -> bool:
        """Whether the network gives all answers to rounding, also the held-out ones."""
        return all(check.met for check in self.checks if check.name in ("residual", "held_out_residual"))

    @property
    def fits(self) -> bool:
        """Whether the network gives all answers, also the held-out ones, exactly or as well as their errors allow."""
        met = {check.name: check.met for check in self.checks}
        is_noise = met.get("structure") is True and met.get("held_out_excess") is True and met.get("error_ratio") is not False
        return self.is_met_exactly or is_noise

    @property
    def exceeds_stated_errors(self) -> bool:
        """Whether the network leaves nothing but noise, which is larger than the stated precision of the answers allows."""
        met = {check.name: check.met for check in self.checks}
        return met.get("error_ratio") is False and met.get("structure") is True and met.get("held_out_excess") is True

    @property
    def lacks_only_rank(self) -> bool:
        """Whether an exact network, or one as exact as its answers, meets all requirements but leaves unknowns, and perhaps signs, open."""
        failed = {check.name for check in self.checks if check.met is False} - {"signs_settled", "signs_resolved"}
        exact, precise = ({rule.name for rule in rules} for rules in (RULES, PRECISION_RULES))
        examined = any(check.name in precise for check in self.checks)
        return failed & exact == {"rank"} or (examined and failed & (precise | {"equations", "rank"}) == {"rank"})

    def __contains__(self, name: object) -> bool:
        """Whether there is a check of a name."""
        return any(check.name == name for check in self.checks)

    def with_open(self, count: int) -> Certificate:
        """The certificate with so many more unknowns, which no answer tells."""
        figures = {check.name: check.value for check in self.checks}
        unknowns = next(check.limit for check in self.checks if check.name == "rank")
        more = None if unknowns is None else unknowns + count
        return Certificate.of(figures | {"unknowns": more}, self.precision, self.open, self.neurons)

    def __getitem__(self, name: str) -> Value:
        """The figure of a check."""
        return next(check.value for check in self.checks if check.name == name)


@dataclass(frozen=True)
class Rule:
    """What a check requires of a figure. A limit that is text is the name of another figure."""

    name: str
    title: str
    comparison: str
    limit: float | bool | str | None
    meaning: str

    def check(self, figures: Mapping[str, Value]) -> Check:
        """The check of a figure."""
        value = figures.get(self.name)
        limit = figures.get(self.limit) if isinstance(self.limit, str) else self.limit
        met = None if self.limit is None else value is not None and limit is not None and COMPARISONS[self.comparison](value, limit)
        return Check(self.name, self.title, value, limit, self.comparison, met, self.meaning)


COMPARISONS = {
    "at most": lambda value, limit: value <= limit,
    "at least": lambda value, limit: value >= limit,
    "more than": lambda value, limit: value > limit,
    "equal to": lambda value, limit: value == limit,
}

RULES = (
    Rule(
        "residual",
        "Largest error on the training answers",
        "at most",
        FLOOR,
        "The largest error on the queries that the network was recovered from, as a share of the standard deviation of "
        "its output. An exact network leaves rounding errors only.",
    ),
    Rule(
        "held_out_residual",
        "Largest error on the held-out answers",
        "at most",
        FLOOR,
        "The largest error on queries that were not used to recover the network, as a share of the standard deviation of its output.",
    ),
    Rule(
        "equations",
        "Numbers in the answers",
        "more than",
        "unknowns",
        "Every number in an answer is an equation for the weights. There must be more equations than unknown weights and biases.",
    ),
    Rule(
        "rank",
        "Unknowns that the answers determine",
        "equal to",
        "unknowns",
        "The rank of the Jacobian: the number of combinations of weights and biases that the answers determine. If one is not "
        "determined, weights can change without a change of any answer.",
    ),
    Rule(
        "weight_error_bound",
        "Bound on the error of a weight",
        "at most",
        WEIGHT_ERROR,
        "How far the remaining error can move a weight from its true value, as a share of the largest weight in its layer.",
    ),
    Rule(
        "separation",
        "Smallest angle between two neurons, in radians",
        "at least",
        SEPARATION,
        "If two neurons have the same direction, the answers may determine only the sum of their outgoing weights.",
    ),
    Rule(
        "signs_settled",
        "Signs are unique",
        "equal to",
        True,
        "Whether no group of neurons can change sign together without a change of the function.",
    ),
    Rule(
        "disagreement",
        "Largest difference to a second network",
        "at most",
        DISAGREEMENT,
        "A second network starts from disturbed weights and is fitted to half of the answers. Gradient ascent searches for the input where "
        "the two differ most; the difference is a share of the standard deviation of each output.",
    ),
    Rule(
        "agreement",
        "Students that share the rarest neuron",
        "at least",
        None,
        "The share of the students that contain the neuron which the fewest students contain.",
    ),
)

LARGE_RULES = (
    Rule(
        "smallest_singular_value",
        "Smallest singular value of the Jacobian (99.9%)",
        "at least",
        None,
        "How well the answers determine the combination of weights that they determine least: the smallest singular value is at least "
        "this, with a probability of 99.9%, in terms of the weighted sums of the first layer and with columns of unit length. The rank "
        "follows from it.",
    ),
    Rule(
        "unseen_share",
        "Share of inputs that may have other answers (99.9%)",
        "at most",
        None,
        "Of inputs that are drawn as the held-out queries are, the network answers no larger share wrongly, with a probability of 99.9%, "
        "since it answers all of these. A neuron that switches at fewer inputs could be missing.",
    ),
    Rule(
        "far_error",
        "Error on fresh answers up to far from the origin",
        "at most",
        FAR_ERROR,
        "The largest root mean square error at queries of three distances, which no step of the recovery has used, as a share of the "
        "standard deviation of the outputs there.",
    ),
)

PRECISION_RULES = (
    Rule(
        "noise",
        "Errors of the answers",
        "at most",
        None,
        "The standard deviation of the errors that the network leaves on the training answers, less the share that the fit of its weights "
        "takes; as a share of the standard deviation of the output where it is largest.",
    ),
    Rule(
        "error_ratio",
        "Errors over those of the stated precision",
        "at most",
        1.0,
        "The errors on the training answers, over the largest errors that answers of the stated precision allow.",
    ),
    Rule(
        "held_out_excess",
        "Held-out errors over training errors, in standard deviations",
        "at most",
        SURPRISE,
        "By how much the errors on the held-out answers exceed those that the errors of the training answers lead to expect. A network "
        "that was fitted to too few answers misses others.",
    ),
    Rule(
        "structure",
        "Structure in the errors, in standard deviations",
        "at most",
        SURPRISE,
        "By how much functions of the queries explain the errors better than noise. A network that lacks a neuron, or that has "
        "another activation function, leaves errors that depend on the query.",
    ),
    Rule(
        "error_95",
        "Error of a weight (95%)",
        "at most",
        PRECISE,
        "No weight is further from the truth than this with a probability of 95%, as a share of the largest in its layer (of the largest "
        "of its output in the last layer). It follows from the errors of the answers.",
    ),
    Rule(
        "resolution",
        "Smallest angle between two neurons, over the error of a weight",
        "at least",
        RESOLVED,
        "Neurons that are nearer to each other than their errors may be one.",
    ),
    Rule(
        "signs_resolved",
        "Signs are unique within the errors",
        "equal to",
        True,
        "Whether no group of neurons can change sign together with a change of the function below its errors.",
    ),
)


def _exact_rules(figures: Mapping[str, Value]) -> list[Rule]:
    """The rules of an exact network. For one that is too large for a second network, other figures take the place of that."""
    if not any(rule.name in figures for rule in LARGE_RULES):
        return [*RULES]
    return [dataclasses.replace(rule, limit=None) if rule.name == "disagreement" else rule for rule in RULES] + [*LARGE_RULES]


def _shown(value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:.1e}"
