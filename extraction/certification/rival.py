"""A rival of a recovered network: another fit, to a part of the answers and from another start, and where the two differ most.

Axes: Q queries, O outputs.
"""

from __future__ import annotations

import copy

import torch

from datasets.base import DataLoader
from extraction.answers import spreads
from extraction.certification.checks import DISAGREEMENT
from extraction.certification.determination import EQUATIONS_PER_UNKNOWN, some_queries, told_by_others
from extraction.descent import descend
from extraction.network import unknowns_of
from extraction.refinement.linear_term import WithLinearTerm
from extraction.symmetry import symmetries
from foundations.seeds import derive
from models.mlp import FullyConnected
from training.second_order import DENSE_PARAMETERS

DISTURBANCE = 1e-3  # of the rival's first weights, relative
RIVAL_EQUATIONS, FIFTH = 2, 5  # for each unknown of a large network in half of the answers, below which every fifth one is left out
RIVAL_STEPS, ASCENT_STEPS, ASCENTS, ASCENT_RATE = 30, 60, 256, 0.1


@torch.no_grad()
def largest_error(network: FullyConnected | WithLinearTerm, loader: DataLoader, units: torch.Tensor) -> float:
    """The largest deviation from an answer, in the unit of its output, `[O]`."""
    return float(((network(loader.examples) - loader.labels) / units).abs().max())


def rivalry(network: FullyConnected | WithLinearTerm, loader: DataLoader, asked: int = 0) -> float:
    """The largest difference of outputs between a network and a rival, at a query or where gradient ascent finds it.

    The ascents start halfway between two queries, and stay in the box that the queries span.
    """
    generator = torch.Generator().manual_seed(derive(loader.seed, "rival"))
    rival = _rival(network, loader, asked, generator)
    with torch.no_grad():
        missed = float((network(loader.examples) - rival(loader.examples)).norm(dim=1).max())
    worst = missed if missed > DISAGREEMENT else 0.0
    low, high = loader.examples.amin(0), loader.examples.amax(0)
    pairs = torch.randint(len(loader.examples), (2, ASCENTS), generator=generator).to(low.device)
    inputs = loader.examples[pairs].mean(0).requires_grad_(True)
    ascent = torch.optim.Adam([inputs], lr=ASCENT_RATE * float((high - low).max()) or ASCENT_RATE, maximize=True)
    for _ in range(ASCENT_STEPS):
        differences = (network(inputs) - rival(inputs)).square().sum(1)
        worst = max(worst, float(differences.detach().max().sqrt()))
        # each ascent by itself, at the same pace however small its difference
        (gradient,) = torch.autograd.grad(differences.clamp_min(torch.finfo(differences.dtype).tiny).log().sum(), inputs)
        inputs.grad = gradient
        ascent.step()
        inputs.data.clamp_(low, high)
    return worst


def _rival(
    network: FullyConnected | WithLinearTerm, loader: DataLoader, asked: int, generator: torch.Generator
) -> FullyConnected | WithLinearTerm:
    """A network that starts near another, at weights that are disturbed by DISTURBANCE, and is fitted to one half of some answers.

    For a large network, half of them may be hardly more numbers than it has weights, to which no fit converges: then to four fifths. A
    rival that does not give the other answers is none: its half may have few queries that show a weight, such as those of a rare category.
    Then it starts again with the half of twice as many answers, until that is half of all. If that half leaves open what few of the other
    queries tell, and these could spare any one of them, it starts again with them.
    """
    start, unknowns, outputs = copy.deepcopy(network), unknowns_of(network), loader.labels.shape[1]
    count = -(-2 * EQUATIONS_PER_UNKNOWN * unknowns // outputs)
    with torch.no_grad():
        for parameter in start.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
            parameter.add_(DISTURBANCE * parameter.abs().mean() * noise)
    while True:
        chosen = some_queries(loader, count, asked)
        is_tight = unknowns > DENSE_PARAMETERS and len(chosen) * outputs < 2 * RIVAL_EQUATIONS * unknowns
        chosen = chosen[torch.arange(len(chosen)) % FIFTH != FIFTH - 1] if is_tight else chosen[::2]
        rival = _fitted(start, loader, chosen)
        if largest_error(rival, loader, spreads(loader.labels)) <= DISAGREEMENT:
            return rival
        if count >= len(loader.examples):
            break
        count *= 2
    if isinstance(network, WithLinearTerm) or unknowns > DENSE_PARAMETERS or len(chosen) * outputs < RIVAL_EQUATIONS * unknowns:
        return rival
    telling = told_by_others(network, symmetries[network.act_fun], loader, chosen)
    rare = telling.rare() if telling else None
    return _fitted(start, loader, torch.cat([chosen, rare.places])) if rare and rare.has_spare else rival


def _fitted(start: FullyConnected | WithLinearTerm, loader: DataLoader, places: torch.Tensor) -> FullyConnected | WithLinearTerm:
    """A copy of a network that is fitted to the answers at some places."""
    rival = copy.deepcopy(start)
    descend(rival, loader.examples[places], loader.labels[places], RIVAL_STEPS)
    return rival
