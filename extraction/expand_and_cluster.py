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
from foundations.seeds import derive
from models import registry as models
from models.mlp import FullyConnected, Perceptron
from models.students import Model as Students
from platforms.platform import get_platform
from training.desc import TrainingDesc
from training.evaluation import evaluate
from training.runner import record
from training.train import standard_train

EQUATIONS_PER_UNKNOWN = 20  # in a step of fine-tuning
REDUNDANCY_CHECK = 4  # steps of fine-tuning between looks for twins
PROBES = 1000  # queries by which contributions are measured


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
        test_loader: others, likewise, to show how training goes.
        location: the clustering folder.

    Raises:
        ConfigError: the students share too little.
    """
    students_file = os.path.basename(models.last_file(os.path.dirname(location)))
    losses = evaluate(students.to(train_loader.examples), train_loader)["individual_losses"]
    work = os.path.join(paths.finetune_checkpoints(location), students_file.removesuffix(".pth"))
    recovered, vectors = peel(students, losses, desc, train_loader, test_loader, work, verbose)

    before = None
    while True:
        network, model_hparams = assemble(vectors, desc.model_hparams)
        before = before or copy.deepcopy(network)
        folder = f"{work}_{model_hparams.model_name}"
        finetune(network, model_hparams, desc, train_loader, test_loader, folder, verbose)
        smaller = simplify(network, train_loader.examples)
        if smaller is None:
            break
        vectors = smaller
    get_platform().move(folder, paths.reconstructed_model(location))
    return Reconstruction(recovered, model_hparams, before, network, paths.reconstructed_model(location), losses, students_file)


def peel(
    students: Students,
    losses: list[float],
    desc: ExtractionDesc,
    train_loader: DataLoader,
    test_loader: DataLoader,
    location: str,
    verbose: bool,
) -> tuple[list[layers.RecoveredLayer], list[torch.Tensor]]:
    """Recovers one hidden layer after the other, and fits the output layer.

    Once a layer is known, its activations are the inputs of fresh, shallower students that imitate the rest of the network. Where a
    neuron's sign is open and matters, they get its activation with either sign, and tell by the one that they use.

    Returns:
        What was recovered of each hidden layer, and the incoming vectors `[width, D]` of all layers, the output layer last.
    """
    symmetry, act_fun = symmetries[students.act_fun], students.activation
    loaders, recovered, vectors = (train_loader, test_loader), [], []
    known = [loader.examples for loader in loaders]  # the inputs of the layer in hand, as far as signs are settled
    while True:
        recovered.append(recover_layer(students, losses, desc, loaders[0], location))
        incoming = recovered[-1].incoming
        if vectors:
            vectors[-1], incoming = layers.settle_signs(vectors[-1], incoming, symmetry)
            known = [act_fun(layers.with_ones(inputs) @ vectors[-1].T) for inputs in known]
        vectors.append(incoming)
        if len(students.fc_layers) == 1:
            break
        inputs = [layers.both_signs(act_fun, symmetry, layers.with_ones(inputs) @ incoming.T) for inputs in known]
        depth = len(vectors) + 1
        students, loaders = train_shallower(students, desc, inputs, (train_loader, test_loader), f"{location}_layer_{depth}", verbose)
        losses = evaluate(students, loaders[0])["individual_losses"]
    vectors[-1], _ = layers.resolve_signs(vectors[-1], act_fun, symmetry, known[0], train_loader.labels)
    outputs = layers.fit_outputs(act_fun(layers.with_ones(known[0]) @ vectors[-1].T), train_loader.labels)
    return recovered, [*vectors, outputs.T]


def train_shallower(
    students: Students,
    desc: ExtractionDesc,
    inputs: list[torch.Tensor],
    loaders: tuple[DataLoader, DataLoader],
    location: str,
    verbose: bool,
) -> tuple[Students, tuple[DataLoader, DataLoader]]:
    """Fresh students with one hidden layer less, trained on the activations of a recovered layer.

    Args:
        students: the ones before.
        desc: the hyperparameters.
        inputs: for training and for test, `[Q, F]` each.
        loaders: with the answers that belong to them.
        location: where they are trained.

    Returns:
        The trained students in float64, and the loaders of what they were trained and tested on, likewise.
    """
    sizes = [inputs[0].shape[1], *students.sizes[2:]]
    name = f"students_mlp({students.networks})_{'_'.join(map(str, sizes))}"
    h, seed = desc.training_hparams, loaders[0].seed
    shallower = models.get(dataclasses.replace(desc.model_hparams, model_name=name), seed=derive(seed, "layers left", len(sizes)))
    datasets = [type(loader.dataset)(part, loader.labels) for part, loader in zip(inputs, loaders, strict=True)]
    quick = [DataLoader(dataset, desc.dataset_hparams.batch_size, seed, getattr(torch, h.precision)) for dataset in datasets]
    standard_train(dataclasses.replace(h, further_training=None), shallower, *quick, location, verbose=verbose, epoch_lines=False)
    exact = tuple(DataLoader(dataset, desc.dataset_hparams.batch_size, seed, torch.float64) for dataset in datasets)
    return shallower.to(exact[0].examples), exact


def recover_layer(
    students: Students, losses: list[float], desc: ExtractionDesc, loader: DataLoader, location: str
) -> layers.RecoveredLayer:
    """The neurons that the students' first hidden layers share; `losses` are theirs on the loader.

    Raises:
        ConfigError: there are none.
    """
    h = desc.extraction_hparams
    layer = students.fc_layers[0]
    incoming = torch.cat([layer.weight.data, layer.bias.data], 1).transpose(1, 2)
    contribution = contributions(students, 1, loader.examples)
    residual = (torch.tensor(losses, dtype=torch.float64) * loader.labels.shape[1]).sqrt()
    recovered = layers.recover(layers.Neurons(incoming.cpu(), contribution.cpu(), residual), symmetries[students.act_fun], h.gamma, h.beta)
    if recovered is None:
        raise ConfigError(
            f"no cluster holds neurons of {h.gamma:.0%} of the {students.networks} students within an angle of pi/{h.beta:g}; the students "
            f"are kept in {os.path.dirname(os.path.dirname(os.path.dirname(location)))}: "
            "train them longer (--further_training), or try another --gamma or --beta"
        )
    return recovered


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


def layer_vectors(network: FullyConnected) -> list[torch.Tensor]:
    """The layers of a network, each `[width, D]` with the bias last."""
    return [torch.cat([layer.weight.data, layer.bias.data[:, None]], 1) for layer in (*network.fc_layers, network.fc)]


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


def simplify(network: FullyConnected, queries: torch.Tensor) -> list[torch.Tensor] | None:
    """The layers of a fitted network without dead neurons and twins, `[width, D]` each; None where it has none."""
    vectors, changed = layer_vectors(network), False
    for depth in range(1, len(vectors)):
        merged = layers.merge(vectors[depth - 1], vectors[depth], contributions(network, depth, queries), symmetries[network.act_fun])
        if merged is not None:
            (vectors[depth - 1], vectors[depth]), changed = merged, True
    return vectors if changed else None


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

    def stop_when_redundant(output_location, step, model, optimizer, logger):
        """Twins make the problem singular, and the approach slow; there is no point in going on with them."""
        if step.iteration and step.iteration % REDUNDANCY_CHECK == 0 and simplify(model, loader.examples) is not None:
            optimizer.spent = True

    redundancy = [stop_when_redundant] if h.finetune_optimizer == "levenberg_marquardt" else []
    standard_train(
        training.training_hparams, network, loader, test_loader, location, more_callbacks=redundancy, verbose=verbose, epoch_lines=False
    )
