"""Whether the certificate ever accepts a wrong network: small, difficult trials in which the true network is known.

Command:  python -m testing.benchmarks.false_acceptance [--trials 500] [--first 0] [--jobs 2] [--kinds weak links]
Hardware: two CPU cores.
Result:   0 of 500 falsely accepted in either sense, 26 of 29 of the kind 'right' accepted, on one busy core in 54 minutes (n=1). These
          were without the kind 'seldom', of which 0 of 14 were falsely accepted and 8 accepted.
Prints:   a line for each finished trial, and a table by kind: trials, identified, accepted, falsely accepted. The number of a trial
          determines it: `--first 17 --trials 1` repeats trial 17. The exit status is 1 if any network was falsely accepted, else 0.

Each trial draws a teacher of 2 to 5 inputs, 2 to 6 neurons a layer and 1 to 3 outputs, writes its answers to a file, and extracts from
that file alone, so that the verdict is the certificate's. The network is then compared with the teacher. It is falsely accepted if it is
accepted but not identified: some weight differs by more than 1e-6, or the activation function differs. It is falsely accepted to the
precision of the answers if a width or the activation function differs, or if a weight is off by more than 5 of its standard errors. The
kinds take turns:

depth       the teacher has two hidden layers, the students have one
activation  the students have another activation function
kinks       relu students of a leaky_relu teacher, or the reverse, with three times the teacher's width. Each of the two functions is
            exactly a sum of two of the other, so a network that is not the teacher can give the teacher's answers to rounding
narrow      students as wide as the teacher, or narrower
few         up to three answers for each unknown
rounded     answers with 3, 6 or 9 decimals
float32     answers in single precision, of a network that computes in float64 or in float32
noise       answers with Gaussian noise of 1e-13 to 1e-4 of their spread
scales      two outputs or more, whose scales differ by up to 1e12 (every output is judged in its own scale)
weak        likewise, and one neuron feeds only an output that is 1e-12 to 1e-6 of the others
columns     inputs of means up to 1,000 standard deviations from zero, and of scales of 1e-6 to 1e6
correlated  inputs that are mixtures of as many others, or of fewer
constant    one or two constant inputs more
seldom      an input that is 0 but in 1 to 50 queries (a column that is said to be open need not be right)
links       softmax or sigmoid probabilities or logarithms, some of which are rounded or in float32
outliers    one to five rows that are off by 1e-6 to 10 standard deviations
mixed       two or three of the kinds from 'rounded' on at once
right       nothing is wrong: these trials show that the certificate accepts right networks

Two cases are excluded, because answers do not determine the network in them. The kink or centre of every neuron lies among the queries: a
neuron that no query activates affects no answer. The kind 'activation' never pairs tanh with sigmoid: they are the same function up to
weights, so either network is right.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from unittest import mock

import numpy as np
import torch

from extraction import plotting
from extraction.desc import ExtractionDesc
from extraction.evaluation import IDENTIFIED
from extraction.network import Layers
from extraction.reporting import page
from extraction.runner import ExtractionRunner, check
from extraction.symmetry import symmetries
from foundations import tables
from foundations.errors import ConfigError
from foundations.seeds import derive
from foundations.training_hparams import TrainingHparams
from testing import planted
from testing.planted import Recovered
from training import plotting as curves
from training.job import JobArgs

ACTIVATIONS = [name for name in symmetries if name != "identity"]
SAME_CLASS = {"tanh", "sigmoid"}
STUDENTS, QUERIES, SPREAD = 6, 1000, 2.0
SURPRISE = 5.0  # standard errors by which no weight is off where error bars hold
TRAINING = TrainingHparams("adam", 0.02, "1000it", lr_decay="cosine", polish_optimizer="levenberg_marquardt", polish_steps="60it")


@dataclasses.dataclass(frozen=True)
class Trial:
    """A teacher, the queries, the answers in the file, and the width and activation function of the students."""

    kind: str
    teacher: Layers
    queries: torch.Tensor
    answers: torch.Tensor
    width: int
    act_fun: str

    def of(self, teacher: Layers) -> Trial:
        """The trial with another teacher."""
        return dataclasses.replace(self, teacher=teacher, answers=teacher.pre_activations(self.queries))

    def with_outputs(self, factors: torch.Tensor) -> Trial:
        """The trial with outputs multiplied by factors `[O]`."""
        *hidden, last = self.teacher.vectors
        return self.of(self.teacher.replace(*hidden, last * factors[:, None]))

    def with_inputs(self, queries: torch.Tensor, first: torch.Tensor) -> Trial:
        """The trial with the same answers to other queries, for which the first layer has other vectors."""
        return dataclasses.replace(self, queries=queries, teacher=self.teacher.replace(first, *self.teacher.vectors[1:]))


@dataclasses.dataclass(frozen=True)
class Chance:
    """The random choices of a trial, and its random numbers."""

    choice: random.Random
    generator: torch.Generator

    def normal(self, *shape: int) -> torch.Tensor:
        """Gaussian numbers."""
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def power(self, low: float, high: float) -> float:
        """A power of ten with an exponent in a range."""
        return 10 ** self.choice.uniform(low, high)


def unchanged(trial: Trial, chance: Chance) -> Trial:
    """The trial as it is."""
    return trial


def other_activation(trial: Trial, chance: Chance) -> Trial:
    """Students with an activation function that is not the teacher's."""
    others = [other for other in ACTIVATIONS if other != trial.act_fun and {other, trial.act_fun} != SAME_CLASS]
    return dataclasses.replace(trial, act_fun=chance.choice.choice(others))


