"""Rows of runs as text: a table that fits the terminal, CSV, or JSON."""

from __future__ import annotations

import csv
import io
import os
import shutil
import sys
from collections.abc import Mapping, Sequence

from cli.runs.index import Run
from cli.runs.names import Names
from cli.runs.query import METRICS, Row, differing, value
from foundations import json_text, ranges, tables

FORMATS = ("table", "csv", "json")
HEAD, FOOT = ["kind", "hash", "seeds", "state"], ["date", "size"]
MOST_ROWS_WITH_SIZES = 1000  # the sizes of more rows would take longer than the rest of the listing
CELL_LIMITS = (44, 28, 16)  # the largest numbers of characters of a cell, tried in this order until a table fits
# The order in which columns are left out of a table that is too wide, after all other hyperparameters.
DROP_ORDER = (
    "training_steps",
    "batch_size",
    "optimizer_name",
    "dataset_name",
    "size",
    "accepted",
    "weight_error_95",
    "accepted_to_precision",
    "level",
    "date",
    "teacher",
    "act_fun",
    "lr",
    "model_name",
)
MAIN_METRICS = ("test_accuracy", "identified", "accepted", "accepted_to_precision", "max_relative_error", "weight_error_95")
SHARES = ("accuracy", "weights_left")  # the ends of the names of metrics that are shown in per cent


def columns(rows: Sequence[Row]) -> list[str]:
    """The default columns: the hyperparameters that differ among the rows, and the main metrics."""
    runs = [run for row in rows for run in row.runs]
    known = {name for run in runs for name in run.metrics}
    metrics = [name for name in METRICS if name in known and name in MAIN_METRICS]
    if all(run.metrics.get("accepted") == run.metrics.get("accepted_to_precision") for run in runs):
        metrics = [name for name in metrics if name != "accepted_to_precision"]
    if any("test_loss" in run.metrics and "test_accuracy" not in run.metrics for run in runs):
        metrics.append("test_loss")
    metrics += [name for name in ("level", "weights_left", "barrier") if name in known]
    branch = ["branch"] if any(run.kind == "branch" for run in runs) else []
    foot = FOOT if len(rows) <= MOST_ROWS_WITH_SIZES else FOOT[:1]
    trained = ["trained_steps"] if any(run.deviates for run in runs) else []
    return list(dict.fromkeys([*HEAD, *branch, *_named_teachers(runs), *trained, *metrics, *foot]))


def _named_teachers(runs: Sequence[Run]) -> list[str]:
    """The hyperparameters that differ among some runs, and their teachers if these are files of answers, which are shown by their names."""
    names = differing(runs)
    if not any(run.hparams.get("teacher_file") for run in runs):
        return names
    teachers = {(run.hparams.get("teacher_name"), value(run, "teacher")) for run in runs}
    is_enough = len({name for name, _ in teachers}) == len({shown for _, shown in teachers})
    shown = {"teacher_name": "teacher" if is_enough else "teacher_name", "teacher_file": "teacher"}
    return list(dict.fromkeys(["teacher", *(shown.get(name, name) for name in names)]))


def render(rows: Sequence[Row], shown: Sequence[str], output_format: str, names: Names) -> str:
    """Rows as text in one of FORMATS, with the columns `shown`."""
    if output_format == "table":
        return aligned(rows, shown, names, terminal_width())
    records = [_record(row, shown, names) for row in rows]
    if output_format == "json":
        return "[\n{}\n]".format(",\n".join(map(json_text.dumps, records))) if records else "[]"
    keys = list(dict.fromkeys(key for name in shown for key in (name, f"{name}_spread") if any(key in record for record in records)))
    text = io.StringIO()
    writer = csv.DictWriter(text, keys or list(shown), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: " ".join(map(str, have)) if isinstance(have, list) else have for key, have in each.items()} for each in records)
    return text.getvalue().rstrip("\n")


