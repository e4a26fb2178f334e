"""Rows of runs as text: a table that fits the terminal, CSV, or JSON."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence

from cli.runs.index import Run
from cli.runs.names import Names
from cli.runs.query import METRICS, Row, differing, value
from foundations import ranges, tables

FORMATS = ("table", "csv", "json")
HEAD, FOOT = ["kind", "hash", "seeds", "state"], ["date", "size"]
MOST_SIZES = 1000  # rows; to add up the files of more takes longer than all the rest
WIDEST_TEXTS = (44, 28, 16)  # characters of a cell where room is scarce, and where it is scarcer
# What goes first where there is no room, after the other hyperparameters.
SPARE = (
    "training_steps",
    "batch_size",
    "optimizer_name",
    "dataset_name",
    "size",
    "accepted",
    "level",
    "date",
    "act_fun",
    "lr",
    "model_name",
)
SHARES = ("accuracy", "weights_left")  # what the names of metrics end in that are shown in per cent


def columns(rows: Sequence[Row]) -> list[str]:
    """What is shown of rows unless columns are named: what tells them apart, and what came of them."""
    runs = [run for row in rows for run in row.runs]
    known = {name for run in runs for name in run.metrics}
    told = [name for name in METRICS if name in known and name in ("test_accuracy", "identified", "accepted", "max_relative_error")]
    if any("test_loss" in run.metrics and "test_accuracy" not in run.metrics for run in runs):
        told.append("test_loss")
    told += [name for name in ("level", "weights_left", "barrier") if name in known]
    own = ["branch"] if any(run.kind == "branch" for run in runs) else []
    return list(dict.fromkeys([*HEAD, *own, *differing(runs), *told, *(FOOT if len(rows) <= MOST_SIZES else FOOT[:1])]))


def render(rows: Sequence[Row], shown: Sequence[str], form: str, names: Names) -> str:
    """Rows in one of FORMATS."""
    if form == "table":
        return aligned(rows, shown, names, terminal_width())
    records = [_record(row, shown, names) for row in rows]
    if form == "json":
        return "[\n{}\n]".format(",\n".join(map(json.dumps, records))) if records else "[]"
    keys = list(dict.fromkeys(key for name in shown for key in (name, f"{name}_spread") if any(key in record for record in records)))
    text = io.StringIO()
    writer = csv.DictWriter(text, keys or list(shown), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: " ".join(map(str, have)) if isinstance(have, list) else have for key, have in each.items()} for each in records)
    return text.getvalue().rstrip("\n")


def terminal_width() -> int | None:
    """The width that a table may have; None where it goes to a file, which has all the room there is."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return shutil.get_terminal_size().columns
    return None


def _record(row: Row, shown: Sequence[str], names: Names) -> dict[str, object]:
    """A row as data: values as they are, numbers over seeds as mean and spread."""
    found: dict[str, object] = {}
    for name in shown:
        if name == "hash":
            found[name] = names.full(row.runs[0])
        elif name == "seeds":
            found[name] = [run.seed for run in row.runs if run.seed is not None]
        else:
            found[name] = row.value(name)
            spread = row.spread(name)
            if spread is not None:
                found[f"{name}_spread"] = spread
    return found


def aligned(rows: Sequence[Row], shown: Sequence[str], names: Names, width: int | None = None) -> str:
    """A table with a line for each row. Where it is too wide, headings are broken, then long texts cut, then columns left out."""
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
        texts.append(f"No room for: {', '.join(left_out)}. --columns says what to show, and a file has room for all.")
    return "\n".join(texts)


def _fitted(cells: Mapping[str, Sequence[str]], width: int) -> tuple[dict[str, int], dict[str, list[str]], list[str]]:
    """The widths of the columns that fit, the lines of their headings, and the names of the others."""
    content = {name: max(map(len, column), default=0) for name, column in cells.items()}
    headings = {name: _broken(name, content[name]) for name in cells}
    for most in WIDEST_TEXTS:
        widths = {name: max(min(content[name], most), *map(len, headings[name])) for name in cells}
        if _total(widths) <= width:
            break
    order = [*SPARE, *METRICS]
    left_out = []
    for name in sorted((name for name in reversed(cells) if name not in HEAD), key=lambda name: order.index(name) if name in order else -1):
        if _total(widths) > width:
            left_out.append(name)
            del widths[name]
    return widths, headings, left_out


def _broken(name: str, room: int) -> list[str]:
    """A heading in lines of as many words as there is room for."""
    lines = [""]
    for word in name.replace("_", "_ ").split():
        if lines[-1] and len(lines[-1] + word) > room:
            lines.append("")
        lines[-1] += word
    return lines


def _total(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + len(tables.GAP) * (len(widths) - 1)


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"


def cell(row: Row, name: str, names: Names) -> str:
    """What a row has in a column, as it is shown."""
    if name == "hash":
        return names.short(row.runs[0])
    if name == "seeds":
        return seeds([run.seed for run in row.runs if run.seed is not None])
    if name == "state":
        return state(row.runs)
    have = row.value(name)
    if have is None:
        return "-" if name in row.runs[0].hparams else ""
    if name == "size":
        return size(have)
    if name == "date":
        return have[:16]
    if isinstance(have, bool) or not isinstance(have, (int, float)):
        return plain(have, names)
    found = row.values(name) if len(row.runs) > 1 else []
    if any(isinstance(each, bool) for each in found):
        return f"{found.count(True)} of {len(found)}"
    return str(have) if name in row.runs[0].hparams else number(name, have, row.spread(name))


def state(runs: Sequence[Run]) -> str:
    """The state of runs: of one with what there is to say of it, of several how many are in which."""
    states = [run.state for run in runs]
    if len(runs) > 1:
        found = dict.fromkeys(states)
        return states[0] if len(found) == 1 else ", ".join(f"{states.count(each)} {each}" for each in found)
    note = runs[0].note
    if not note:
        return states[0]
    return f"{states[0]} at {note}" if note.startswith(("step", "level")) else f"{states[0]} ({note})"


def plain(have: object, names: Names) -> str:
    """A value as it is shown: as a flag takes it, long hashes shortened."""
    if isinstance(have, bool):
        return "yes" if have else "no"
    if have is None:
        return "-"
    return names.shorten(have) if isinstance(have, str) else str(have)


def number(name: str, mean: float, spread: float | None = None) -> str:
    """A number, with its spread over seeds where there is one."""
    if name.endswith(SHARES):
        return f"{mean:.2%}" if not spread else f"{100 * mean:.2f} ± {100 * spread:.2f}%"
    if isinstance(mean, int):
        return str(mean)
    return f"{mean:.4g}" if not spread else f"{mean:.3g} ± {spread:.1g}"


def size(count: float) -> str:
    """Bytes in three digits or so."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            break
        count, unit = count / 1000, "TB"
    return f"{count:.0f} {unit}" if unit == "B" or count >= 99.5 else f"{count:.1f} {unit}"


def seeds(numbers: Sequence[int]) -> str:
    """Seeds as numbers and ranges, such as `0-4,7`; `-` where there are none."""
    return str(numbers[0]) if len(numbers) == 1 else ranges.to_text(numbers) or "-"
