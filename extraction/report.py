"""The report of an extraction: kept as JSON, printed as a short table with a verdict."""

from __future__ import annotations

import json

from foundations import paths
from foundations.errors import reason
from platforms.platform import get_platform
from platforms.system import files

_COLUMNS = {
    "recovered_width": "recovered",
    "teacher_width": "teacher",
    "matched": "matched",
    "missing": "missing",
    "excess": "excess",
    "max_cosine_distance": "cosine distance",
    "max_weight_error": "weight error",
}


def write(location: str, content: dict) -> None:
    """Writes the report of a clustering folder."""
    get_platform().write(paths.report(location), json.dumps(content, indent=2) + "\n")


def read(location: str) -> dict:
    """The report of a clustering folder.

    Raises:
        ConfigError: it is damaged: what is in it cannot be shown.
    """
    path, remedy = paths.report(location), "delete it and run the same command again"
    content = files.read_json(path, remedy)
    try:
        table(content), content["students"]["weights"]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise files.damaged(path, f"not a whole report: {reason(error)}", remedy) from None
    return content


def is_current(location: str, students_location: str) -> bool:
    """Whether there is a report, and it was made from the students as they are now."""
    if not get_platform().exists(paths.report(location)):
        return False
    latest = paths.latest_model(get_platform().listdir(students_location))
    return latest is not None and read(location)["students"]["weights"] == latest


def rows(report: dict) -> list[list[str]]:
    """The table of the layers, its titles first; without a teacher's weights there is nothing but widths."""
    layers = report["layers"]
    columns = {name: title for name, title in _COLUMNS.items() if name == "recovered_width" or report["identified"] is not None}
    names = [f"hidden {depth} ({report['act_fun']})" for depth in range(1, len(layers))] + ["output"]
    body = [[name, *(_cell(layer[column]) for column in columns)] for name, layer in zip(names, layers, strict=True)]
    return [["layer", *columns.values()], *body]


def table(report: dict) -> str:
    """The report as text, ending in a verdict."""
    cells = rows(report)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    form = "  ".join([f"{{:<{widths[0]}}}", *(f"{{:>{width}}}" for width in widths[1:])])
    lines = [form.format(*row) for row in cells]
    rule = "-" * max(map(len, lines))
    losses, seconds = report["students"]["losses"], report["seconds"]
    notes = [
        f"students   {report['students']['count']}, losses {min(losses):.1e} to {max(losses):.1e}",
        f"clustered  {_errors(report['before_finetuning'])}",
        f"fine-tuned {_errors(report)}",
        f"certified  {_certificate(report['certificate'])}",
        f"time       {sum(seconds.values()):.1f} s: " + ", ".join(f"{phase} {value:.1f}" for phase, value in seconds.items()),
    ]
    return "\n".join([rule, *lines, rule, *notes, rule, f"Verdict: {verdict(report)}"])


def verdict(report: dict) -> str:
    """What was found, in a sentence."""
    hidden, name = report["layers"][:-1], report["model_name"]
    if report["identified"] is None:
        error = report["function"]["max_abs_error"]
        if report["certificate"]["accepted"]:
            return f"ACCEPTED. {name} gives every answer to rounding, and the answers leave no other choice of weights."
        return f"NOT ACCEPTED as exact. {name} misses the held-out answers by {error:.1e} at most; the teacher's weights are not known."
    if report["identified"]:
        neurons = ", ".join(f"{layer['matched']} of {layer['teacher_width']}" for layer in hidden)
        return f"IDENTIFIED. {neurons} neurons, none in excess; every weight within {report['max_relative_error']:.1e} of the teacher's."
    if report["max_relative_error"] is None:
        return f"NOT IDENTIFIED. {name} has not as many layers as the teacher."
    matched = ", ".join(f"{layer['matched']} of {layer['teacher_width']} neurons matched, {layer['excess']} in excess" for layer in hidden)
    return f"NOT IDENTIFIED. {matched}; largest weight error {report['max_relative_error']:.1e}."


def _certificate(figures: dict) -> str:
    """The certificate in a line."""
    rank = "-" if figures["rank"] is None else f"{figures['rank']}"
    rival = "" if figures["disagreement"] is None else f", a rival differs by {figures['disagreement']:.1e} at most"
    return (
        f"{'accepted' if figures['accepted'] else 'not accepted'}: answers missed by {figures['residual']:.1e}, those held out by "
        f"{figures['held_out_residual']:.1e} of their spread; {rank} of {figures['unknowns']} unknowns determined{rival}"
    )


def _errors(part: dict) -> str:
    """How far a network is from the teacher, in its function and, where they are known, its weights."""
    function, worst = part["function"], part["max_relative_error"]
    error = "" if worst is None else f"weight error {worst:.1e}, "
    return (
        f"{error}on {function['queries']} fresh queries mean squared error {function['mse']:.1e}, largest {function['max_abs_error']:.1e}"
    )


def _cell(value: float | int | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1e}" if isinstance(value, float) else str(value)
