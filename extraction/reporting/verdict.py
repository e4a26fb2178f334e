"""What a report says in words: the verdict with its reasons, what to try next, and the table that is printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from extraction.certification.checks import FLOOR, PRECISE, Certificate, Value
from extraction.report import Comparison, Report
from extraction.reporting import diagnosis
from extraction.reporting.diagnosis import Advice
from foundations import ranges
from foundations.extraction_hparams import EXACT_ANSWERS
from foundations.tables import aligned

NAMED = 5  # neurons, columns or outputs that a verdict names
COLUMNS = {
    "recovered_width": "recovered",
    "teacher_width": "teacher",
    "matched": "matched",
    "missing": "missing",
    "excess": "excess",
    "max_cosine_distance": "cosine distance",
    "max_weight_error": "weight error",
}
MORE = Advice("Use more queries: a longer file, then the same command; or a larger count in --datagen.")
LONGER = Advice(
    f"Train the students longer (--extra_training {diagnosis.LONGER}), or use wider students or another --act_fun.",
    {"extra_training": diagnosis.LONGER},
)


@dataclass(frozen=True)
class Verdict:
    """What was found, in a sentence without its full stop, and the reasons, a sentence each."""

    found: str
    reasons: Sequence[str]

    def __str__(self) -> str:
        return " ".join([f"{self.found}.", *self.reasons])

    @property
    def is_negative(self) -> bool:
        """Whether the network was not identified."""
        return self.found.startswith("NOT")


def of(report: Report) -> Verdict:
    """The verdict, with what a budget of queries has left out unless the network is exact."""
    verdict = _of(report)
    if not report.shortage or report.identified or report.certificate.accepted:
        return verdict
    return Verdict(verdict.found, [*verdict.reasons, f"{report.shortage}."])


def _of(report: Report) -> Verdict:
    """The comparison with the teacher where its weights are known, otherwise what the certificate proves."""
    if report.identified is None:
        return _of_answers(report)
    if report.identified:
        neurons = ", ".join(f"{layer.matched} of {layer.teacher_width}" for layer in report.hidden)
        within = f"every weight within {_cell(report.max_relative_error)} of the teacher's."
        return Verdict("IDENTIFIED", [f"{neurons} neurons, none in excess; {within}"])
    if report.layers[0].matched is None:
        return Verdict(f"NOT IDENTIFIED, because {report.model_name} and the teacher have different numbers of layers", [])
    matched = ", ".join(f"{layer.matched} of {layer.teacher_width} neurons matched, {layer.excess} in excess" for layer in report.hidden)
    reasons = [f"{matched}; largest weight error {_cell(report.max_relative_error)}."]
    if report.certificate.accepted:
        reasons.append(f"But {report.model_name} gives every answer to rounding, and the answers determine all its weights.")
    return Verdict("NOT IDENTIFIED", reasons)


def next_steps(report: Report) -> list[str]:
    """What to try next, a sentence each; empty where the network is identified."""
    verdict = of(report)
    if report.advice or report.identified is not None or not verdict.is_negative:
        return report.advice
    return [fallback(report).text]


def fallback(report: Report) -> Advice:
    """What to try next as far as the certificate alone tells, where the network is not identified."""
    return _reason(report.certificate)[1]


def _of_answers(report: Report) -> Verdict:
    """The verdict where the true weights are unknown, so that the certificate decides, and the rows that do not count."""
    verdict = _by_certificate(report)
    return Verdict(verdict.found, [*verdict.reasons, *map(_sentence, report.notes)])


def _by_certificate(report: Report) -> Verdict:
    """The verdict of a certificate."""
    name, certificate = report.model_name, report.certificate
    given = f"{name} gives every answer to rounding"
    errors = f"the answers have errors of {_cell(certificate['noise'])} of their standard deviation" if "noise" in certificate else ""
    errors += "" if certificate.precision in ("", EXACT_ANSWERS) else f" (precision: {certificate.precision})"
    if certificate.accepted:
        return Verdict("IDENTIFIED exactly", [f"{given}, and the answers determine all its weights."])
    if certificate.accepted_to_precision:
        found = f"IDENTIFIED to the precision of the answers (error of a weight at most {_cell(certificate['error_95'])}, 95%)"
        return Verdict(found, [f"Errors of the weights of {name} are shares of the largest weight in their layer; {errors}."])
    fits = f"{given}." if certificate.is_met_exactly else _sentence(errors)
    if report.remarks and certificate.lacks_only_rank:
        return Verdict(f"IDENTIFIED but for {_open_inputs(report)}", [fits, *map(_sentence, report.remarks)])
    if _leaves_some_open(certificate):
        found = f"IDENTIFIED but for {_listed(certificate.open)}, whose weights the answers leave open by more than {PRECISE:.0%}"
        return Verdict(found, [fits])
    return Verdict(f"NOT IDENTIFIED, because {_reason(certificate)[0]}", [])


def _open_inputs(report: Report) -> str:
    """The weights along inputs that no query varies."""
    columns = report.columns
    if not columns.open:
        return "weights that no query tells"
    named = _listed([columns.inputs[place] for place in columns.open]) if columns.inputs else ranges.to_text(columns.open)
    return f"the weights from column{'s' if len(columns.open) > 1 else ''} {named} of X, which no query tells in full"


def _leaves_some_open(certificate: Certificate) -> bool:
    """Whether a network that gives all answers has weights that they leave open, and most neurons have none."""
    met = {check.name: check.met for check in certificate.checks}
    neurons = [name for name in certificate.open if name.startswith("neuron")]
    resolved = certificate["separation"] is not None and met["separation"] and met["signs_settled"]
    return bool(certificate.fits and certificate.open and len(neurons) < certificate.neurons and resolved and met["equations"])


def _reason(certificate: Certificate) -> tuple[str, Advice]:
    """The first reason why a network is not identified, as a clause, and what to try next."""
    met: Mapping[str, bool | None] = {check.name: check.met for check in certificate.checks}
    error = f"the largest error is {_cell(certificate['residual'])} of the standard deviation of an output"
    if not met["equations"]:
        unknowns = next(check.limit for check in certificate.checks if check.name == "equations")
        return f"{certificate['equations']} numbers in the answers are too few for {unknowns} unknown weights and biases", MORE
    rank, wanted = next((check.value, check.limit) for check in certificate.checks if check.name == "rank")
    if certificate.is_met_exactly and rank is not None and met["rank"] is False:
        return f"the answers determine {rank} of {wanted} unknown weights and biases", MORE
    if met.get("held_out_excess") is False and certificate["held_out_excess"] is not None:
        held_out = _cell(certificate["held_out_residual"])
        return f"{error} on the answers for training, but {held_out} on held-out answers", MORE
    if met.get("error_ratio") is False:
        ratio = _cell(certificate["error_ratio"])
        remedy = Advice(f"{LONGER.text} Or give another --answers: the errors may be larger than stated.", LONGER.flags)
        return f"the errors are {ratio} times what the precision of the answers ({certificate.precision}) allows", remedy
    if met.get("structure") is False and certificate["structure"] is not None:
        return f"the network misses a part of the function: {error}, and the errors depend on the query, which noise does not", LONGER
    if "structure" in certificate and certificate["structure"] is None:
        return f"{error}, and the queries are too few to tell noise from a wrong network", MORE
    if certificate["rank"] is None:
        return f"{error}, and the network is too large to examine its weights", LONGER
    if not met["signs_settled"] or met.get("signs_resolved") is False and certificate["signs_resolved"] is not None:
        return "some neurons can change sign together without a change of the answers beyond their errors", MORE
    if not met["separation"] or met.get("resolution") is False and certificate["resolution"] is not None:
        return "two neurons have the same or opposite directions, within their errors", MORE
    if certificate.open:
        return "the answers leave the weights of most neurons open", MORE
    return f"{error}, where an exact network leaves {FLOOR:.0e}", LONGER


def rows(report: Report) -> list[list[str]]:
    """The table of the layers, its titles first; where the teacher's weights are unknown it shows widths only."""
    columns = {name: title for name, title in COLUMNS.items() if name == "recovered_width" or report.identified is not None}
    names = [f"hidden {depth} ({report.act_fun})" for depth in range(1, len(report.layers))] + ["output"]
    body = [[name, *(_cell(getattr(layer, column)) for column in columns)] for name, layer in zip(names, report.layers, strict=True)]
    return [["layer", *columns.values()], *body]


