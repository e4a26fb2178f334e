"""The report of an extraction: kept as JSON, printed as a short table with a verdict. Only this module knows the JSON."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass

from extraction.checks import FLOOR, PRECISE, Certificate, Value
from foundations import json_text, paths
from foundations.errors import reason
from foundations.extraction_hparams import EXACT_ANSWERS
from foundations.tables import aligned
from platforms.platform import get_platform
from platforms.system import files

NAMED = 5  # neurons that a verdict names
REMEDY = "delete it and run the same command again"


@dataclass(frozen=True)
class LayerScore:
    """One layer compared with the teacher's; what needs the teacher's weights is None without them.

    Attributes:
        recovered_width: the number of recovered neurons.
        teacher_width: the number of the teacher's neurons.
        matched: pairs, one to one, within `evaluation.MATCHED`.
        missing: the teacher's neurons without a partner.
        excess: recovered neurons without a partner.
        max_cosine_distance: of the (w; b) vectors of the assigned pairs.
        mean_cosine_distance: likewise.
        max_weight_error: the largest deviation of a weight or bias in an assigned pair, over the teacher's largest in the layer.
    """

    recovered_width: int | None
    teacher_width: int | None = None
    matched: int | None = None
    missing: int | None = None
    excess: int | None = None
    max_cosine_distance: float | None = None
    mean_cosine_distance: float | None = None
    max_weight_error: float | None = None


@dataclass(frozen=True)
class FunctionError:
    """The error of a network's outputs on queries that were held out: their number, the mean squared and the largest error."""

    queries: int
    mse: float
    max_abs_error: float


@dataclass(frozen=True)
class Comparison:
    """A network compared with its teacher: the largest relative weight error (None where it is unknown), each layer, and the outputs."""

    max_relative_error: float | None
    layers: list[LayerScore]
    function: FunctionError


@dataclass(frozen=True)
class StudentsSummary:
    """The students: their number, their losses on the queries, and the name of the file with their weights."""

    count: int
    losses: list[float]
    weights: str


@dataclass(frozen=True)
class Report:
    """What an extraction found.

    Attributes:
        identified: whether the network is the teacher; None where the teacher's weights are unknown.
        max_relative_error: the largest weight error, relative to the largest weight of its layer; None where it is unknown.
        layers: each layer compared with the teacher's, the output layer last.
        function: the error on held-out queries.
        before_finetuning: the network before fine-tuning, compared in the same way.
        students: the students that it was recovered from.
        act_fun: the activation function of the hidden layers.
        model_name: the name of the recovered network as a model.
        model_path: the file with its weights.
        certificate: what the answers alone prove.
        seconds: the time of each phase.
        remarks: what the queries leave open, a sentence each.
        queries: how many queries a black box was asked, by phase; empty for other teachers.
        shortage: what the budget of queries has left out, as a sentence; empty if nothing.
        advice: where the network is not identified, what is wrong as far as numbers show it, and what to try next.
    """

    identified: bool | None
    max_relative_error: float | None
    layers: list[LayerScore]
    function: FunctionError
    before_finetuning: Comparison
    students: StudentsSummary
    act_fun: str
    model_name: str
    model_path: str
    certificate: Certificate
    seconds: dict[str, float]
    remarks: list[str] = dataclasses.field(default_factory=list)
    advice: list[str] = dataclasses.field(default_factory=list)
    queries: dict[str, int] = dataclasses.field(default_factory=dict)
    shortage: str = ""

    @property
    def hidden(self) -> list[LayerScore]:
        """The scores of the hidden layers."""
        return self.layers[:-1]

    @property
    def queries_shown(self) -> str:
        """How many queries were asked, in total and by phase, as text."""
        return f"{sum(self.queries.values()):,}: " + ", ".join(f"{phase} {count:,}" for phase, count in self.queries.items())

    @property
    def losses_shown(self) -> str:
        """The smallest and the largest loss of the students, as text."""
        return f"{min(self.students.losses):.1e} to {max(self.students.losses):.1e}"

    def to_json(self) -> str:
        """The report as JSON."""
        return json_text.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, content: object) -> Report:
        """The report that some parsed JSON holds.

        Reports from before certificates were lists of checks have their figures as plain values.

        Raises:
            ValueError: the JSON is no whole report.
        """
        if not isinstance(content, dict):
            raise ValueError("it is no report")
        certificate = content.get("certificate")
        if isinstance(certificate, dict) and "checks" not in certificate:
            content = content | {"certificate": _with_checks(certificate)}
        report = _decoded(cls, content, "the report")
        if len(report.layers) < 2 or not report.students.losses or report.students.count != len(report.students.losses):
            raise ValueError("it has too few layers or losses")
        return report


