"""Expand-and-Cluster (Martinelli et al. 2024): imitate a network with many wider ones, and read it off what their neurons share.

`train_students` expands, `reconstruct` clusters, layer by layer, and brings the network that comes out to the precision of its numbers.
"""

from __future__ import annotations

import copy
import dataclasses
import os

import torch

from datasets.base import DataLoader
from extraction import layer_reconstruction as layers
from extraction.desc import ExtractionDesc
from extraction.symmetry import symmetries
from foundations import paths
from foundations.errors import ConfigError
from foundations.hparams import ModelHparams, TrainingHparams
from models import registry as models
from models.mlp import FullyConnected
from models.students import Model as Students
from platforms.platform import get_platform
from training.desc import TrainingDesc
from training.evaluation import evaluate
from training.runner import record
from training.train import standard_train

EQUATIONS_PER_UNKNOWN = 20  # in a step of fine-tuning
CHUNK = 4096  # queries that are sent through all students at a time


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """What the students gave.

    Attributes:
        layers: the recovered hidden layers.
        model_hparams: of the network.
        before: the network as it was put together.
        network: the network after fine-tuning.
        location: the folder that it is saved in.
        losses: of the students, on the queries.
        students_file: the name of the file with the students' weights.
    """

    layers: list[layers.RecoveredLayer]
    model_hparams: ModelHparams
    before: FullyConnected
    network: FullyConnected
    location: str
    losses: list[float]
    students_file: str


def train_students(
    desc: ExtractionDesc, outputs: int, train_loader: DataLoader, test_loader: DataLoader, location: str, seed: int, **options: bool
) -> Students:
    """Trains the students, or finds them trained, and returns them; `options` are those of `standard_train`."""
    students = models.get(desc.model_hparams, outputs, seed)
    standard_train(desc.training_hparams, students, train_loader, test_loader, location, **options)
    return students


def reconstruct(
    students: Students, desc: ExtractionDesc, train_loader: DataLoader, test_loader: DataLoader, location: str, verbose: bool = True
) -> Reconstruction:
    """Recovers the network that the students imitate.

    Args:
        students: trained.
        desc: the hyperparameters.
        train_loader: the queries and answers, in float64.
        test_loader: others, likewise, to show how fine-tuning goes.
        location: the clustering folder.

    Raises:
        ConfigError: the students share too little.
    """
    symmetry, act_fun = symmetries[students.act_fun], students.activation
    students_file = os.path.basename(models.last_file(os.path.dirname(location)))
    losses = evaluate(students.to(train_loader.examples), train_loader)["individual_losses"]
    recovered = recover_layer(students, losses, desc, train_loader.examples, location)
    queries, answers = train_loader.examples, train_loader.labels
    incoming, _ = layers.resolve_signs(recovered.incoming, act_fun, symmetry, queries, answers)

    before = None
    for attempt in range(len(incoming)):
        network, model_hparams = assemble(incoming, desc.model_hparams, queries, answers)
        before = before or copy.deepcopy(network)
        folder = os.path.join(paths.finetune_checkpoints(location), f"{students_file.removesuffix('.pth')}_attempt_{attempt}")
        finetune(network, model_hparams, desc, train_loader, test_loader, folder, verbose)
        incoming = incoming_vectors(network)
        contribution = contributions(act_fun, incoming[None], network.fc.weight.data.T[None], queries)[0]
        kept = layers.necessary(incoming, contribution, symmetry)
        if bool(kept.all()):
            break
        incoming = incoming[kept]
    get_platform().move(folder, paths.reconstructed_model(location))
    return Reconstruction([recovered], model_hparams, before, network, paths.reconstructed_model(location), losses, students_file)