def table(report: Report) -> str:
    """The report as text, which ends in the verdict and what to try next; a command stands in a line of its own."""
    lines = aligned(rows(report), "<>")
    rule = "-" * max(map(len, lines))
    seconds = report.seconds
    notes = [
        *_origins(report),
        f"certificate {_certificate(report.certificate)}",
        *([f"queries     {report.queries_shown}"] if report.queries else []),
        *(f"note        {remark}" for remark in [*report.remarks, *report.notes]),
        f"time        {sum(seconds.values()):.1f} s: " + ", ".join(f"{phase} {value:.1f}" for phase, value in seconds.items()),
    ]
    following = [*next_steps(report), *(["Next:", f"    {report.command}"] if report.command else [])]
    return "\n".join([rule, *lines, rule, *notes, rule, f"Verdict: {of(report)}", *following])


def _origins(report: Report) -> list[str]:
    """Where the network comes from, a line each."""
    lines, final = [], _errors(Comparison(report.max_relative_error, report.layers, report.function))
    if report.derivatives is not None:
        stages = ", ".join(f"{stage} {count:,}" for stage, count in report.derivatives.stages.items())
        lines.append(f"derivatives {'; '.join(report.derivatives.lacks) or 'found the network'}{f' (queries: {stages})' if stages else ''}")
    if report.is_derived:
        return [*lines, f"network     {final}"]
    students = f"students    {report.students.count}, losses {report.losses_shown}"
    return [*lines, students, f"clustered   {_errors(report.before_finetuning)}", f"fine-tuned  {final}"]


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


def _listed(names: Sequence[str]) -> str:
    """Names as text, the first ones where there are many."""
    if len(names) > NAMED:
        return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _sentence(clause: str) -> str:
    return f"{clause[:1].upper()}{clause[1:]}."


def _cell(value: Value) -> str:
    if value is None:
        return "-"
    return f"{value:.1e}" if isinstance(value, float) else str(value)