def summary(content: Mapping[str, typing.Any]) -> dict[str, Value]:
    """The figures of a report that are listed with its run, from its parsed JSON; nothing else of it is looked at.

    Raises:
        KeyError, TypeError, AttributeError, OverflowError: a figure is missing, or is not of its type.
    """
    figures = {
        "identified": content["identified"],
        "accepted": content["certificate"]["accepted"],
        "max_relative_error": content["max_relative_error"],
        "max_abs_error": json_text.number(content["function"]["max_abs_error"]),
        "seconds": float(sum(content["seconds"].values())),
    }
    if content.get("queries"):
        figures["queries"] = sum(content["queries"].values())
    for name, value in figures.items():
        kinds = (bool, types.NoneType) if name in ("identified", "accepted") else (int, float, types.NoneType)
        if type(value) not in kinds:
            raise TypeError(f"{name} is {value!r:.40}")
    return figures


def write(location: str, report: Report) -> None:
    """Writes the report of a clustering folder."""
    get_platform().write(paths.report(location), report.to_json())


def read(location: str) -> Report:
    """The report of a clustering folder.

    Raises:
        ConfigError: it is missing, or damaged.
    """
    path = paths.report(location)
    content = files.read_json(path, REMEDY)
    try:
        return Report.from_json(content)
    except (ValueError, TypeError, OverflowError) as error:
        raise files.damaged(path, f"not a complete report: {reason(error)}", REMEDY) from None


def is_current(location: str, students_location: str) -> bool:
    """Whether there is a report, and it was made from the students as they are now."""
    if not get_platform().exists(paths.report(location)):
        return False
    latest = paths.latest_model(get_platform().listdir(students_location))
    return latest is not None and read(location).students.weights == latest


COLUMNS = {
    "recovered_width": "recovered",
    "teacher_width": "teacher",
    "matched": "matched",
    "missing": "missing",
    "excess": "excess",
    "max_cosine_distance": "cosine distance",
    "max_weight_error": "weight error",
}


def rows(report: Report) -> list[list[str]]:
    """The table of the layers, its titles first; where the teacher's weights are unknown it shows widths only."""
    columns = {name: title for name, title in COLUMNS.items() if name == "recovered_width" or report.identified is not None}
    names = [f"hidden {depth} ({report.act_fun})" for depth in range(1, len(report.layers))] + ["output"]
    body = [[name, *(_cell(getattr(layer, column)) for column in columns)] for name, layer in zip(names, report.layers, strict=True)]
    return [["layer", *columns.values()], *body]


def table(report: Report) -> str:
    """The report as text, ending in a verdict."""
    lines = aligned(rows(report), "<>")
    rule = "-" * max(map(len, lines))
    seconds = report.seconds
    notes = [
        f"students    {report.students.count}, losses {report.losses_shown}",
        f"clustered   {_errors(report.before_finetuning)}",
        f"fine-tuned  {_errors(Comparison(report.max_relative_error, report.layers, report.function))}",
        f"certificate {_certificate(report.certificate)}",
        *([f"queries     {report.queries_shown}"] if report.queries else []),
        *(f"note        {remark}" for remark in report.remarks),
        f"time        {sum(seconds.values()):.1f} s: " + ", ".join(f"{phase} {value:.1f}" for phase, value in seconds.items()),
    ]
    return "\n".join([rule, *lines, rule, *notes, rule, f"Verdict: {verdict(report)}", *report.advice])