def other_kinks(trial: Trial, chance: Chance) -> Trial:
    """Students with the other function that is linear on either side of a kink, three times as wide."""
    other = "leaky_relu" if trial.act_fun == "relu" else "relu"
    return dataclasses.replace(trial, act_fun=other, width=3 * trial.teacher.sizes[1])


def narrow(trial: Trial, chance: Chance) -> Trial:
    """Students as wide as the teacher, or narrower."""
    return dataclasses.replace(trial, width=trial.teacher.sizes[1] - chance.choice.randint(0, 1))


def few(trial: Trial, chance: Chance) -> Trial:
    """Few queries, one in ten of which is held out."""
    unknowns = trial.teacher.unknowns
    count = round(chance.choice.uniform(1.2, 3.5) * unknowns / trial.teacher.sizes[-1])
    return dataclasses.replace(trial, queries=trial.queries[:count], answers=trial.answers[:count])


def rounded(trial: Trial, chance: Chance) -> Trial:
    """Answers with few decimals."""
    return dataclasses.replace(trial, answers=trial.answers.round(decimals=chance.choice.choice([3, 6, 9])))


def in_float32(trial: Trial, chance: Chance) -> Trial:
    """Answers in single precision; half of the teachers compute in it as well."""
    if chance.choice.random() < 0.5:
        return dataclasses.replace(trial, answers=trial.answers.float().double())
    low = trial.teacher.replace(*(vectors.float() for vectors in trial.teacher.vectors))
    queries = trial.queries.float()
    teacher = low.replace(*(vectors.double() for vectors in low.vectors))
    return dataclasses.replace(trial, teacher=teacher, queries=queries.double(), answers=low.pre_activations(queries).double())


def noisy(trial: Trial, chance: Chance) -> Trial:
    """Answers with Gaussian noise."""
    size = chance.power(-13, -4) * trial.answers.std(0)
    return dataclasses.replace(trial, answers=trial.answers + size * chance.normal(*trial.answers.shape))


def scaled_outputs(trial: Trial, chance: Chance) -> Trial:
    """Outputs of very different scales."""
    powers = [chance.power(-12, 0) for _ in range(trial.teacher.sizes[-1])]
    return trial.with_outputs(torch.tensor(powers, dtype=torch.float64))


def weak_output(trial: Trial, chance: Chance) -> Trial:
    """Outputs of which the first is far weaker than the others, and alone sees the first neuron."""
    *hidden, last = trial.teacher.vectors
    last = last.clone()
    last[1:, 0] = 0
    powers = [chance.power(-12, -6), *[1.0] * (len(last) - 1)]
    return trial.of(trial.teacher.replace(*hidden, last)).with_outputs(torch.tensor(powers, dtype=torch.float64))


def moved_columns(trial: Trial, chance: Chance) -> Trial:
    """Inputs far from zero, and of very different scales."""
    columns = trial.queries.shape[1]
    spread = torch.tensor([chance.power(-6, 6) for _ in range(columns)], dtype=torch.float64)
    mean = spread * torch.tensor([chance.choice.choice([0, 1, -30, 1000]) for _ in range(columns)], dtype=torch.float64)
    return trial.with_inputs(mean + spread * trial.queries, planted.over_inputs(trial.teacher, mean, spread).vectors[0])


def correlated(trial: Trial, chance: Chance) -> Trial:
    """Inputs that are mixtures: of as many others, with correlations of 0.9 to 0.99999, or of fewer."""
    columns, first = trial.queries.shape[1], trial.teacher.vectors[0]
    more = chance.choice.choice([0, 0, 1, 2])
    mixing = chance.normal(columns, columns + more)
    if not more:
        mixing = chance.power(-2.5, -0.5) * mixing + chance.normal(columns, 1)
    weights = first[:, :-1] @ torch.linalg.pinv(mixing).T
    return trial.with_inputs(trial.queries @ mixing, torch.cat([weights, first[:, -1:]], 1))


