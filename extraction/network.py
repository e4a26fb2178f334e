"""A fully connected network, or a stack of them, as a value: the incoming vectors of its layers and its activation function.

Axes: N networks of a stack, K neurons of a layer, D inputs of a layer with the bias last, Q queries.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from extraction.symmetry import Symmetry, symmetries
from foundations.model_hparams import ModelHparams
from models import activation_functions
from models import registry as models
from models.activation_functions import ActivationFunction
from models.mlp import FullyConnected, Perceptron, with_ones
from models.students import Model as Students

PROBES = 1000  # the largest number of queries by which contributions are measured
WIDE_INPUTS, FLAT = 256, 1e-13  # see `fit_outputs_beside`
WIDE = 128  # neurons of a last hidden layer above which there is no pass for each of them


@dataclass(frozen=True)
class Layers:
    """The layers of a network from the first one on; a part of a network has no output layer yet.

    Attributes:
        vectors: incoming weights with the bias last, one tensor for each layer, `[K, D]`, or `[N, K, D]` for a stack.
        act_fun: the name of the activation function of the hidden layers.
    """

    vectors: tuple[torch.Tensor, ...]
    act_fun: str

    @classmethod
    def of(cls, model: Perceptron) -> Layers:
        """The layers of a plain network or of a stack, the output layer last; the values are copies."""
        return cls(tuple(model.layer_vectors()), model.act_fun)

    def __len__(self) -> int:
        """The number of layers."""
        return len(self.vectors)

    @property
    def symmetry(self) -> Symmetry:
        """What the outputs leave open in every hidden neuron."""
        return symmetries[self.act_fun]

    @property
    def activation(self) -> ActivationFunction:
        """The activation function of the hidden layers."""
        return activation_functions.get(self.act_fun)

    @property
    def sizes(self) -> list[int]:
        """The number of inputs, then the width of each layer."""
        return [self.vectors[0].shape[-1] - 1, *(layer.shape[-2] for layer in self.vectors)]

    @property
    def unknowns(self) -> int:
        """The number of weights and biases."""
        return sum(layer.numel() for layer in self.vectors)

    @property
    def all_but_last(self) -> Layers:
        """The layers without the last."""
        return self.replace(*self.vectors[:-1])

    def replace(self, *vectors: torch.Tensor) -> Layers:
        """Other layers with the same activation function."""
        return dataclasses.replace(self, vectors=vectors)

    def followed_by(self, *vectors: torch.Tensor) -> Layers:
        """These layers with further ones behind them."""
        return self.replace(*self.vectors, *vectors)

    def student(self, number: int) -> Layers:
        """One network of a stack."""
        return self.replace(*(layer[number] for layer in self.vectors))

    def activations(self, inputs: torch.Tensor) -> torch.Tensor:
        """The activations of the last layer, which must be a hidden one, for inputs `[Q, D - 1]`: `[Q, K]`."""
        for layer in self.vectors:
            inputs = self.activation(with_ones(inputs) @ layer.T)
        return inputs

    def pre_activations(self, inputs: torch.Tensor) -> torch.Tensor:
        """The weighted sums of the last layer for inputs `[Q, D - 1]`: `[Q, K]`, which are the outputs where it is the output layer."""
        return with_ones(self.replace(*self.vectors[:-1]).activations(inputs)) @ self.vectors[-1].T

    def without_neuron(self, depth: int, neuron: int, following: torch.Tensor) -> Layers:
        """The layers without one neuron of the hidden layer `depth`, counted from 1, and with other vectors of the layer behind it.

        Args:
            depth: the hidden layer, counted from 1.
            neuron: its place in the layer.
            following: the incoming vectors of the layer behind it over the remaining neurons, `[L, K]`.
        """
        layer = self.vectors[depth - 1]
        remaining = torch.cat([layer[:neuron], layer[neuron + 1 :]])
        return self.replace(*self.vectors[: depth - 1], remaining, following, *self.vectors[depth + 1 :])

    def to_network(self, students_hparams: ModelHparams) -> tuple[FullyConnected, ModelHparams]:
        """The plain model with these layers, and its hyperparameters.

        Args:
            students_hparams: the hyperparameters of students, whose family, initialisers and activation function the model takes.
        """
        parsed = Students.parse(students_hparams.model_name)
        assert parsed is not None
        model_hparams = dataclasses.replace(students_hparams, model_name=parsed[0].name_of(self.sizes))
        network = models.get(model_hparams, self.sizes[-1]).to(self.vectors[0])
        assert isinstance(network, FullyConnected)
        network.load_layer_vectors(self.vectors)
        return network, model_hparams

    def to_students(self, students_hparams: ModelHparams, count: int) -> Students:
        """A stack of students with these layers; a layer `[K, D]` is the same in all of them.

        Args:
            students_hparams: the hyperparameters of other students, whose initialisers and activation function the stack takes.
            count: the number of students.
        """
        students = new_students(dataclasses.replace(students_hparams, model_name=stack_name(count, self.sizes)))
        students.load_layer_vectors(self.vectors)
        return students


def unknowns_of(network: torch.nn.Module) -> int:
    """The number of weights and biases of a model; of all networks of a stack."""
    return sum(parameter.numel() for parameter in network.parameters())


def unknowns_of_one(students: torch.nn.Module) -> int:
    """The number of weights and biases of one network of a stack."""
    return sum(parameter[0].numel() for parameter in students.parameters())


def new_students(model_hparams: ModelHparams, outputs: int | None = None, seed: int = 0) -> Students:
    """A stack of students with fresh weights; the arguments are those of `models.registry.get`."""
    students = models.get(model_hparams, outputs, seed)
    assert isinstance(students, Students)
    return students


def stack_name(count: int, sizes: list[int]) -> str:
    """The model name of so many students with these numbers of inputs, hidden neurons and outputs."""
    return f"students_mlp({count})_{'_'.join(map(str, sizes))}"


def least_squares(matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The shortest `x` `[F, O]` that minimises `|matrix x - right|`, for a matrix `[Q, F]` of any rank and a right-hand side `[Q, O]`.

    On the CPU this is a QR decomposition with pivoting (LAPACK's gelsy). CUDA has a solver for full rank only, so that on other devices it
    is a QR decomposition without pivoting, and a singular value decomposition of its small factor, with the same tolerance for the rank.
    """
    if matrix.device.type == "cpu":
        return torch.linalg.lstsq(matrix, right).solution
    orthogonal, triangular = torch.linalg.qr(matrix)
    left, values, directions = torch.linalg.svd(triangular, full_matrices=False)
    tolerance = max(matrix.shape) * torch.finfo(matrix.dtype).eps * values.max()
    inverse = torch.where(values > tolerance, 1 / values, 0.0)
    return directions.T @ (inverse[:, None] * (left.T @ (orthogonal.T @ right)))