def verdict(report: Report) -> str:
    """What was found, in a sentence, and where it is not exact, why."""
    found = _verdict(report)
    return f"{found} {report.shortage}." if report.shortage and not found.startswith(("IDENTIFIED exactly", "IDENTIFIED.")) else found


def _verdict(report: Report) -> str:
    """The verdict, without what a budget has left out."""
    name = report.model_name
    if report.identified is None:
        if report.remarks and report.certificate.lacks_only_rank:
            given = _errors_of_answers(report.certificate)
            return f"IDENTIFIED but for what no query tells. For {name}, {given}, but {'; '.join(report.remarks)}."
        return _verdict_of_answers(name, report.certificate)
    if report.identified:
        neurons = ", ".join(f"{layer.matched} of {layer.teacher_width}" for layer in report.hidden)
        return f"IDENTIFIED. {neurons} neurons, none in excess; every weight within {_cell(report.max_relative_error)} of the teacher's."
    if report.layers[0].matched is None:
        return f"NOT IDENTIFIED. {name} and the teacher have different numbers of layers."
    matched = ", ".join(f"{layer.matched} of {layer.teacher_width} neurons matched, {layer.excess} in excess" for layer in report.hidden)
    return f"NOT IDENTIFIED. {matched}; largest weight error {_cell(report.max_relative_error)}."


def headline(report: Report) -> tuple[str, str]:
    """The verdict, cut into what was found and the rest."""
    found, *rest = re.split(r"\. |, (?=because |whose )", verdict(report), maxsplit=1)
    return found, rest[0] if rest else ""


def _verdict_of_answers(name: str, certificate: Certificate) -> str:
    """The verdict where the true weights are unknown, so that the certificate decides."""
    if certificate.accepted:
        return f"IDENTIFIED exactly. {name} gives every answer to rounding, and the answers determine all its weights."
    if certificate.accepted_to_precision:
        return (
            f"IDENTIFIED to the precision of the answers. No weight of {name} is off by more than {_cell(certificate['error_95'])} (95%), "
            f"relative to the largest in its layer; {_errors_of_answers(certificate)}."
        )
    met = {check.name: check.met for check in certificate.checks}
    neurons = [each for each in certificate.open if each.startswith("neuron")]
    resolved = certificate["separation"] is not None and met["separation"] and met["signs_settled"]
    if certificate.fits and certificate.open and len(neurons) < certificate.neurons and resolved and met["equations"]:
        names = ", ".join(certificate.open[:NAMED]) + (
            f" and {len(certificate.open) - NAMED} more" if len(certificate.open) > NAMED else ""
        )
        return (
            f"IDENTIFIED but for {names}, whose weights the answers leave open by more than {PRECISE:.0%}; "
            f"{_errors_of_answers(certificate)}. Next: use more queries, where these neurons change, or more precise answers."
        )
    reason_, remedy = _reason(certificate, met)
    return f"NOT IDENTIFIED, because {reason_}. Next: {remedy}."


def _errors_of_answers(certificate: Certificate) -> str:
    """What the errors of the answers are, as a clause."""
    if _met_exactly(certificate):
        return "every answer is given to rounding"
    stated = "" if certificate.precision in ("", EXACT_ANSWERS) else f" (precision: {certificate.precision})"
    return f"the answers have errors of {_cell(certificate['noise'])} of their standard deviation{stated}"