def constant_columns(trial: Trial, chance: Chance) -> Trial:
    """Constant inputs beside the others, whose weights no answer tells."""
    more, first = chance.choice.randint(1, 2), trial.teacher.vectors[0]
    values, weights = chance.power(-2, 2) * chance.normal(more), chance.normal(len(first), more)
    first = torch.cat([first[:, :-1], weights, (first[:, -1] - weights @ values)[:, None]], 1)
    return trial.with_inputs(torch.cat([trial.queries, values.expand(len(trial.queries), more)], 1), first)


def seldom_column(trial: Trial, chance: Chance) -> Trial:
    """A column that is 0 but in few queries, which alone tell its weights."""
    queries, (first, *rest) = trial.queries.clone(), trial.teacher.vectors
    column, count = chance.choice.randrange(queries.shape[1]), round(chance.power(0, 1.7))
    queries[count:, column] = 0
    queries = queries[torch.randperm(len(queries), generator=chance.generator)]
    first = first.clone()
    first[:, column] *= chance.power(-1, 1)
    return dataclasses.replace(trial, queries=queries).of(trial.teacher.replace(first, *rest))


def linked(trial: Trial, chance: Chance) -> Trial:
    """Probabilities, or their logarithms, some of which are not exact."""
    link = chance.choice.choice(["softmax", "log_softmax", "sigmoid"])
    logits = trial.answers
    if link == "sigmoid":
        answers, teacher = logits.sigmoid(), trial.teacher
    else:
        answers, teacher = (logits.softmax(1) if link == "softmax" else logits.log_softmax(1)), planted.centred(trial.teacher)
    changed = dataclasses.replace(trial, teacher=teacher, answers=answers)
    if chance.choice.random() < 0.5:
        return changed
    if chance.choice.random() < 0.5:
        return dataclasses.replace(changed, answers=answers.float().double())
    return dataclasses.replace(changed, answers=answers.round(decimals=chance.choice.choice([4, 6, 8])))


def with_outliers(trial: Trial, chance: Chance) -> Trial:
    """Some wrong rows."""
    rows = torch.randperm(len(trial.answers), generator=chance.generator)[: chance.choice.randint(1, 5)]
    answers = trial.answers.clone()
    answers[rows] += chance.power(-6, 1) * answers.std(0) * chance.normal(len(rows), answers.shape[1])
    return dataclasses.replace(trial, answers=answers)


def mixed(trial: Trial, chance: Chance) -> Trial:
    """Two or three changes at once: of the outputs, of the inputs, and of the answers."""
    outputs, inputs = [scaled_outputs, weak_output], [moved_columns, correlated, constant_columns]
    for changes in chance.choice.choice([(outputs, inputs), (outputs, PRECISIONS), (inputs, PRECISIONS), (outputs, inputs, PRECISIONS)]):
        trial = chance.choice.choice(changes)(trial, chance)
    return trial


Change = Callable[[Trial, Chance], Trial]
PRECISIONS: Sequence[Change] = (rounded, in_float32, noisy, with_outliers)
KINDS: Mapping[str, Change] = {
    "depth": unchanged,
    "activation": other_activation,
    "kinks": other_kinks,
    "narrow": narrow,
    "few": few,
    "rounded": rounded,
    "float32": in_float32,
    "noise": noisy,
    "scales": scaled_outputs,
    "weak": weak_output,
    "columns": moved_columns,
    "correlated": correlated,
    "constant": constant_columns,
    "seldom": seldom_column,
    "links": linked,
    "outliers": with_outliers,
    "mixed": mixed,
    "right": unchanged,
}
SEVERAL_OUTPUTS = ("scales", "weak", "links", "mixed")


def draw(number: int) -> Trial:
    """The trial of a number."""
    kind = [*KINDS][number % len(KINDS)]
    generator = torch.Generator().manual_seed(derive(number, "false acceptance", "values"))
    chance = Chance(random.Random(derive(number, "false acceptance")), generator)
    act_fun = chance.choice.choice(["relu", "leaky_relu"] if kind == "kinks" else ACTIVATIONS)
    hidden = [chance.choice.randint(2, 6) for _ in range(2 if kind == "depth" else 1)]
    sizes = [chance.choice.randint(2, 5), *hidden, chance.choice.randint(2 if kind in SEVERAL_OUTPUTS else 1, 3)]
    queries = SPREAD * chance.normal(QUERIES, sizes[0])
    teacher = planted.draw(sizes, act_fun, queries, generator)
    trial = Trial(kind, teacher, queries, teacher.pre_activations(queries), 2 * sum(hidden), act_fun)
    return KINDS[kind](trial, chance)


