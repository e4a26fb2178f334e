"""Whether error bars hold: the standard errors of weights against their true errors, over many small networks.

Command:  python -m testing.benchmarks.calibration [--networks 20] [--jobs 2] [--figure error_bars.png]
Hardware: two CPU cores.
Prints:   for each precision of the answers, activation function and size: how many weights there are, the shares that are within one and
          within two standard errors of the truth (of Gaussian errors 68% and 95%), the largest deviation in standard errors, and in how
          many networks all weights are within the bound of 95% that a verdict states. The exit status is 1 if a precision has fewer than
          66% or 93.5% of its weights within one and two standard errors, or fewer than 90% of its networks within their bound, else 0.
Result:   error bars hold. Of 14,562 weights each, within one and two standard errors: float32 77.4% and 97.4% (tanh 68% and 95%; those of
          relu and gelu are wider than they need be), four decimals 68.9% and 95.8%, noise 68.5% and 95.5%. The largest deviation is 4.8,
          and all networks are within their bound. 900 fits in 5.4 minutes on one busy core (n=1).

Each network answers Gaussian queries, with QUERIES numbers for each of its unknowns, in one of three precisions: it computes in float32; or
its answers are rounded to four decimals; or they have Gaussian noise of 1e-3. Levenberg-Marquardt fits all weights to the answers, as the
last step of `extract` does. It starts at the truth with weights disturbed by a thousandth: this tests error bars, not the search. Weights
of relu networks are compared at the lengths of the neurons that were found. Weights that no answer tells have infinite error bars, and do
not count.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import erf

from datasets.base import DataLoader
from datasets.teacher_dataset import Dataset
from extraction.answers import spreads
from extraction.certification.gauges import scaling_directions
from extraction.certification.uncertainty import largest_weight_error, noise_of, standard_errors
from extraction.network import Layers
from extraction.symmetry import symmetries
from foundations import tables
from foundations.seeds import derive
from models.mlp import FullyConnected
from testing import planted
from training.plotting import drawing, figure, save
from training.second_order import LevenbergMarquardt
from training.train import Objective

SIZES = ((2, 3, 1), (3, 5, 2), (5, 8, 2), (8, 6, 3), (4, 5, 4, 2))
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "relu": lambda values: np.maximum(values, 0),
    "gelu": lambda values: values * (1 + erf(values / np.float32(math.sqrt(2)))) / 2,
}
QUERIES, LENGTH, DISTURBANCE, STEPS = 20, 1.5, 1e-3, 30
WITHIN_ONE, WITHIN_TWO, WITHIN_BOUND = 0.66, 0.935, 0.9  # the least shares


@dataclass(frozen=True)
class Trial:
    """One fit: the precision of the answers, the activation function, the sizes and the number of the network."""

    precision: str
    act_fun: str
    sizes: tuple[int, ...]
    number: int


@dataclass(frozen=True)
class Outcome:
    """The deviations of the weights in standard errors, and whether all weights are within the bound of 95%."""

    trial: Trial
    deviations: list[float]
    is_within_bound: bool


def in_float32(layers: Layers, queries: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The answers of a network that computes in float32, by numpy rather than torch."""
    values = queries.float().numpy()
    for depth, vectors in enumerate(layers.vectors):
        low = vectors.float().numpy()
        values = values @ low[:, :-1].T + low[:, -1]
        if depth < len(layers) - 1:
            values = ACTIVATIONS[layers.act_fun](values)
    assert values.dtype == np.float32
    return torch.from_numpy(values).double()


