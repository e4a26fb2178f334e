"""Why a network was not identified, and the command to try next: from numbers to sentences, as pure functions.

Errors are relative: root mean squares as shares of the standard deviation of the answers, and losses as shares of their variance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from models.activation_functions import activation_functions
from models.students import Model as Students

IMITATED = 1e-3  # students with a larger relative loss do not imitate the teacher
MISSED = 10.0  # held-out answers count as missed where their error is this many times that of the others
FEW, LARGER = 2, 2.0  # numbers for each unknown, below which answers are few; then MISSED is LARGER, because students learn with a penalty
PRECISE = 1e-6  # a relative error that rounded or single-precision answers may leave
CROWDED = 0.7  # students are too narrow where a layer has this many recovered neurons for each of the students' neurons
SPARSE = 0.5  # students with fewer recovered neurons than this share, all layers considered, are wide enough
WIDER = 2  # times as wide are the students to try
SKIPPED = 3.0  # a linear map beside the network is named that lowers the error this many times
EQUATIONS = 5  # numbers in the answers to ask for, for each unknown
LONGER = "6000it"  # to train students for
NAMED = 3  # units that are named in a sentence


@dataclass(frozen=True)
class Unit:
    """A hidden neuron of the recovered network: its layer, from 1, its place there, from 0, and the queries for which it is active."""

    layer: int
    neuron: int
    active: int

    def __str__(self) -> str:
        return f"neuron {self.neuron} of hidden layer {self.layer}"


@dataclass(frozen=True)
class Facts:
    """What is known about an extraction that ended above the rounding floor.

    Attributes:
        students: the name of the stack of students as a model.
        act_fun: their activation function.
        best_loss: the relative loss of the best student.
        best_held_out_loss: the relative loss of the same student on held-out queries.
        found: the numbers of neurons that were recovered in the hidden layers; fewer numbers where deeper layers were not reached.
        error: the relative error of the recovered network on the answers that it was fitted to; None where there is no network.
        held_out_error: the same on held-out answers.
        held_out: the number of held-out queries.
        queries: the number of distinct queries.
        outputs: the numbers in an answer.
        unknowns: the weights and biases of the recovered network; of a network with a quarter of the students' widths where there is none,
            or one that students that miss held-out answers have in common.
        units: the hidden units with a kink that few or all queries leave on one side of it.
        weights: the largest number of incoming weights of one of these units.
        datagen: the queries that were generated, in canonical form; None for those of a file.
        without_map: the relative error of the best outputs over the last hidden layer; None where its units can carry a linear map.
        beside_map: the same over this layer and the inputs.
        widths: of the hidden layers of the students that were trained; as `students` says where left out.
        is_trained_to_the_end: whether students were trained by Levenberg-Marquardt because answers are scarce: more steps change little.
    """

    students: str
    act_fun: str
    best_loss: float
    best_held_out_loss: float
    found: Sequence[int]
    error: float | None
    held_out_error: float | None
    held_out: int
    queries: int
    outputs: int
    unknowns: int
    units: Sequence[Unit] = ()
    weights: int = 0
    datagen: str | None = None
    without_map: float | None = None
    beside_map: float | None = None
    widths: Sequence[int] = ()
    is_trained_to_the_end: bool = False

    @property
    def misses_held_out_answers(self) -> bool:
        """Whether the best student agrees with the answers that it was trained on, and not with those that were held out."""
        are_few = self.queries * self.outputs < FEW * self.unknowns
        return self.best_held_out_loss**0.5 > max((LARGER if are_few else MISSED) * self.best_loss**0.5, PRECISE)


@dataclass(frozen=True)
class Advice:
    """What is wrong and what to try next.

    Attributes:
        text: a sentence or more.
        flags: of the command to try, which differ from those of the run: values by names; several values of a flag are joined by commas,
            and a flag with an empty value is left out.
    """

    text: str
    flags: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text


LARGER_ERRORS = Advice(
    "What the network leaves of the answers looks like noise, larger than --answers states: leave --answers out, so that the errors are "
    "estimated.",
    {"answers": ""},
)


DOUBTFUL_ROWS = Advice(
    "The network gives all rows but those named above. If they are errors, leave them out of the file and run the same command; if they "
    "are right, use more queries like them, which show the neuron behind them."
)

PROBABILITIES = Advice(
    "All answers are between 0 and 1: if they are probabilities of a sigmoid, such as predict_proba of one of two classes, give "
    "--link sigmoid.",
    {"link": "sigmoid"},
)


def advice(facts: Facts, fits: bool = False) -> list[Advice]:
    """What is wrong as far as the numbers show it, the likeliest cause first, each with what to try next; nothing where they do not.

    Args:
        facts: the numbers.
        fits: whether the network gives all answers as well as their errors allow, so that only weights can be open.
    """
    if fits:
        return list(_units(facts))
    lines = list(_too_few_queries(facts))
    if not lines:
        lines = [*_skip_connection(facts), *_narrow_or_wrong_students(facts)]
    lines += _units(facts)
    return lines or list(_students_to_train_longer(facts))


def _too_few_queries(facts: Facts) -> Iterator[Advice]:
    """Students, or the network, agree with the answers that they were trained on and miss those that were held out."""
    wanted = -(-EQUATIONS * facts.unknowns // facts.outputs)
    scope = f"{facts.queries:,} distinct queries give {facts.queries * facts.outputs:,} numbers for {facts.unknowns:,} unknowns"
    wanted = max(wanted, 2 * facts.queries)
    remedy = f"use {wanted:,} queries or more ({'--datagen' if facts.datagen else 'a longer file, then the same command'})"
    flags = {"datagen": _with_count(facts.datagen, wanted)} if facts.datagen else {}
    best, held_out = facts.best_loss**0.5, facts.best_held_out_loss**0.5
    if facts.misses_held_out_answers:
        yield Advice(
            f"There are too few queries: {scope}. The best student agrees with the answers to {best:.1e} of their standard deviation, and "
            f"misses the {facts.held_out:,} held-out answers by {held_out:.1e}; {remedy}.",
            flags,
        )
    elif facts.error is not None and facts.held_out_error is not None and facts.held_out_error > max(MISSED * facts.error, PRECISE):
        yield Advice(
            f"There are too few queries: {scope}. The network agrees with the answers to {facts.error:.1e} of their standard deviation, "
            f"and misses the {facts.held_out:,} held-out answers by {facts.held_out_error:.1e}; {remedy}.",
            flags,
        )


def _skip_connection(facts: Facts) -> Iterator[Advice]:
    """A linear map of the inputs explains much of what the network does not."""
    if facts.without_map is None or facts.beside_map is None:
        return
    if facts.without_map > max(PRECISE, SKIPPED * facts.beside_map):
        yield Advice(
            f"The teacher may have a skip connection: a linear map of X beside it lowers the error from {facts.without_map:.1e} to "
            f"{facts.beside_map:.1e} of the standard deviation of the answers. Such a map is recovered from exact answers only (float64), "
            f"with students of one hidden layer that imitate the teacher well: {_better(facts).text}.",
            _better(facts).flags,
        )


def _narrow_or_wrong_students(facts: Facts) -> Iterator[Advice]:
    """No student imitates the teacher, or a layer has about as many neurons as the students have."""
    widths = facts.widths or hidden_widths(facts.students)
    command, flags = f"--default_hparams='{wider(facts.students)}'", {"default_hparams": wider(facts.students)}
    imitates = facts.best_loss <= IMITATED
    crowded = [depth for depth, (count, width) in enumerate(zip(facts.found, widths, strict=False), 1) if count >= CROWDED * width]
    loss = f"the loss of the best student is {facts.best_loss:.1e} of the variance of the answers"
    if crowded and (facts.error is None or facts.error > PRECISE):
        layers = ", ".join(
            f"{facts.found[depth - 1]} were found in hidden layer {depth}, of students of {widths[depth - 1]}" for depth in crowded
        )
        yield Advice(f"The students are too narrow for so many neurons: {layers}; {loss}; try {command}.", flags)
    elif not imitates and sum(facts.found) >= SPARSE * sum(widths[: len(facts.found)]) > 0:
        yield Advice(f"The students may be too narrow: {loss}; try {command}.", flags)
    elif not imitates:
        others = [name for name in activation_functions if name not in (facts.act_fun, "identity")]
        yield Advice(
            f"No student imitates the teacher: {loss}, far above what students with the right depth and activation function reach. "
            f"Try another --act_fun ({', '.join(others)}), a hidden layer more (--default_hparams='{deeper(facts.students)}'), "
            f"or wider students ({command}).",
            {"act_fun": ",".join(others)},
        )


def _units(facts: Facts) -> Iterator[Advice]:
    """Units whose kink no query, or too few queries, show."""
    always = [unit for unit in facts.units if 2 * unit.active > facts.queries]
    seldom = [unit for unit in facts.units if 2 * unit.active <= facts.queries]
    spread = f"use queries that are spread more widely ({'--datagen wide' if facts.datagen else 'another file'})"
    flags = {"datagen": "wide"} if facts.datagen else {}
    if always:
        yield Advice(
            f"Units that never switch, or hardly ever, are a linear map, and the answers tell only the sum of such maps: {_named(always)}, "
            f"active for {', '.join(f'{unit.active:,}' for unit in always[:NAMED])} of {facts.queries:,} queries. To tell more, {spread}.",
            flags,
        )
    if seldom:
        counts = ", ".join(f"{unit.active:,}" for unit in seldom[:NAMED])
        yield Advice(
            f"Few queries show what {_named(seldom)} {'does' if len(seldom) == 1 else 'do'}: active for {counts} of {facts.queries:,} "
            f"queries, with up to {facts.weights} incoming weights each. To tell more, {spread}.",
            flags,
        )


def _students_to_train_longer(facts: Facts) -> Iterator[Advice]:
    """Students imitate the teacher, but not well enough that all share its neurons."""
    if facts.is_trained_to_the_end or facts.error is None or facts.error > PRECISE**0.5:
        better = _better(facts)
        yield Advice(
            f"The students imitate the teacher to a loss of {facts.best_loss:.1e} of the variance of the answers, which was not enough "
            f"to find all neurons: {better.text}, or try wider ones (--default_hparams='{wider(facts.students)}').",
            better.flags,
        )


def _better(facts: Facts) -> Advice:
    """How to train students that imitate the teacher better, as a clause, with the flags for it."""
    if not facts.is_trained_to_the_end:
        return Advice(f"train them longer (--extra_training {LONGER})", {"extra_training": LONGER})
    name = more(facts.students)
    return Advice(
        f"train more of them (--default_hparams='{name}'); the answers are few, so that students are trained by Levenberg-Marquardt, and "
        "further training changes little",
        {"default_hparams": name},
    )


def _with_count(datagen: str, count: int) -> str:
    """Queries in canonical form with so many random ones more, or instead of fewer."""
    others = [policy for policy in datagen.split("+") if policy.partition(":")[0] != "random"]
    return "+".join([*others, f"random:{count}"])


def _named(units: Sequence[Unit]) -> str:
    more = f" and {len(units) - NAMED} more" if len(units) > NAMED else ""
    return ", ".join(map(str, units[:NAMED])) + more


def hidden_widths(students: str) -> list[int]:
    """The widths of the hidden layers of students with this name."""
    parsed = Students.parse(students)
    assert parsed is not None
    family, _, single = parsed
    return family.layer_sizes(single)[1:-1]


def wider(students: str) -> str:
    """The name of students that are wider."""
    return _with_widths(students, [WIDER * width for width in hidden_widths(students)])


def more(students: str) -> str:
    """The name of twice as many students."""
    parsed = Students.parse(students)
    assert parsed is not None
    family, count, single = parsed
    return f"students_{family.family}({2 * count}){single.removeprefix(family.family)}"


def deeper(students: str) -> str:
    """The name of students with another hidden layer, as wide as the last."""
    widths = hidden_widths(students)
    return _with_widths(students, [*widths, widths[-1]])


def _with_widths(students: str, widths: list[int]) -> str:
    """The name of students with other widths of the hidden layers."""
    parsed = Students.parse(students)
    assert parsed is not None
    family, count, single = parsed
    sizes = family.layer_sizes(single)
    name = family.name_of([sizes[0], *widths, sizes[-1]])
    return f"students_{family.family}({count}){name.removeprefix(family.family)}"
