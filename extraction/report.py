"""The report of an extraction, kept as JSON. Only this module knows the JSON; `reporting/verdict.py` puts a report into words."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass

from extraction.certification.checks import Certificate, Value
from foundations import json_text, paths
from foundations.errors import reason
from platforms.platform import get_platform
from platforms.system import files

TRUTHS = ("identified", "accepted", "accepted_to_precision")  # figures of `summary` that are true or false
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
class Derivatives:
    """What became of derivatives: why they found no network, a sentence each, or nothing; and the queries of each stage."""

    lacks: list[str]
    stages: dict[str, int]


@dataclass(frozen=True)
class OutputErrors:
    """The errors of one output, on the answers for training and on those that were held out.

    Attributes:
        unit: the unit of the other figures, in the units of the output.
        training: the root mean square on the answers for training.
        training_largest: the largest of them.
        held_out: the root mean square on held-out answers.
        held_out_largest: the largest of them.
    """

    unit: float
    training: float
    training_largest: float
    held_out: float
    held_out_largest: float


@dataclass(frozen=True)
class Residuals:
    """The errors of all outputs, with the meaning of their units."""

    unit: str
    outputs: list[OutputErrors]


@dataclass(frozen=True)
class Columns:
    """The inputs and outputs of a network as the user knows them.

    Attributes:
        inputs: the names of the inputs; empty where they have none.
        outputs: the names of the outputs; likewise.
        open: the numbers of the inputs whose weights no query tells, or not in full.
    """

    inputs: list[str] = dataclasses.field(default_factory=list)
    outputs: list[str] = dataclasses.field(default_factory=list)
    open: list[int] = dataclasses.field(default_factory=list)


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
        queries: how many queries a black box was asked, by phase; of the network of a run folder, those beside the first.
        shortage: what the budget of queries has left out, as a sentence; empty if nothing.
        notes: what is to be said of rows and of the precision of the answers, a sentence each.
        left_out: the numbers of the rows of the user's file, counted from 0, that contradict all others and are left out.
        advice: where the network is not identified, what is wrong as far as numbers show it, and what to try next.
        command: what to run next; empty where there is nothing to try.
        residuals: the errors of each output; None in reports from before they were recorded.
        columns: the inputs and outputs as the user knows them.
        derivatives: None where they were not tried. If they found the network, there are no students.
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
    command: str = ""
    notes: list[str] = dataclasses.field(default_factory=list)
    left_out: list[int] = dataclasses.field(default_factory=list)
    residuals: Residuals | None = None
    columns: Columns = dataclasses.field(default_factory=Columns)
    derivatives: Derivatives | None = None

    @property
    def is_derived(self) -> bool:
        """Whether derivatives found the network."""
        return self.derivatives is not None and not self.derivatives.lacks

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
        lacks_losses = report.students.count != len(report.students.losses) or not (report.students.losses or report.is_derived)
        if len(report.layers) < 2 or lacks_losses:
            raise ValueError("it has too few layers or losses")
        return report


def summary(content: Mapping[str, typing.Any]) -> dict[str, Value]:
    """The figures of a report that are listed with its run, from its parsed JSON; nothing else of it is looked at.

    A network of an older report is accepted to the precision of its answers if it is accepted as exact.

    Raises:
        KeyError, TypeError, AttributeError, OverflowError: a figure is missing, or is not of its type.
    """
    certificate = content["certificate"]
    to_precision = certificate.get("accepted_to_precision", certificate["accepted"])
    checks = certificate.get("checks", []) if to_precision else []  # the errors of a wrong network mean nothing
    figures = {
        "identified": content["identified"],
        "accepted": certificate["accepted"],
        "accepted_to_precision": to_precision,
        "max_relative_error": content["max_relative_error"],
        "weight_error_95": next((check["value"] for check in checks if check["name"] == "error_95"), None),
        "max_abs_error": json_text.number(content["function"]["max_abs_error"]),
        "seconds": float(sum(content["seconds"].values())),
    }
    if content.get("queries"):
        figures["queries"] = sum(content["queries"].values())
    for name, value in figures.items():
        kinds = (bool, types.NoneType) if name in TRUTHS else (int, float, types.NoneType)
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
    """Whether there is a report, and it was made from derivatives, or from the students as they are now."""
    if not get_platform().exists(paths.report(location)):
        return False
    content, latest = read(location), paths.latest_model(get_platform().listdir(students_location))
    return content.is_derived or (latest is not None and content.students.weights == latest)


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
