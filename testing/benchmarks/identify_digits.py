"""Identification of a digits teacher: a whole `python EC.py extract` against the published recipe with many times its time.

Command:   python -m testing.benchmarks.identify_digits [--act_fun relu,tanh,g] [--factor 20] [--seed 0]
Hardware:  two CPU cores.
Prints:    for each activation function a line with time, widths, verdict and largest relative weight error of our run; time, epochs of
           students and of fine-tuning, widths, cosine distance and error of the recipe; and the ratio of the errors. The last line says
           whether every run of ours identified its teacher with an error at least 100 times smaller. The exit status is 0 if so, else 1.
Result:    with one thread on a busy machine: relu identified in 61 s to 2e-16, the recipe ended after 733 s at 0.7 with 11 of 16 neurons;
           tanh in 22 s to 2e-16, the recipe after 425 s at 4e-5; g in 48 s to 6e-16, the recipe after 959 s at 0.09.
n:         one run of each for an activation function.

Teacher: digits_lenet_16 by its default training, which is not timed. Ours: `--default_hparams=students_digits_lenet`, from untrained
students to the report. Recipe: as many students of the same size, from the same initial weights and on the same queries; Adam at 1e-3 in
batches of 512 in float32, the rate cut by sqrt(10) after 100 epochs without progress and then kept for 200; average linkage of canonical
vectors, cut where the number of large clusters is largest; output weights by least squares; 5,000 epochs of Adam at 1e-4.

Where the recipe leaves a choice, the better option is used. Its students are our stack in our training loop. They may use three quarters
of the time, or less if their schedule ends earlier; the rest is for fine-tuning, and the printed epochs show whether fine-tuning completed
its epochs. The sign of a neuron is that of its projection on the leading direction of all neurons, which is robust to dead inputs. Signs
that clusters leave open (as of relu or gelu) come from our own solver. Errors are those of `extraction/evaluation.score`,
which matches neurons one to one. A neuron that was recovered twice shares its outgoing weights with its twin, and this counts as an error.

Axes: n neurons of N students, D inputs with the bias last, K recovered neurons.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from unittest import mock

import numpy as np
import torch
from scipy.cluster.hierarchy import average, fcluster
from scipy.spatial.distance import pdist

from datasets import registry as datasets
from extraction import report
from extraction.desc import ExtractionDesc
from extraction.evaluation import score
from extraction.network import Layers, fit_outputs
from extraction.report import LayerScore
from extraction.runner import ExtractionRunner, check
from extraction.signs import resolve_signs
from extraction.symmetry import Symmetry, symmetries
from foundations import tables
from foundations.errors import ConfigError
from foundations.training_hparams import TrainingHparams
from models import registry as models
from models.activation_functions import activation_functions
from models.mlp import FullyConnected
from models.students import Model as Students
from platforms.platform import get_platform
from training.evaluation import evaluate
from training.job import JobArgs
from training.plan import Plan
from training.train import train

TEACHER, STUDENTS = "digits_lenet_16", "students_digits_lenet"
AT_LEAST = 100  # the least ratio of errors that counts as a success
ROUNDING = float(np.finfo(np.float64).eps)  # a smaller error counts as this

BATCH_SIZE = 512
EXPANSION = TrainingHparams("adam", 1e-3, "1000000ep", plateau_opt=True, patience=100, cooldown=200)  # ends by schedule or by time
FINE_TUNING = TrainingHparams("adam", 1e-4, "5000ep")
STUDENTS_SHARE = 0.75  # of the recipe's time
GAMMA, BETA = 0.7, 6.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a run.

    Attributes:
        seconds: its duration.
        hidden: the score of the hidden layer, None if no neuron was recovered.
        error: the largest error of a weight, relative to the largest weight of its layer; 1 if no neuron was recovered.
        identified: the verdict.
        epochs: the epochs of the recipe's students, and of its fine-tuning.
    """

    seconds: float
    hidden: LayerScore | None = None
    error: float = 1.0
    identified: bool = False
    epochs: str = "-"

    @property
    def widths(self) -> str:
        """The numbers of recovered neurons, of the teacher's neurons, and of matched neurons."""
        return f"{self.hidden.recovered_width}/{self.hidden.teacher_width}/{self.hidden.matched}" if self.hidden else "none"

    @property
    def cosine_distance(self) -> float:
        """The largest cosine distance of a matched pair of neurons."""
        return self.hidden.max_cosine_distance if self.hidden else math.nan


