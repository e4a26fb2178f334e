"""From layers that are nearly right to a network that is exact: put together, fitted to the rounding floor, rid of what is in excess.

Axes: K neurons of a layer, D inputs with the bias last, Q queries.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import torch

from datasets.base import DataLoader
from extraction import layer_reconstruction as layers
from extraction.desc import ExtractionDesc
from extraction.symmetry import symmetries
from foundations.errors import ConfigError
from foundations.model_hparams import ModelHparams
from foundations.training_hparams import TrainingHparams
from models import registry as models
from models.mlp import FullyConnected, Perceptron
from models.students import Model as Students
from training.desc import TrainingDesc
from training.job import record
from training.train import Callback, standard_train

EQUATIONS_PER_UNKNOWN = 20  # in a step of fine-tuning
TRIM_EQUATIONS = 6  # the same while there are neurons in excess
EXACT = 1e-10  # the residual of a network that has found the solution, as a share of the spread of the answers
DISPENSABLE = 1e-8  # a neuron of an exact network is in excess without which the next layer loses no more than this share of its spread
PROMISING = 1e-4  # the relative loss below which it is worth while to take neurons from a network
WORSE = 100.0  # times the loss before, at most, of a network that has one neuron less and may be none the worse
TRIALS = 3  # neurons that are tried before all are taken to be needed
REDUNDANCY_CHECK = 4  # steps of fine-tuning between looks for twins
STALL = 16  # steps of fine-tuning in which the loss should at least halve; with 8, three layers of g with two neurons in excess got stuck
PROBES = 1000  # queries by which contributions are measured


@dataclasses.dataclass(frozen=True)
class Fit:
    """A network with its hyperparameters, as it was put together and as it was after fine-tuning, and the folder that it is saved in."""

    model_hparams: ModelHparams
    before: FullyConnected
    network: FullyConnected
    location: str


def assemble(vectors: list[torch.Tensor], students_hparams: ModelHparams) -> tuple[FullyConnected, ModelHparams]:
    """The plain network of the students' family with the given layers.

    Args:
        vectors: of each layer, `[width, D]` with the bias last.
        students_hparams: whose family, initialisers and activation function it takes.
    """
    family, _, _ = Students.parse(students_hparams.model_name)
    name = family.name_of([vectors[0].shape[1] - 1, *map(len, vectors)])
    model_hparams = dataclasses.replace(students_hparams, model_name=name)
    network = models.get(model_hparams, len(vectors[-1])).to(vectors[0])
    for layer, rows in zip((*network.fc_layers, network.fc), vectors, strict=True):
        layer.weight.data, layer.bias.data = rows[:, :-1].clone(), rows[:, -1].clone()
    return network, model_hparams


def layer_vectors(network: FullyConnected) -> list[torch.Tensor]:
    """The layers of a network, each `[width, D]` with the bias last."""
    return [torch.cat([layer.weight.data, layer.bias.data[:, None]], 1) for layer in (*network.fc_layers, network.fc)]


@torch.no_grad()
def relative_loss(network: FullyConnected, loader: DataLoader) -> float:
    """The mean squared error over the variance of the answers."""
    return float((network(loader.examples) - loader.labels).square().mean() / loader.labels.var(0).mean())


def is_exact(network: FullyConnected, loader: DataLoader) -> bool:
    """Whether a network gives the answers, to rounding."""
    return relative_loss(network, loader) <= EXACT**2


def trim(vectors: list[torch.Tensor], desc: ExtractionDesc, loaders: tuple[DataLoader, DataLoader], location: str, verbose: bool) -> Fit:
    """The network with the given layers, some of which may hold neurons in excess, without them.

    Surplus neurons cancel each other at the solution, and make the way there long: the curvature is all but singular. So what is needed
    least goes first, as long as the fit is as good without it.
    """
    found, trials = [fit(vectors, desc, loaders, location, verbose, TRIM_EQUATIONS)], 0
    while not is_exact(found[-1].network, loaders[0]):
        loss, now = relative_loss(found[-1].network, loaders[0]), len(found)
        for _, fewer in dispensable(found[-1].network, loaders[0].examples)[: TRIALS if loss <= PROMISING else 0]:
            trials += 1
            trial = fit(fewer, desc, loaders, f"{location}_trial_{trials}", verbose, TRIM_EQUATIONS)
            if relative_loss(trial.network, loaders[0]) <= WORSE * loss:
                found.append(trial)
                break
        if len(found) == now:
            break
    return found


def fit(
    vectors: list[torch.Tensor],
    desc: ExtractionDesc,
    loaders: tuple[DataLoader, DataLoader],
    location: str,
    verbose: bool,
    equations: int = EQUATIONS_PER_UNKNOWN,
) -> Fit:
    """The network with the given layers, brought to the rounding floor; what shows in it as a twin, or as dead, is taken from it.

    Raises:
        ConfigError: there are fewer answers than unknowns.
    """
    before = None
    while True:
        network, model_hparams = assemble(vectors, desc.model_hparams)
        answers, unknowns = loaders[0].labels.numel(), sum(parameter.numel() for parameter in network.parameters())
        if answers < unknowns:
            raise ConfigError(
                f"{answers} answers are too few for the {unknowns} unknowns of {model_hparams.model_name}, which the students share; "
                "the students are kept; ask more (--datagen, --samples)"
            )
        before = before or copy.deepcopy(network)
        folder = f"{location}_{model_hparams.model_name}"
        finetune(network, model_hparams, desc, loaders, folder, verbose, equations)
        smaller = simplify(network, loaders[0].examples)
        if smaller is None and is_exact(network, loaders[0]):
            lost, fewer = next(iter(dispensable(network, loaders[0].examples)), (1.0, None))
            smaller = fewer if lost <= DISPENSABLE else None
        if smaller is None:
            return Fit(model_hparams, before, network, folder)
        vectors = smaller


def finetune(
    network: FullyConnected,
    model_hparams: ModelHparams,
    desc: ExtractionDesc,
    loaders: tuple[DataLoader, DataLoader],
    location: str,
    verbose: bool,
    equations: int,
) -> None:
    """Brings a network that is nearly right to the rounding floor, in place, in float64."""
    h = desc.extraction_hparams

    def stop_when_redundant(output_location, step, model, optimizer, logger):
        """Twins make the problem singular, and the approach slow; there is no point in going on with them."""
        if step.iteration and step.iteration % REDUNDANCY_CHECK == 0 and simplify(model, loaders[0].examples) is not None:
            optimizer.spent = True

    def stop_when_stalled(output_location, step, model, optimizer, logger):
        """A network of the right size falls to the floor in a few steps; one that is not gets stuck, for good."""
        losses = [loss for iteration, loss in logger.get("test_loss") if iteration <= step.iteration - STALL]
        if losses and logger.latest("test_loss") > losses[-1] / 2:
            optimizer.spent = True

    callbacks = [stop_when_redundant, stop_when_stalled] if h.finetune_optimizer == "levenberg_marquardt" else []
    training_hparams = TrainingHparams(h.finetune_optimizer, h.finetune_lr, h.finetune_training_steps, precision="float64")
    fit_together(network, model_hparams, desc, training_hparams, loaders, location, verbose, equations, callbacks)


def fit_together(
    network: FullyConnected,
    model_hparams: ModelHparams,
    desc: ExtractionDesc,
    training_hparams: TrainingHparams,
    loaders: tuple[DataLoader, DataLoader],
    location: str,
    verbose: bool,
    equations: int,
    callbacks: Sequence[Callback],
) -> None:
    """Trains all layers of a network, in place, as a run of its own.

    Args:
        network: as assembled.
        model_hparams: of it.
        desc: the hyperparameters of the extraction.
        training_hparams: those of this run.
        loaders: the queries and answers for training, and others for test.
        location: the folder of the run.
        verbose: whether to show how it goes.
        equations: for each unknown in a batch, unless the extraction's hyperparameters give its size.
        callbacks: beside the standard ones.
    """
    unknowns = sum(parameter.numel() for parameter in network.parameters())
    train_loader, test_loader = loaders
    queries, outputs = train_loader.labels.shape
    wanted = desc.extraction_hparams.finetune_batch_size or -(-equations * unknowns // outputs)
    batch_size = -(-queries // max(1, queries // wanted))
    training = TrainingDesc(dataclasses.replace(desc.dataset_hparams, batch_size=batch_size), model_hparams, training_hparams)
    record(training, location, train_loader.seed, (train_loader.examples.shape[1], outputs))
    loader = DataLoader(train_loader.dataset, batch_size, train_loader.seed, torch.float64)
    if verbose:
        print(f"Fitting {model_hparams.model_name} to the answers", flush=True)
    options = {"more_callbacks": callbacks, "verbose": verbose, "epoch_lines": False}
    standard_train(training_hparams, network, loader, test_loader, location, **options)


def simplify(network: FullyConnected, queries: torch.Tensor) -> list[torch.Tensor] | None:
    """The layers of a fitted network without dead neurons and twins, `[width, D]` each; None where it has none."""
    vectors, changed = layer_vectors(network), False
    for depth in range(1, len(vectors)):
        merged = layers.merge(vectors[depth - 1], vectors[depth], contributions(network, depth, queries), symmetries[network.act_fun])
        if merged is not None:
            (vectors[depth - 1], vectors[depth]), changed = merged, True
    return vectors if changed else None


@torch.no_grad()
def dispensable(network: FullyConnected, queries: torch.Tensor) -> list[tuple[float, list[torch.Tensor]]]:
    """What a network would be without one of its neurons, the others taking over as well as they can.

    Returns:
        For each neuron of each hidden layer that is not its only one, what the next layer loses, as a share of its spread, and the layers
        that are left, `[width, D]` each; those that lose least first.
    """
    vectors, found = layer_vectors(network), []
    for depth in range(1, len(vectors)):
        activations = network.activations(queries[:: -(-len(queries) // PROBES)], depth)
        for neuron in range(len(vectors[depth - 1]) if len(vectors[depth - 1]) > 1 else 0):
            following, lost = layers.without(activations, vectors[depth], neuron)
            kept = torch.cat([vectors[depth - 1][:neuron], vectors[depth - 1][neuron + 1 :]])
            found.append((lost, [*vectors[: depth - 1], kept, following, *vectors[depth + 1 :]]))
    return sorted(found, key=lambda each: each[0])


@torch.no_grad()
def contributions(network: Perceptron, depth: int, queries: torch.Tensor) -> torch.Tensor:
    """How much each neuron of the hidden layer `depth` matters: the change of the outputs when it is held at its mean.

    Args:
        network: a plain network, or a stack of N students.
        depth: counted from 1.
        queries: `[Q, inputs]`; at most PROBES of them are used.

    Returns:
        The root mean square length of the change, `[width]` or `[N, width]`.
    """
    probes = queries[:: -(-len(queries) // PROBES)]
    activations = network.activations(probes, depth)
    outputs = network.outputs_of(activations, depth)
    changes = []
    for neuron in range(activations.shape[-1]):
        held = activations.clone()
        held[..., neuron] = activations[..., neuron].mean(-1, keepdim=True)
        changes.append((network.outputs_of(held, depth) - outputs).square().sum(-1).mean(-1).sqrt())
    return torch.stack(changes, -1)