def fit_outputs(features: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """The least-squares weights of the features `[Q, F]` and of a constant, `[F + 1, O]`; the shortest where they are not unique."""
    return least_squares(with_ones(features), answers)


def fit_outputs_beside(features: torch.Tensor, inputs: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """The least-squares weights of features `[Q, F]`, inputs `[Q, I]` and a constant, `[F + I + 1, O]`.

    More than WIDE_INPUTS inputs are eliminated by the eigenvalues of their covariance, in a quarter of the time of a decomposition with
    pivoting (10,800 x 784 inputs and 20 features: 0.6 s). Directions in which inputs hardly vary have no weights then: those whose variance
    is below FLAT times the largest.
    """
    if inputs.shape[1] <= WIDE_INPUTS:
        return fit_outputs(torch.cat([features, inputs], 1), answers)
    means = [each.mean(0) for each in (features, inputs, answers)]
    features, inputs, answers = (each - mean for each, mean in zip((features, inputs, answers), means, strict=True))
    values, directions = torch.linalg.eigh(inputs.T @ inputs)
    kept = values > FLAT * values[-1]
    directions = directions[:, kept] / values[kept].sqrt()
    count = features.shape[1]
    shadow = directions.T @ (inputs.T @ torch.cat([features, answers], 1))
    own = torch.cat([features, answers], 1) - inputs @ (directions @ shadow)
    outgoing = least_squares(own[:, :count], own[:, count:])
    linear = directions @ (shadow[:, count:] - shadow[:, :count] @ outgoing)
    return torch.cat([outgoing, linear, (means[2] - means[0] @ outgoing - means[1] @ linear)[None]])


@torch.no_grad()
def contributions(network: Perceptron, depth: int, queries: torch.Tensor) -> torch.Tensor:
    """How much each neuron of a hidden layer matters: the change of the outputs when the neuron is held at its mean.

    Args:
        network: a plain network, or a stack of N students.
        depth: the hidden layer, counted from 1.
        queries: `[Q, inputs]`; PROBES of them are used at most.

    Returns:
        The root mean square length of the change, `[K]` or `[N, K]`.
    """
    probes = some_of(queries)
    activations = network.activations(probes, depth)
    if activations.shape[-1] > WIDE and depth == len(network.fc_layers):
        outgoing = network.layer_vectors()[depth][..., :-1]
        return activations.std(-2, correction=0) * outgoing.norm(dim=-2)
    outputs = network.forward_from(activations, depth)
    changes = []
    for neuron in range(activations.shape[-1]):
        held = activations.clone()
        held[..., neuron] = activations[..., neuron].mean(-1, keepdim=True)
        changes.append((network.forward_from(held, depth) - outputs).square().sum(-1).mean(-1).sqrt())
    return torch.stack(changes, -1)


def some_of(queries: torch.Tensor, most: int = PROBES) -> torch.Tensor:
    """At most so many of some queries, evenly spaced."""
    return queries[:: -(-len(queries) // most)]