def rounded(layers: Layers, queries: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Answers with four decimals."""
    return layers.pre_activations(queries).round(decimals=4)


def noisy(layers: Layers, queries: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Answers with Gaussian noise of 1e-3."""
    answers = layers.pre_activations(queries)
    return answers + 1e-3 * torch.randn(answers.shape, generator=generator, dtype=torch.float64)


PRECISIONS: dict[str, Callable[[Layers, torch.Tensor, torch.Generator], torch.Tensor]] = {
    "float32": in_float32,
    "decimals:4": rounded,
    "noise:0.001": noisy,
}


def run(trial: Trial) -> Outcome:
    """Draws a network, fits one to its answers, and compares the two."""
    generator = torch.Generator().manual_seed(derive(trial.number, "calibration", trial.act_fun, *trial.sizes))
    unknowns = sum((before + 1) * after for before, after in itertools.pairwise(trial.sizes))
    queries = torch.randn(QUERIES * unknowns // trial.sizes[-1], trial.sizes[0], generator=generator, dtype=torch.float64)
    true = planted.draw(trial.sizes, trial.act_fun, queries, generator, LENGTH)
    if trial.precision == "float32":
        queries, true = queries.float().double(), true.replace(*(vectors.float().double() for vectors in true.vectors))
    answers = PRECISIONS[trial.precision](true, queries, generator)
    loader = DataLoader(Dataset(queries, answers), len(queries), trial.number, torch.float64)
    network = fitted(true, loader, generator)
    free = len(scaling_directions(network, symmetries[trial.act_fun])[0])
    noise = noise_of(network, loader, unknowns - free).clamp_min(torch.finfo(torch.float64).eps * spreads(answers))
    computed_in = torch.float32 if trial.precision == "float32" else None
    errors = standard_errors(network, symmetries[trial.act_fun], loader, noise, computed_in)
    found = Layers.of(network)
    true = planted.aligned(true, found, queries)
    known = torch.cat([error.flatten() for error in errors]).isfinite()
    deviations = planted.in_standard_errors(true, found, errors)[known]
    return Outcome(trial, deviations.tolist(), within_bound(network, true, errors))


def fitted(true: Layers, loader: DataLoader, generator: torch.Generator) -> FullyConnected:
    """The network of least squares near the truth."""
    network = planted.network_of(true)
    with torch.no_grad():
        for parameter in network.parameters():
            change = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(DISTURBANCE * parameter.abs().mean() * change)
    optimizer, objective = LevenbergMarquardt(network), Objective(network, loader.examples, loader.labels)
    for _ in range(STEPS):
        optimizer.step(objective)
        if optimizer.converged:
            break
    return network


def within_bound(network: FullyConnected, true: Layers, errors: list[torch.Tensor]) -> bool:
    """Whether no weight is further from the truth than a verdict says it is with a probability of 95%."""
    ours = network.layer_vectors()
    sizes = [vectors.abs().max() for vectors in ours[:-1]] + [ours[-1].abs().amax(1, keepdim=True)]
    pairs = zip(ours, true.vectors, sizes, strict=True)
    return max(float(((mine - theirs).abs() / size).max()) for mine, theirs, size in pairs) <= largest_weight_error(network, errors)


def shares(outcomes: Sequence[Outcome]) -> tuple[int, float, float, float, float]:
    """The number of weights, the shares within one and two standard errors, the largest deviation, the share of networks within bounds."""
    values = torch.tensor([value for outcome in outcomes for value in outcome.deviations]).abs()
    one, two = (float((values <= limit).double().mean()) for limit in (1, 2))
    return len(values), one, two, float(values.max()), sum(outcome.is_within_bound for outcome in outcomes) / len(outcomes)


def table(outcomes: Sequence[Outcome]) -> str:
    """The shares by precision, activation function and size, and by precision alone."""
    lines = [["answers", "activation", "sizes", "weights", "within 1", "within 2", "largest", "networks within 95%"]]
    for precision in PRECISIONS:
        mine = [outcome for outcome in outcomes if outcome.trial.precision == precision]
        cells = {(outcome.trial.act_fun, outcome.trial.sizes) for outcome in mine}
        for act_fun, sizes in [*sorted(cells), ("all", ())]:
            chosen = [each for each in mine if act_fun == "all" or (each.trial.act_fun, each.trial.sizes) == (act_fun, sizes)]
            if chosen:
                count, one, two, largest, bound = shares(chosen)
                figures = [str(count), f"{one:.1%}", f"{two:.1%}", f"{largest:.1f}", f"{bound:.0%}"]
                lines.append([precision, act_fun, "-".join(map(str, sizes)), *figures])
    return "\n".join(tables.aligned(lines, "<<<>"))


def holds(outcomes: Sequence[Outcome]) -> bool:
    """Whether error bars hold at every precision."""
    for precision in PRECISIONS:
        chosen = [outcome for outcome in outcomes if outcome.trial.precision == precision]
        if chosen:
            _, one, two, _, bound = shares(chosen)
            if one < WITHIN_ONE or two < WITHIN_TWO or bound < WITHIN_BOUND:
                return False
    return True


@drawing()
def draw(outcomes: Sequence[Outcome], path: str) -> None:
    """The share of weights within so many standard errors of the truth, a chart for each precision, beside that of Gaussian errors."""
    chart, axes = figure(len(PRECISIONS), width=3.6, height=3.2)
    limits = torch.linspace(0, 3, 61).tolist()
    for axis, precision in zip(axes, PRECISIONS, strict=True):
        for act_fun in ACTIVATIONS:
            chosen = [each for each in outcomes if (each.trial.precision, each.trial.act_fun) == (precision, act_fun)]
            values = torch.tensor([abs(value) for outcome in chosen for value in outcome.deviations])
            if len(values):
                axis.plot(limits, [100 * float((values <= limit).double().mean()) for limit in limits], label=act_fun)
        axis.plot(limits, [100 * math.erf(limit / math.sqrt(2)) for limit in limits], "k--", linewidth=1, label="Gaussian errors")
        axis.set(title=precision, xlabel="standard errors", ylim=(0, 100))
    axes[0].set_ylabel("% of weights within")
    axes[0].legend()
    save(chart, path)


def main() -> int:
    """Runs the trials; returns the exit status."""
    parser = argparse.ArgumentParser("python -m testing.benchmarks.calibration", description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=20, help="networks of each size and activation function (default: 20)")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each (default: 2)")
    parser.add_argument("--figure", help="the file of the picture (default: none)")
    args = parser.parse_args()
    started = time.monotonic()
    trials = [Trial(*each) for each in itertools.product(PRECISIONS, ACTIVATIONS, SIZES, range(args.networks))]
    with multiprocessing.get_context("spawn").Pool(args.jobs, torch.set_num_threads, (1,)) as pool:
        outcomes = pool.map(run, trials, chunksize=5)
    print(table(outcomes))
    if args.figure:
        draw(outcomes, args.figure)
    print(f"{len(trials)} fits in {(time.monotonic() - started) / 60:.1f} min; error bars {'hold' if holds(outcomes) else 'do NOT hold'}")
    return int(not holds(outcomes))


if __name__ == "__main__":
    sys.exit(main())