def recover_layer(
    students: Students, losses: list[float], desc: ExtractionDesc, queries: torch.Tensor, location: str
) -> layers.RecoveredLayer:
    """The neurons that the students' first hidden layers share.

    Raises:
        ConfigError: there are none.
    """
    h = desc.extraction_hparams
    layer = students.fc_layers[0]
    incoming = torch.cat([layer.weight.data, layer.bias.data], 1).transpose(1, 2)
    outgoing = students.fc.weight.data
    contribution = contributions(students.activation, incoming, outgoing, queries)
    neurons = layers.Neurons(incoming.cpu(), outgoing.cpu(), contribution.cpu(), torch.tensor(losses))
    recovered = layers.recover(neurons, symmetries[students.act_fun], h.gamma, h.beta)
    if recovered is None:
        raise ConfigError(
            f"no cluster holds neurons of {h.gamma:.0%} of the {students.networks} students within an angle of pi/{h.beta:g}; the students "
            f"are kept in {os.path.dirname(location)}: train them longer (--further_training), or try another --gamma or --beta"
        )
    return recovered


def contributions(act_fun, incoming: torch.Tensor, outgoing: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """How much each neuron moves the outputs: the spread of its activation times the length of its outgoing vector.

    Args:
        act_fun: the activation function.
        incoming: `[N, m, D]`.
        outgoing: `[N, m, O]`.
        queries: `[Q, D - 1]`.

    Returns:
        `[N, m]`.
    """
    flat = incoming.flatten(0, 1)
    total, squares = flat.new_zeros(len(flat)), flat.new_zeros(len(flat))
    for chunk in queries.split(CHUNK):
        activations = act_fun(layers.with_ones(chunk) @ flat.T)
        total += activations.sum(0)
        squares += activations.square().sum(0)
    mean = total / len(queries)
    spread = (squares / len(queries) - mean.square()).clamp_min(0).sqrt()
    return spread.view(outgoing.shape[:2]) * outgoing.norm(dim=2)


def incoming_vectors(network: FullyConnected) -> torch.Tensor:
    """The first layer's weights with the bias last, `[K, D]`."""
    layer = network.fc_layers[0]
    return torch.cat([layer.weight.data, layer.bias.data[:, None]], 1)


def assemble(
    incoming: torch.Tensor, students_hparams: ModelHparams, queries: torch.Tensor, answers: torch.Tensor
) -> tuple[FullyConnected, ModelHparams]:
    """A plain network of the students' family with the given hidden layer, and the output layer that fits the answers best.

    Args:
        incoming: `[K, D]`.
        students_hparams: whose family, initialisers and activation function it takes.
        queries: `[Q, D - 1]`.
        answers: `[Q, O]`.
    """
    family, _, _ = Students.parse(students_hparams.model_name)
    name = family.name_of([queries.shape[1], len(incoming), answers.shape[1]])
    model_hparams = dataclasses.replace(students_hparams, model_name=name)
    network = models.get(model_hparams, answers.shape[1]).to(queries)
    outputs = layers.fit_outputs(network.activation(layers.with_ones(queries) @ incoming.T), answers)
    parts = {
        "fc_layers.0.weight": incoming[:, :-1],
        "fc_layers.0.bias": incoming[:, -1],
        "fc.weight": outputs[:-1].T,
        "fc.bias": outputs[-1],
    }
    network.load_state_dict(parts)
    return network, model_hparams


def finetune(
    network: FullyConnected,
    model_hparams: ModelHparams,
    desc: ExtractionDesc,
    train_loader: DataLoader,
    test_loader: DataLoader,
    location: str,
    verbose: bool,
) -> None:
    """Brings a network that is nearly right to the rounding floor, in place, in float64."""
    h = desc.extraction_hparams
    unknowns = sum(parameter.numel() for parameter in network.parameters())
    queries, outputs = train_loader.labels.shape
    wanted = h.finetune_batch_size or -(-EQUATIONS_PER_UNKNOWN * unknowns // outputs)
    batch_size = -(-queries // max(1, queries // wanted))
    training = TrainingDesc(
        dataclasses.replace(desc.dataset_hparams, batch_size=batch_size),
        model_hparams,
        TrainingHparams(h.finetune_optimizer, h.finetune_lr, h.finetune_training_steps, precision="float64"),
    )
    record(training, location, train_loader.seed, (train_loader.examples.shape[1], outputs))
    loader = DataLoader(train_loader.dataset, batch_size, train_loader.seed, torch.float64)
    standard_train(training.training_hparams, network, loader, test_loader, location, verbose=verbose, epoch_lines=False)