def terminal_width() -> int | None:
    """The largest width of a table; None if the output goes to a file, which has no limit."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return shutil.get_terminal_size().columns
    return None


def _record(row: Row, shown: Sequence[str], names: Names) -> dict[str, object]:
    """A row as data: the values of its columns, and for metrics of several seeds the standard deviation."""
    record: dict[str, object] = {}
    for name in shown:
        if name == "hash":
            record[name] = names.full(row.runs[0])
        elif name == "seeds":
            record[name] = [run.seed for run in row.runs if run.seed is not None]
        else:
            record[name] = row.value(name)
            deviation = row.deviation(name)
            if deviation is not None:
                record[f"{name}_spread"] = deviation
    return record


def aligned(rows: Sequence[Row], shown: Sequence[str], names: Names, width: int | None = None) -> str:
    """A table with one line for each row. If the table is too wide, headings are broken, long texts are cut, and columns are left out."""
    cells = {name: [cell(row, name, names) for row in rows] for name in shown}
    widths = {name: max(map(len, [name, *cells[name]])) for name in shown}
    headings, left_out = {name: [name] for name in shown}, []
    if width is not None and _total(widths) > width:
        widths, headings, left_out = _fitted(cells, width)
    numeric = {name for name in shown if any(type(value(row.runs[0], name)) in (int, float) for row in rows)}
    height = max(len(heading) for heading in headings.values())
    tops = [[""] * (height - len(headings[name])) + headings[name] for name in widths]
    columns = ([_cut(text, size) for text in cells[name]] for name, size in widths.items())
    sides = "".join(">" if name in numeric else "<" for name in widths)
    texts = tables.aligned([*zip(*tops, strict=True), *zip(*columns, strict=True)], sides)
    if left_out:
        texts.append(f"No room for: {', '.join(left_out)}. --columns selects columns, and a file shows all of them.")
    return "\n".join(texts)


def _fitted(cells: dict[str, list[str]], width: int) -> tuple[dict[str, int], dict[str, list[str]], list[str]]:
    """The widths of the columns that fit, the lines of their headings, and the names of the columns that do not fit."""
    content = {name: max(map(len, column), default=0) for name, column in cells.items()}
    headings = {name: _broken(name, content[name]) for name in cells}
    widths: dict[str, int] = {}
    for limit in CELL_LIMITS:
        widths = {name: max(min(content[name], limit), *map(len, headings[name])) for name in cells}
        if _total(widths) <= width:
            break
    order = [*DROP_ORDER, *METRICS]
    left_out = []
    for name in sorted((name for name in reversed(cells) if name not in HEAD), key=lambda name: order.index(name) if name in order else -1):
        if _total(widths) > width:
            left_out.append(name)
            del widths[name]
    return widths, headings, left_out


def _broken(name: str, room: int) -> list[str]:
    """A heading in several lines, each at most as wide as the column unless a single word is wider."""
    lines = [""]
    for word in name.replace("_", "_ ").split():
        if lines[-1] and len(lines[-1] + word) > room:
            lines.append("")
        lines[-1] += word
    return lines


def _total(widths: Mapping[str, int]) -> int:
    """The width of a table with these columns."""
    return sum(widths.values()) + len(tables.GAP) * (len(widths) - 1)


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"


def cell(row: Row, name: str, names: Names) -> str:
    """The text of a row in a column."""
    first = row.runs[0]
    if name == "hash":
        return names.short(first)
    if name == "seeds":
        return seeds([run.seed for run in row.runs if run.seed is not None])
    if name == "state":
        return state(row.runs)
    have = row.value(name)
    if have is None:
        return "-" if name in first.hparams else ""
    if name == "date":
        return str(have)[:16]
    if isinstance(have, bool) or not isinstance(have, (int, float)):
        return plain(have, names)
    if name == "size":
        return size(have)
    values = row.values(name) if len(row.runs) > 1 else []
    if any(isinstance(value, bool) for value in values):
        return f"{values.count(True)} of {len(values)}"
    return str(have) if name in first.hparams else number(name, have, row.deviation(name))


def state(runs: Sequence[Run]) -> str:
    """The state of some runs: the state and the note of a single run, or the number of runs in each state."""
    states = [run.state for run in runs]
    if len(runs) > 1:
        different = dict.fromkeys(states)
        return states[0] if len(different) == 1 else ", ".join(f"{states.count(state)} {state}" for state in different)
    note = runs[0].note
    if not note:
        return states[0]
    return f"{states[0]} at {note}" if note.startswith(("step", "level")) else f"{states[0]} ({note})"


def plain(have: object, names: Names) -> str:
    """The text of a value, with short hashes."""
    if isinstance(have, bool):
        return "yes" if have else "no"
    if have is None:
        return "-"
    return names.shorten(have) if isinstance(have, str) else str(have)


def number(name: str, mean: float, deviation: float | None = None) -> str:
    """The text of a metric, with its standard deviation over the seeds if that is known and not zero."""
    if name.endswith(SHARES):
        return f"{mean:.2%}" if not deviation else f"{100 * mean:.2f} ± {100 * deviation:.2f}%"
    if isinstance(mean, int):
        return str(mean)
    return f"{mean:.4g}" if not deviation else f"{mean:.3g} ± {deviation:.1g}"


def size(count: float) -> str:
    """A number of bytes as text, in about three digits."""
    unit = "B"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            break
        count, unit = count / 1000, "TB"
    return f"{count:.0f} {unit}" if unit == "B" or count >= 99.5 else f"{count:.1f} {unit}"


def seeds(numbers: Sequence[int]) -> str:
    """Seeds as numbers and ranges, such as `0-4,7`; `-` without seeds."""
    return str(numbers[0]) if len(numbers) == 1 else ranges.to_text(numbers) or "-"
