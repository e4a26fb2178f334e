"""What `extract` makes of answers as people have them: of any scale, rounded, noisy, wrong in places, as probabilities, or too few.

Command:  python -m testing.benchmarks.own_answers [CASE ...] [--seeds 1 2 3] [--number 0] [--seconds 60]
Hardware: two CPU cores.
Prints:   a line for each run: the case, the seed (`--global_seed`), the grade of the verdict, how many neurons of the first layer were
          recovered, the largest relative error of a weight, the seconds, and 'ok' or what falls short. The exit status is 1 if a run falls
          short, else 0. `--list` prints what the cases are.
Result:   seeds 1, 2 and 3 of the first fifteen cases of `--list`, while one to two other jobs ran: 45 of 45 ok, in 17 to 34 s (n=1).

    case                                                verdict                          neurons   error           seconds
    single_precision                                    to the precision of the answers  7 of 7    1e-07           28 to 33
    decimals                                            to the precision of the answers  6 of 6    8e-06 to 1e-05  24 to 29
    noise                                               to the precision of the answers  6 of 6    3e-04           32 to 33
    far_columns, far_outputs                            exactly                          7 of 7    <= 2e-13        18 to 30
    column_scales, output_scales, correlated            exactly                          7 of 7    <= 1e-14        17 to 29
    weak_output, seldom_column, missing_values, dates   exactly                          6 of 6    <= 1e-14        17 to 32
    dependent_outputs                                   exactly                          6 of 6    <= 6e-15        28 to 34
    flat_directions, categories                         but for                          all       <= 1e-15        19 to 29

          Of the others with seed 1: never_switches 'but for' 6 of 7 (34 s), skip_connection 'exactly' 3e-14 (60 s), probabilities
          'exactly' 5e-16 (46 s), predict_proba 'exactly' 3e-16 (19 s), outliers 'exactly' 4e-16 (18 s), all ok.
          Seeds 1, 2 and 3: images 'but for' 8 of 8, 2e-15 (alone, 26 to 29 s); beside CI: one_probability 'exactly' 6 of 6,
          2e-15 (33 to 38 s), sklearn_regressor 'but for' 5 of 7 (10 to 17 s), few_queries 'not' (15 s), ok. With seed 1, beside others:
          wide_then_narrow 'exactly' 16 of 16, 4e-14 (57 s of CPU time), one_short 'exactly' 6e-16 (56 s), too_narrow 'not' (31 s of CPU
          time), wrong_activation 'not', ok.

Each run is the command that a user would type, in a folder of its own. It falls short if its verdict has another grade than the case
must have, if neurons are missing, if a weight is off by more than the case allows or by more than 5 of its standard errors, if a line of
advice is missing, or if it takes longer than `--seconds`. `testing/cases.py` makes the files; `--number 1` makes others of the same kinds.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from foundations import tables
from testing import cases, planted
from testing.cases import BUT_FOR, EXACT, NOT, PRECISE, Case
from testing.planted import Recovered

REPOSITORY = Path(__file__).resolve().parents[2]
GRADES = {
    "IDENTIFIED exactly": EXACT,
    "IDENTIFIED to the precision": PRECISE,
    "IDENTIFIED but for": BUT_FOR,
    "NOT IDENTIFIED": NOT,
}
SURPRISE = 5.0  # standard errors by which no weight is off where error bars hold
NOISE_FOUND = 0.1  # the largest relative error of the standard deviation of the answers' errors
PATIENCE = 900.0  # seconds after which a run is ended
COLUMNS = ("case", "seed", "verdict", "neurons", "error", "seconds", "remark")
WIDTHS = (18, 4, 31, 8, 8, 7, 2)


def run(case: Case, seed: int, root: str) -> tuple[str, float]:
    """Runs the command of a case in a folder; what it printed, and its seconds."""
    arguments = [f"--default_hparams={case.students_name}", f"--act_fun={case.layers.act_fun}", f"--global_seed={seed}"]
    command = [sys.executable, "EC.py", "extract", *arguments, *case.write(root)]
    begun = time.perf_counter()
    try:
        process = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=os.environ | {"EC_ROOT": root},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return "", time.perf_counter() - begun
    return process.stdout, time.perf_counter() - begun


def grade_of(printed: str) -> str:
    """The grade of the verdict that a run printed; its last line where there is none."""
    found = re.search(r"^Verdict: (.*)", printed, re.MULTILINE)
    if not found:
        return (printed.strip().splitlines() or ["nothing was printed"])[-1]
    return next((grade for begin, grade in GRADES.items() if found[1].startswith(begin)), found[1])


def said(printed: str) -> str:
    """What a run printed but for its progress bars, in one line."""
    return " ".join(printed.replace("\r", "\n").split())


def judged(case: Case, printed: str, recovered: Recovered | None) -> tuple[list[str], list[str]]:
    """The cells of a run for grade, neurons and error, and what falls short."""
    grade, short = grade_of(printed), []
    if grade not in case.grades:
        short.append(f"the verdict should be: {' or '.join(case.grades)}")
    if not (case.unless_exact and grade == EXACT):
        short += [f"it does not say /{line}/" for line in case.lines if not re.search(line, said(printed))]
    if recovered is None:
        return [grade[: WIDTHS[2]], "-", "-"], short
    queries = planted.told(case.queries.double(), recovered.report.columns.open if grade == BUT_FOR else [])
    true, found = planted.visible(case.layers, queries), planted.visible(recovered.layers, queries)
    of, count = true.sizes[1], 0
    if true.sizes[0] == found.sizes[0]:
        count = planted.shared_neurons(true, found, queries, up_to_sign=grade == BUT_FOR)
    if count < of - case.missing:
        short.append("neurons are missing")
    error, shown = None, "-"
    if true.sizes == found.sizes:
        true = planted.aligned(true, found, queries)
        error = planted.worst_error(true, found, queries)
        shown = f"{error:.0e}"
    short += list(_inexact(case, grade, error, recovered, true))
    return [grade[: WIDTHS[2]], f"{count} of {of}", shown], short


def _inexact(case: Case, grade: str, error: float | None, recovered: Recovered, true: planted.Layers) -> Iterator[str]:
    """What is less exact than it must be, or than it is said to be."""
    if grade == NOT:
        return
    if error is None and grade in (EXACT, PRECISE) and case.error is not None:
        yield f"the network has the sizes {recovered.layers.sizes}"
    if case.error is not None and error is not None and not error <= case.error:
        yield f"a weight is off by more than {case.error:.0e}"
    if grade == EXACT and error is not None and not error <= 1e-6:
        yield "a network was accepted as exact that is not"
    if grade == PRECISE and error is not None:
        if recovered.errors is None:
            yield "there are no error bars"
        else:
            worst = float(planted.in_standard_errors(true, recovered.layers, recovered.errors).abs().max())
            if not worst <= SURPRISE:
                yield f"a weight is off by {worst:.1f} standard errors"
    if case.noise is not None:
        found = recovered.report.certificate["noise"]
        wanted = case.noise / float(case.answers.double().std(0).min())
        if not (isinstance(found, float) and abs(found / wanted - 1) <= NOISE_FOUND):
            yield f"errors of the answers are said to be {found}, and are {wanted:.2e}"


def row(name: str, case: Case, seed: int, seconds: float) -> tuple[list[str], bool]:
    """Runs a case; its row of the table, and whether it falls short. `seconds` is the longest time."""
    with tempfile.TemporaryDirectory() as root:
        printed, taken = run(case, seed, root)
        with torch.no_grad():
            cells, short = judged(case, printed, planted.recovered_in(root))
    if taken > seconds:
        short.append(f"it took more than {seconds:g} s")
    return [name, str(seed), *cells, f"{taken:.0f}", "; ".join(short) or "ok"], bool(short)


def main() -> int:
    """Runs the cases; returns the exit status."""
    parser = argparse.ArgumentParser("python -m testing.benchmarks.own_answers", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="CASE", help=f"of {', '.join(cases.CASES)} (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="the seeds of the runs (default: 1 2 3)")
    parser.add_argument("--number", type=int, default=0, help="which network and queries of each kind (default: 0)")
    parser.add_argument("--seconds", type=float, default=60.0, help="the longest time of a run (default: 60)")
    parser.add_argument("--list", action="store_true", help="print what the cases are, and run nothing")
    args = parser.parse_args()
    for name in args.names:
        if name not in cases.CASES:
            parser.error(f"no case {name!r}; valid: {', '.join(cases.CASES)}")
    if args.list:
        print("\n".join(f"{name:18} {make.__doc__}" for name, make in cases.CASES.items()))
        return 0
    print(*tables.aligned([COLUMNS], "<", WIDTHS), flush=True)
    total = failed = 0
    for name in args.names or cases.CASES:
        case = cases.make(name, args.number)
        for seed in args.seeds:
            cells, is_short = row(name, case, seed, args.seconds)
            print(*tables.aligned([cells], "<", WIDTHS), flush=True)
            total, failed = total + 1, failed + is_short
    print(f"{failed} of {total} runs fall short")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