def canonical(vectors: np.ndarray, symmetry: Symmetry) -> np.ndarray:
    """Incoming vectors in a form that the symmetry leaves unique: unit length where scaling is free, one sign where signs are.

    Args:
        vectors: `[n, D]`.
    """
    if symmetry.positive_scaling:
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(np.finfo(np.float64).tiny)
    if symmetry.parity:
        leading = np.linalg.eigh(vectors.T @ vectors)[1][:, -1]
        vectors = np.where((vectors @ leading)[:, None] < 0, -vectors, vectors)
    return vectors


def literal_cut(tree: np.ndarray, least: float) -> float:
    """The height of a merge up to which the tree has most clusters of `least` members or more; the lowest of equals. O(n).

    Args:
        tree: scipy's linkage matrix, `[n - 1, 4]`.
        least: more than 1.
    """
    heights, n = tree[:, 2], len(tree) + 1
    large = np.append(np.ones(n), tree[:, 3]) >= least
    left, right = tree[:, :2].astype(int).T
    counts = np.cumsum(large[n:].astype(int) - large[left] - large[right])
    complete = np.flatnonzero(np.diff(heights, append=np.inf) > 0)
    return float(heights[complete[counts[complete].argmax()]])


def literal_clusters(vectors: np.ndarray, students: int, gamma: float = GAMMA, beta: float = BETA) -> list[np.ndarray]:
    """The members of each cluster of gamma * N neurons or more whose median pairwise angle is at most pi / beta.

    Args:
        vectors: in canonical form, `[n, D]`.
        students: N.
    """
    tree = average(pdist(vectors))
    labels = fcluster(tree, literal_cut(tree, gamma * students), "distance")
    clusters = [np.flatnonzero(labels == label) for label in range(1, labels.max() + 1)]
    return [members for members in clusters if len(members) >= gamma * students and median_angle(vectors[members]) <= math.pi / beta]


def median_angle(vectors: np.ndarray) -> float:
    """The median angle in radians between two or more vectors, `[n, D]`."""
    return float(np.median(np.arccos((1 - pdist(vectors, "cosine")).clip(-1, 1))))


