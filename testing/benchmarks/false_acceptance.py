"""Whether the certificate ever accepts a wrong network: small, difficult trials in which the true network is known.

Command:  python -m testing.benchmarks.false_acceptance [--trials 200] [--first 0] [--jobs 2]
Hardware: two CPU cores.
Result:   0 of 200 falsely accepted, 18 of 22 trials of the kind 'right' accepted, in 5 minutes (n=1), before the kinds 'scales' and
          'weak' and acceptance to precision were added; since then 0 of the first 22 trials falsely accepted in either sense (n=1).
Prints:   a line for each finished trial, and a table by kind: trials, identified, accepted, falsely accepted. The number of a trial
          determines it: `--first 17 --trials 1` repeats trial 17. The exit status is 1 if any network was falsely accepted, else 0.

Each trial draws a teacher of 2 to 5 inputs, 2 to 6 neurons a layer and 1 to 3 outputs, writes its answers to a file, and extracts from
that file alone, so that the verdict is the certificate's. The network is then compared with the teacher. It is falsely accepted if it is
accepted but not identified: some weight differs by more than 1e-6, or the activation function differs. It is falsely accepted to the
precision of the answers if a width or the activation function differs, or a weight is off by more than twice its error bar (95%). The
kinds take turns:

depth       the teacher has two hidden layers, the students have one
activation  the students have another activation function
kinks       relu students of a leaky_relu teacher, or the reverse, with three times the teacher's width. Each of the two functions is
            exactly a sum of two of the other, so a network that is not the teacher can give the teacher's answers to rounding
rounded     answers with 3, 6 or 9 decimals
float32     answers in single precision
narrow      students as wide as the teacher, or narrower
few         up to three answers for each unknown
noise       answers with Gaussian noise of 1e-13 to 1e-4 of their spread
scales      two outputs or more, whose scales differ by up to 1e12 (the error of a weight is judged output by output)
weak        likewise, and one neuron feeds only an output that is 1e-12 to 1e-6 of the others
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
from collections.abc import Sequence
from unittest import mock

import numpy as np
import torch

from extraction import plotting, report
from extraction.desc import ExtractionDesc
from extraction.evaluation import IDENTIFIED, score
from extraction.network import Layers
from extraction.runner import ExtractionRunner, check
from extraction.symmetry import symmetries
from foundations import tables
from foundations.errors import ConfigError
from foundations.model_hparams import ModelHparams
from foundations.seeds import derive
from foundations.training_hparams import TrainingHparams
from models import registry as models
from models.mlp import FullyConnected
from training.job import JobArgs

KINDS = ["depth", "activation", "kinks", "rounded", "float32", "narrow", "few", "noise", "scales", "weak", "right"]
ACTIVATIONS = [name for name in symmetries if name != "identity"]
SAME_CLASS = {"tanh", "sigmoid"}
STUDENTS, QUERIES, SPREAD = 6, 1200, 2.0
MARGIN = 2.0  # error bars of 95% by which a weight may be off: one in twenty is off by more than one of them
EITHER_SIDE = 0.1  # the least share of the queries on either side of a neuron's kink or centre
TRAINING = TrainingHparams("adam", 0.02, "1500it", lr_decay="cosine", polish_optimizer="levenberg_marquardt", polish_steps="60it")


@dataclasses.dataclass(frozen=True)
class Trial:
    """A teacher, the queries, the answers in the file, and the width and activation function of the students."""

    kind: str
    teacher: FullyConnected
    queries: torch.Tensor
    answers: torch.Tensor
    width: int
    act_fun: str


def draw(number: int) -> Trial:
    """The trial of a number."""
    kind = KINDS[number % len(KINDS)]
    choice = random.Random(derive(number, "false acceptance"))
    generator = torch.Generator().manual_seed(derive(number, "false acceptance", "values"))
    act_fun = choice.choice(["relu", "leaky_relu"] if kind == "kinks" else ACTIVATIONS)
    hidden = [choice.randint(2, 6) for _ in range(2 if kind == "depth" else 1)]
    sizes = [choice.randint(2, 5), *hidden, choice.randint(2 if kind in ("scales", "weak") else 1, 3)]
    queries = SPREAD * torch.randn(QUERIES, sizes[0], generator=generator, dtype=torch.float64)
    teacher = draw_teacher(sizes, act_fun, queries, generator)
    if kind == "few":
        unknowns = sum(parameter.numel() for parameter in teacher.parameters())
        queries = queries[: round(choice.uniform(1.2, 3.5) * unknowns / sizes[-1])]  # one in ten of them is held out
    if kind in ("scales", "weak"):
        powers = (
            [choice.uniform(-12, 0) for _ in range(sizes[-1])] if kind == "scales" else [choice.uniform(-12, -6), *[0.0] * (sizes[-1] - 1)]
        )
        scale_outputs(teacher, powers, alone=kind == "weak")
    with torch.no_grad():
        answers = teacher(queries)
    width = 2 * sum(hidden)
    if kind == "activation":
        act_fun = choice.choice([other for other in ACTIVATIONS if other != act_fun and {other, act_fun} != SAME_CLASS])
    elif kind == "kinks":
        act_fun, width = "leaky_relu" if act_fun == "relu" else "relu", 3 * hidden[0]
    elif kind == "rounded":
        answers = answers.round(decimals=choice.choice([3, 6, 9]))
    elif kind == "float32":
        answers = answers.float().double()
    elif kind == "narrow":
        width = hidden[0] - choice.randint(0, 1)
    elif kind == "noise":
        noise = torch.randn(answers.shape, generator=generator, dtype=torch.float64)
        answers = answers + 10 ** choice.uniform(-13, -4) * answers.std() * noise
    return Trial(kind, teacher, queries, answers, width, act_fun)


def draw_teacher(sizes: list[int], act_fun: str, queries: torch.Tensor, generator: torch.Generator) -> FullyConnected:
    """A random network whose neurons all have queries on either side of their kink or centre."""
    teacher = models.get(ModelHparams(f"mlp_{'_'.join(map(str, sizes))}", "kaiming_normal", "uniform", act_fun)).double()
    while True:
        for parameter in teacher.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            shares = [(layer(teacher.activations(queries, depth)) > 0).double().mean(0) for depth, layer in enumerate(teacher.fc_layers)]
        if all(bool((torch.minimum(share, 1 - share) >= EITHER_SIDE).all()) for share in shares):
            return teacher


def scale_outputs(teacher: FullyConnected, powers: Sequence[float], alone: bool) -> None:
    """Multiplies each output by a power of ten; with `alone`, the first neuron feeds the first output only."""
    *hidden, last = teacher.layer_vectors()
    if alone:
        last[1:, 0] = 0
    teacher.load_layer_vectors([*hidden, last * 10 ** torch.tensor(powers, dtype=torch.float64)[:, None]])


def in_units(layers: Layers, answers: torch.Tensor) -> Layers:
    """Layers with every output as a share of its largest answer, so that the weights of a weak output count like the others."""
    return layers.all_but_last.followed_by(layers.vectors[-1] / answers.abs().amax(0)[:, None])


def run(number: int) -> dict[str, object]:
    """Runs a trial in one thread; returns its row."""
    torch.set_num_threads(1)
    trial = draw(number)
    teacher = f"{'_'.join(map(str, trial.teacher.sizes))} {trial.teacher.act_fun}"
    row = {"trial": number, "kind": trial.kind, "teacher": teacher, "students": f"{trial.width} {trial.act_fun}"}
    row |= {"identified": False, "accepted": False, "to precision": False, "within": False}
    with tempfile.TemporaryDirectory() as root, mock.patch.object(plotting, "draw"):  # no pictures are needed
        os.environ.update(EC_ROOT=root, EC_DATASET_ROOT=root)
        path = os.path.join(root, "pairs.npz")
        np.savez(path, X=trial.queries.numpy(), y=trial.answers.numpy())
        desc = ExtractionDesc.default_for(f"students_mlp({STUDENTS})_{trial.teacher.sizes[0]}_{trial.width}_{trial.teacher.sizes[-1]}")
        desc.model_hparams.act_fun = trial.act_fun
        desc.training_hparams = TRAINING
        desc.dataset_hparams.teacher_name, desc.dataset_hparams.datagen = path, None
        job = JobArgs(global_seed=number, quiet=True, evaluate_only_at_end=True)
        started = time.monotonic()
        try:
            desc, answers, prepare = check(desc, job)
            runner = ExtractionRunner(desc, job, answers, prepare)
            runner.run()
        except ConfigError as error:
            return row | {"seconds": round(time.monotonic() - started, 1), "remark": str(error).split(";")[0]}
        row["seconds"] = round(time.monotonic() - started, 1)
        found = report.read(runner.output_location)
        network = models.load(found.model_path, dataclasses.replace(desc.model_hparams, model_name=found.model_name))
        judged = score(*(in_units(Layers.of(model), trial.answers) for model in (network, trial.teacher)))
    error = "-" if judged.max_relative_error is None else f"{judged.max_relative_error:.0e}"
    remark = f"{found.model_name} misses answers by {found.certificate['residual']:.0e}, weights by {error}"
    certificate, bound = found.certificate, IDENTIFIED
    if "error_95" in certificate and isinstance(certificate["error_95"], float):
        bound = MARGIN * certificate["error_95"]
    same = network.sizes == trial.teacher.sizes and network.act_fun == trial.teacher.act_fun
    within = same and judged.max_relative_error is not None and judged.max_relative_error <= bound
    verdicts = {"accepted": certificate.accepted, "to precision": certificate.accepted_to_precision}
    return row | {"identified": judged.identified, "within": within, "remark": remark} | verdicts


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
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the number of the first trial")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    args = parser.parse_args()
    started, rows = time.monotonic(), []
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        for row in pool.imap(run, itertools.islice(itertools.count(args.first), args.trials)):
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