def _reason(certificate: Certificate, met: Mapping[str, bool | None]) -> tuple[str, str]:
    """The first reason why a network is not identified, and what to try next."""
    longer = "train the students longer (--extra_training 6000it), use wider students, or another --act_fun"
    more = "use more queries (--datagen, --samples, or a longer file)"
    error = _cell(certificate["residual"])
    if not met["equations"]:
        unknowns = next(check.limit for check in certificate.checks if check.name == "equations")
        return f"{certificate['equations']} numbers in the answers are too few for {unknowns} unknowns", more
    if met.get("held_out_excess") is False and certificate["held_out_excess"] is not None:
        held_out = _cell(certificate["held_out_residual"])
        return f"the largest error is {error} on the answers for training, but {held_out} on held-out answers", more
    if met.get("error_ratio") is False:
        ratio = _cell(certificate["error_ratio"])
        return f"the errors are {ratio} times what --answers {certificate.precision} allows", f"{longer}, or leave out --answers"
    if met.get("structure") is False and certificate["structure"] is not None:
        return f"the errors (largest {error} of a standard deviation) depend on the query, which noise does not", longer
    if "structure" in certificate and certificate["structure"] is None:
        return f"the largest error is {error} of a standard deviation, and the queries are too few to tell noise from a wrong network", more
    if certificate["rank"] is None:
        return f"the largest error is {error} of a standard deviation, and the network is too large to examine its weights", longer
    if not met["signs_settled"] or met.get("signs_resolved") is False and certificate["signs_resolved"] is not None:
        return "some neurons can change sign together without a change of the answers beyond their errors", more
    if not met["separation"] or met.get("resolution") is False and certificate["resolution"] is not None:
        return "two neurons have the same or opposite directions, within their errors", "try another --act_fun, or more queries"
    if certificate.open:
        return "the answers leave the weights of most neurons open", more
    return f"the largest error is {error} of a standard deviation, where an exact network leaves {FLOOR:.0e}", longer


def _met_exactly(certificate: Certificate) -> bool:
    """Whether all answers are given to rounding."""
    return all(check.met for check in certificate.checks if check.name in ("residual", "held_out_residual"))


def _certificate(certificate: Certificate) -> str:
    """The certificate in a line."""
    checks = {check.name: check for check in certificate.checks}
    rank, unknowns = checks["rank"].value, checks["rank"].limit
    disagreement = checks["disagreement"].value
    rival = "" if disagreement is None else f", largest difference to a second network {disagreement:.1e}"
    return (
        f"{certificate.grade}: largest error {_cell(checks['residual'].value)}, on held-out answers "
        f"{_cell(checks['held_out_residual'].value)}, relative to their standard deviation; "
        f"{_cell(rank)} of {unknowns} unknowns determined{rival}"
    )


def _errors(comparison: Comparison) -> str:
    """The error of a network's outputs and, where the teacher's weights are known, of its weights."""
    function, worst = comparison.function, comparison.max_relative_error
    error = "" if worst is None else f"weight error {worst:.1e}, "
    return f"{error}on {function.queries} held-out queries mean squared error {function.mse:.1e}, largest {function.max_abs_error:.1e}"


def _cell(value: Value) -> str:
    if value is None:
        return "-"
    return f"{value:.1e}" if isinstance(value, float) else str(value)


def _with_checks(figures: Mapping[str, Value]) -> dict[str, typing.Any]:
    """A certificate that has its figures as plain values, in the form that it has now."""
    certificate = Certificate.of(figures)
    accepted = figures.get("accepted", certificate.accepted)
    return {**dataclasses.asdict(certificate), "accepted": accepted, "accepted_to_precision": accepted}


def _decoded(kind: typing.Any, value: object, name: str) -> typing.Any:
    """A value of parsed JSON as the type that a field is annotated with.

    Raises:
        ValueError: it is not of that type.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in arguments:
            return None
        plain = [argument for argument in arguments if argument is not types.NoneType]
        if type(value) in plain:
            return value
        return _decoded(plain[0], value, name)
    if origin is list and isinstance(value, list):
        return [_decoded(arguments[0], each, name) for each in value]
    if origin is dict and isinstance(value, dict):
        return {key: _decoded(arguments[1], each, name) for key, each in value.items()}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints, missing = typing.get_type_hints(kind), dataclasses.MISSING
        required = [field.name for field in dataclasses.fields(kind) if field.default is missing and field.default_factory is missing]
        absent = next((field for field in required if field not in value), None)
        if absent is not None:
            raise ValueError(f"{name} has no {absent}")
        return kind(**{field: _decoded(hints[field], value[field], field) for field in hints if field in value})
    if kind is float and (value is None or type(value) in (int, float)):
        return json_text.number(value)
    if type(value) is kind:
        return value
    raise ValueError(f"{name} is {value!r:.40}")