def run(number: int) -> dict[str, object]:
    """Runs a trial in one thread; returns its row."""
    torch.set_num_threads(1)
    trial = draw(number)
    teacher = f"{'_'.join(map(str, trial.teacher.sizes))} {trial.teacher.act_fun}"
    row = {"trial": number, "kind": trial.kind, "teacher": teacher, "students": f"{trial.width} {trial.act_fun}"}
    row |= {"identified": False, "accepted": False, "to precision": False, "within": False}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        try:
            extract(trial, number, root)
        except ConfigError as error:
            return row | {"seconds": round(time.monotonic() - started, 1), "remark": str(error).split(";")[0]}
        row["seconds"] = round(time.monotonic() - started, 1)
        found = planted.recovered_in(root)
    assert found is not None
    certificate, name = found.report.certificate, found.report.model_name
    error, deviation = compared(trial, found)
    same = error is not None and found.layers.act_fun == trial.teacher.act_fun
    misses = "-" if error is None else f"{error:.0e} ({deviation:.1f} standard errors)"
    remark = f"{name} misses answers by {certificate['residual']:.0e}, weights by {misses}"
    row |= {"identified": same and error <= IDENTIFIED, "within": same and deviation <= SURPRISE, "remark": remark}
    return row | {"accepted": certificate.accepted, "to precision": certificate.accepted_to_precision}


def extract(trial: Trial, number: int, root: str) -> None:
    """Extracts from the file of a trial, in a folder, without pictures.

    Raises:
        ConfigError: the file is refused, or the students share too little.
    """
    os.environ.update(EC_ROOT=root, EC_DATASET_ROOT=root)
    path = os.path.join(root, "pairs.npz")
    np.savez(path, X=trial.queries.numpy(), y=trial.answers.numpy())
    desc = ExtractionDesc.default_for(f"students_mlp({STUDENTS})_{trial.teacher.sizes[0]}_{trial.width}_{trial.teacher.sizes[-1]}")
    desc.model_hparams.act_fun = trial.act_fun
    desc.training_hparams = TRAINING
    desc.dataset_hparams.teacher_name, desc.dataset_hparams.datagen = path, None
    job = JobArgs(global_seed=number, quiet=True, evaluate_only_at_end=True)
    with mock.patch.object(plotting, "draw"), mock.patch.object(page, "write"), mock.patch.object(curves, "curves"):
        desc, answers, prepare = check(desc, job)
        ExtractionRunner(desc, job, answers, prepare).run()


def compared(trial: Trial, found: Recovered) -> tuple[float | None, float]:
    """The largest relative error of a weight, None where widths differ; and the largest deviation in standard errors, if there are any."""
    queries = planted.told(trial.queries, found.report.columns.open)
    layers = planted.visible(found.layers, queries)
    if layers.sizes != trial.teacher.sizes:
        return None, float("inf")
    true = planted.aligned(planted.visible(trial.teacher, queries), layers, queries)
    error = planted.worst_error(true, layers, queries)
    if found.errors is None:
        return error, float("nan")
    return error, float(planted.in_standard_errors(true, layers, found.errors).abs().max())


def is_false(row: dict[str, object]) -> bool:
    """Whether a network was accepted, exactly or to the precision of its answers, that is not the teacher's."""
    return bool(row["accepted"] and not row["identified"]) or bool(row["to precision"] and not row["accepted"] and not row["within"])


def table(rows: Sequence[dict[str, object]]) -> str:
    """The numbers of trials, and of identified, accepted (also to precision) and falsely accepted networks, by kind."""
    lines = [["kind", "trials", "identified", "accepted", "to precision", "falsely"]]
    for kind in [*KINDS, "all"]:
        cell = [row for row in rows if kind in (row["kind"], "all")]
        sums = [sum(row[name] for row in cell) for name in ("identified", "accepted", "to precision")]
        lines.append([kind, *map(str, (len(cell), *sums, sum(map(is_false, cell))))])
    return "\n".join(tables.aligned(lines, "<>", (12, 0)))


def main() -> int:
    """Runs the trials; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="the number of the first trial")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[*KINDS], metavar="KIND", help="only trials of these kinds")
    args = parser.parse_args()
    names = [*KINDS]
    numbers = (number for number in itertools.count(args.first) if names[number % len(names)] in args.kinds)
    started, rows = time.monotonic(), []
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        for row in pool.imap(run, itertools.islice(numbers, args.trials)):
            rows.append(row)
            mark = "FALSELY ACCEPTED  " if is_false(row) else ""
            print(mark + "  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    print(table(rows))
    wrong = sum(map(is_false, rows))
    accepted = sum(row["accepted"] for row in rows if row["kind"] == "right")
    of = sum(row["kind"] == "right" for row in rows)
    print(f"{wrong} of {len(rows)} falsely accepted; {accepted} of {of} right trials accepted; {(time.monotonic() - started) / 60:.1f} min")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
