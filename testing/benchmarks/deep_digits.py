"""Networks with three hidden layers of ten neurons from passive answers: a whole `python EC.py extract` for each.

Command:   python -m testing.benchmarks.deep_digits [--act_fun gelu,relu] [--seed 0,1] [--root FOLDER] [--progress]
Hardware:  one thread of two cores with a load of 2 to 6; seconds are those of CPU.
Prints:    a line for each activation function and seed: the verdict, the neurons of each hidden layer that match (and those in excess), the
           largest weight error, the queries, the seconds of the whole command (of CPU in brackets) and of its phases. The last line has the
           number of networks that were identified, and the median of the seconds of CPU without the teacher's training. The exit status
           is 0 if seven of eight were identified.
Result:    (seed 0, n=1 each; six students of 30-30-30 took 147 s of CPU for tanh before)

| activation function | found | largest weight error | seconds of CPU |
|---|---|---|---|
| tanh | identified | 5e-16 | 31 |
| gelu | identified | 2e-15 | 35 |
| sigmoid | identified | 1e-14 | 30, and some 14 for its students, which were there |
| silu | identified | 2e-15 | 34 |
| softplus | the students stall at 2e-8; the training in full was cut after 150 s | | |
| g | the students stall at 3e-5; cut likewise | | |
| leaky_relu | one student stalls at 3e-6; the rest was not run | | |
| relu | the students stall at 5e-4; the rest was not run | | |

tanh and gelu were run before students were also trimmed where a fit of them stalls.
Since these runs, students of relu and leaky_relu are trained in full at once.

Teachers: digits_lenet_10_10_10 by its default training, whose seed follows from `--global_seed`. Students are STUDENTS, with the defaults.
'but for' says that the answers are given to rounding, and that the certificate names what they do not tell.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from unittest import mock

import EC
from extraction import report
from extraction.report import Report
from extraction.reporting import verdict
from foundations.errors import ConfigError
from models.activation_functions import activation_functions

TEACHER, STUDENTS = "digits_lenet_10_10_10", "students_digits_lenet(4)_16_16_16"
SEEDS, SHARE = "0,1,2,3,4", 7 / 8
VERDICTS = ("identified", "but for", "not identified", "no network")


@dataclass(frozen=True)
class Outcome:
    """What an extraction found, and took.

    Attributes:
        found: its report; None where it ended with an error.
        error: that error.
        seconds: of the whole command, but for the training of the teacher.
        cpu: the same on the processor.
    """

    found: Report | None
    error: str
    seconds: float
    cpu: float

    @property
    def verdict(self) -> str:
        """The comparison with the teacher; where it is not the same network, what the answers alone prove."""
        if self.found is None:
            return "no network"
        if self.found.identified:
            return "identified"
        by_answers = verdict.of(dataclasses.replace(self.found, identified=None)).found
        return "but for" if by_answers.startswith("IDENTIFIED") else "not identified"

    @property
    def line(self) -> str:
        """The outcome as text."""
        times = f"{self.seconds:5.0f} s ({self.cpu:4.0f} of CPU)"
        if self.found is None:
            return f"{self.verdict:14} {times}  {self.error}"
        widths = " ".join(f"{layer.matched}" + (f"+{layer.excess}" if layer.excess else "") for layer in self.found.hidden)
        phases = ", ".join(f"{phase} {seconds:.0f}" for phase, seconds in self.found.seconds.items() if seconds >= 1)
        open_ones = f"  open: {', '.join(self.found.certificate.open)}" if self.found.certificate.open else ""
        error = f"{self.found.max_relative_error:.0e}" if self.found.max_relative_error is not None else "-"
        return f"{self.verdict:14} {widths:14} {error:6} {times}  {phases}{open_ones}"


def measure(act_fun: str, seed: int, progress: bool) -> Outcome:
    """Trains one teacher, and then extracts its network."""
    flags = [f"--default_hparams={STUDENTS}", f"--teacher_name={TEACHER}", f"--act_fun={act_fun}", f"--global_seed={seed}"]
    _, job = EC.COMMANDS.parse("extract", flags if progress else [*flags, "--quiet"])
    runner = job.create()
    runner.prepare()
    started, cpu, found, error = time.monotonic(), time.process_time(), None, ""
    try:
        runner.run()
        found = report.read(runner.output_location)
    except ConfigError as failure:
        error = str(failure)
    return Outcome(found, error, time.monotonic() - started, time.process_time() - cpu)


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser("python -m testing.benchmarks.deep_digits", description=__doc__.splitlines()[0])
    names = ",".join(name for name in activation_functions if name != "identity")
    parser.add_argument("--act_fun", default=names, help=f"activation functions, joined by commas (default: {names})")
    parser.add_argument("--seed", default=SEEDS, help=f"global seeds, joined by commas (default: {SEEDS})")
    parser.add_argument("--root", help="where run folders stay; a temporary folder when left out")
    parser.add_argument("--progress", action="store_true", help="print the progress of each extraction")
    args = parser.parse_args(given)
    args.act_fun, args.seed = args.act_fun.split(","), [int(seed) for seed in args.seed.split(",")]
    for name in args.act_fun:
        if name not in activation_functions:
            parser.error(f"--act_fun: no {name!r}; valid: {names}")
    return args


def main(given: Sequence[str] | None = None) -> int:
    """Measures the networks that are named; returns the exit status."""
    args, outcomes = arguments(given), []
    with contextlib.ExitStack() as stack:
        root = args.root or stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(mock.patch.dict(os.environ, EC_ROOT=root))
        for seed in args.seed:
            for act_fun in args.act_fun:
                outcomes.append(measure(act_fun, seed, args.progress))
                print(f"{act_fun:10} {seed}  {outcomes[-1].line}", flush=True)
    counts = {name: sum(outcome.verdict == name for outcome in outcomes) for name in VERDICTS}
    median = statistics.median(outcome.cpu for outcome in outcomes)
    print(f"{', '.join(f'{count} {name}' for name, count in counts.items())}; median {median:.0f} s of CPU")
    return 0 if counts["identified"] >= SHARE * len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