def collapse(vectors: np.ndarray, clusters: list[np.ndarray], student: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """For each cluster the vector of the best student that it has, `[K, D]`; the mean of its copies where it has several.

    Args:
        vectors: in canonical form, `[n, D]`.
        student: the student of each vector, `[n]`.
        losses: of the students, `[N]`.
    """
    best = [members[losses[student[members]] == losses[student[members]].min()] for members in clusters]
    return np.stack([vectors[copies].mean(0) for copies in best])


def read_off(students: Students, losses: list[float], desc: ExtractionDesc, queries: torch.Tensor, answers: torch.Tensor) -> FullyConnected:
    """The network that the recipe recovers from the students.

    Args:
        students: trained, with one hidden layer.
        losses: the loss of each student.
        queries: `[Q, D - 1]`, in float64.
        answers: `[Q, O]`, likewise.

    Raises:
        LookupError: there is no cluster.
    """
    symmetry, layer = symmetries[students.act_fun], students.fc_layers[0]
    vectors = torch.cat([layer.weight.data, layer.bias.data], 1).transpose(1, 2).flatten(0, 1).double().cpu().numpy()
    vectors = canonical(vectors, symmetry)
    clusters = literal_clusters(vectors, students.networks)
    if not clusters:
        raise LookupError("no cluster")
    student = np.arange(len(vectors)) // layer.weight.shape[2]
    incoming = torch.from_numpy(collapse(vectors, clusters, student, np.array(losses))).to(queries)
    incoming, _ = resolve_signs(incoming, students.act_fun, queries, answers)
    hidden = Layers((incoming,), students.act_fun)
    network, _ = hidden.followed_by(fit_outputs(hidden.activations(queries), answers).T).to_network(desc.model_hparams)
    return network


def deadline(moment: float) -> Plan:
    """The plan of a training that ends at a moment of the monotonic clock."""
    return Plan(stop_when=[lambda step, model, logger: time.monotonic() >= moment])


def run_recipe(desc: ExtractionDesc, teacher: FullyConnected, seed: int, seconds: float, location: str) -> Outcome:
    """Runs the published recipe with a limited time in seconds."""
    started = time.monotonic()
    loader = datasets.get(dataclasses.replace(desc.dataset_hparams, batch_size=BATCH_SIZE), seed=seed)
    queries, answers = loader.dataset.examples.double(), loader.dataset.labels
    students = models.get(desc.model_hparams, answers.shape[1], seed)
    end = train(EXPANSION, students, loader, os.path.join(location, "students"), deadline(started + STUDENTS_SHARE * seconds))
    losses = evaluate(students, loader)["individual_losses"]
    try:
        network = read_off(students, losses, desc, queries, answers)
    except LookupError:
        return Outcome(time.monotonic() - started, epochs=f"{end.ep}")
    fine_end = train(FINE_TUNING, network, loader, os.path.join(location, "fine_tuning"), deadline(started + seconds))
    elapsed = time.monotonic() - started
    found = score(Layers.of(network.double()), Layers.of(teacher))
    return Outcome(elapsed, found.layers[0], found.max_relative_error, found.identified, f"{end.ep}+{fine_end.ep}")


def run_ours(runner: ExtractionRunner) -> Outcome:
    """Runs the command `extract` on a teacher that is already trained."""
    started = time.monotonic()
    try:
        runner.run()
    except ConfigError:  # the students share too little
        return Outcome(time.monotonic() - started)
    elapsed = time.monotonic() - started
    found = report.read(runner.output_location)
    return Outcome(elapsed, found.layers[0], found.max_relative_error, found.identified)


def compare(act_fun: str, factor: float, seed: int) -> tuple[Outcome, Outcome]:
    """The outcomes of our run on one teacher, and of the recipe with `factor` times the time of our run."""
    job = JobArgs(global_seed=seed, quiet=True)
    desc = ExtractionDesc.default_for(STUDENTS)
    desc.model_hparams.act_fun = act_fun
    desc.dataset_hparams.teacher_name, desc.dataset_hparams.teacher_seed = TEACHER, seed
    desc, teacher, prepare = check(desc, job)
    prepare()
    ours = run_ours(ExtractionRunner(desc, job, teacher, prepare))
    return ours, run_recipe(desc, teacher.load(), seed, factor * ours.seconds, os.path.join(get_platform().root, f"recipe_{act_fun}"))


def ratio(ours: Outcome, recipe: Outcome) -> float:
    """How many times smaller our error is."""
    return recipe.error / max(ours.error, ROUNDING)


def table(acts: list[str], factor: float, seed: int) -> Iterator[tuple[str, bool]]:
    """The lines of the table, each when its runs are finished, and whether it meets the claim."""
    yield "widths: recovered/teacher/matched; error: the largest of a weight, relative to the largest of its layer", True
    yield _line("", ["ours", "", "", ""], ["recipe", "", "", "", ""], "ratio of"), True
    yield _line("act_fun", ["time", "widths", "verdict", "error"], ["time", "epochs", "widths", "cosine", "error"], "errors"), True
    for act_fun in acts:
        ours, recipe = compare(act_fun, factor, seed)
        verdict = "identified" if ours.identified else "not identified"
        left = [f"{ours.seconds:.1f} s", ours.widths, verdict, f"{ours.error:.1e}"]
        right = [f"{recipe.seconds:.1f} s", recipe.epochs, recipe.widths, f"{recipe.cosine_distance:.1e}", f"{recipe.error:.1e}"]
        yield _line(act_fun, left, right, f"{ratio(ours, recipe):.1e}"), ours.identified and ratio(ours, recipe) >= AT_LEAST


def _line(act_fun: str, ours: list[str], recipe: list[str], errors: str) -> str:
    """One line of the table, aligned before the next one is known."""
    (line,) = tables.aligned([[act_fun, *ours, "|", *recipe, "|", errors]], "<>", (10, 8, 9, 14, 8, 1, 8, 12, 9, 8, 8, 1, 8))
    return line


def arguments() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser("python -m testing.benchmarks.identify_digits", description=__doc__.splitlines()[0])
    parser.add_argument("--act_fun", default="relu,tanh,g", help="Activation functions, joined by commas (default: relu,tanh,g).")
    parser.add_argument("--factor", type=float, default=20, help="The recipe's time, in units of ours (default: 20).")
    parser.add_argument("--seed", type=int, default=0, help="The seed of teacher, queries and students (default: 0).")
    args = parser.parse_args()
    args.act_fun = args.act_fun.split(",")
    for name in args.act_fun:
        if name not in activation_functions:
            parser.error(f"--act_fun: no {name!r}; valid: {', '.join(activation_functions)}")
    return args


def main() -> int:
    """Prints the table and the verdict; returns the exit status."""
    args = arguments()
    shown = True
    with tempfile.TemporaryDirectory() as root, mock.patch.dict(os.environ, {"EC_ROOT": root}):
        for line, as_claimed in table(args.act_fun, args.factor, args.seed):
            print(line, flush=True)
            shown = shown and as_claimed
    claim = f"ours identified every teacher, with an error at least {AT_LEAST} times smaller than the recipe's"
    print(f"{'Shown' if shown else 'NOT shown'}: {claim} in {args.factor:g} times the time.")
    return 0 if shown else 1


if __name__ == "__main__":
    sys.exit(main())
