"""The command to try next: the command of a run, with other flags."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence, Set

from extraction.report import Report
from extraction.reporting import verdict
from extraction.reporting.diagnosis import Advice

SWEPT = "extract"  # the command that `sweep` can run with several values of a flag
REPLACED = {"datagen": "samples", "default_hparams": "model_name"}  # flags that would contradict a new value of another one


def added(report: Report, advice: Sequence[Advice], recorded: str | None) -> Report:
    """A report with what to try next; unchanged where the network is identified.

    Args:
        report: without it.
        advice: the likeliest cause first.
        recorded: the command line of the run; None where it is unknown.
    """
    if report.identified or report.certificate.accepted_to_precision:
        return report
    is_negative = verdict.of(report).is_negative
    flags = advice[0].flags if advice else verdict.fallback(report).flags if is_negative else {}
    following = command(recorded, flags) if flags or is_negative else ""
    return dataclasses.replace(report, advice=[each.text for each in advice], command=following)


def command(recorded: str | None, flags: Mapping[str, str]) -> str:
    """A command line with other values of some flags; empty where the command is unknown.

    A flag with an empty value is left out. A flag with several values, joined by commas, makes it a sweep, unless another flag has a comma:
    there only the first value is tried.

    Args:
        recorded: the command line of the run.
        flags: the values by the names of the flags, without dashes.
    """
    if not recorded:
        return ""
    try:
        arguments = shlex.split(recorded)
    except ValueError:  # a damaged record
        return ""
    kept = _without(arguments, {*flags, *(REPLACED[name] for name in flags if name in REPLACED)})
    is_sweep = any("," in value for value in flags.values()) and SWEPT in kept and not any("," in argument for argument in kept)
    if is_sweep:
        kept.insert(kept.index(SWEPT), "sweep")
    values = {name: value if is_sweep else value.partition(",")[0] for name, value in flags.items()}
    return shlex.join([*kept, *(part for name, value in values.items() if value for part in (f"--{name}", value))])


def _without(arguments: Sequence[str], names: Set[str]) -> list[str]:
    """Arguments of a command line without some flags and their values."""
    kept, skips = [], False
    for argument in arguments:
        name = argument.removeprefix("--").partition("=")[0]
        if argument.startswith("--"):
            skips = name in names
            if skips and "=" in argument:
                skips = False
                continue
        elif skips:
            skips = False
            continue
        if not skips:
            kept.append(argument)
    return kept
