"""One hidden layer after the other: what students share is a layer, and others that are built on it share the next."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import torch

from datasets import boruta
from datasets.base import DataLoader
from extraction import layer_reconstruction as layers
from extraction.desc import ExtractionDesc
from extraction.finetuning import contributions
from extraction.imitation import Imitation, activations_of, imitate_above, polished, sharpen, train_together
from extraction.symmetry import Symmetry, symmetries
from foundations import paths
from foundations.errors import ConfigError
from models.students import Model as Students

DOUBTFUL = (0.0, 0.5, 1.0)  # clusters added in doubt for each that counts, one after the other while a layer lacks a neuron
LACKING = 100.0  # times the loss of students, at least, what those above a recovered layer have that lacks a neuron


def peel(
    students: Students,
    losses: list[float],
    desc: ExtractionDesc,
    loaders: tuple[DataLoader, DataLoader],
    location: str,
    attempt: str,
    verbose: bool,
) -> tuple[list[layers.RecoveredLayer], list[torch.Tensor], bool]:
    """Recovers one hidden layer after the other, and fits the output layer.

    Once a layer is known, its activations, standardised, are the inputs of fresh, shallower students that imitate the rest of the network:
    as they are, they vary little around a mean that is none of the next layer's business, and the second layer of twelve sigmoid neurons
    was lost altogether. Where a neuron's sign is open and matters, students get what its activation with either sign is made of, and tell
    it by how they put that together.

    Shallower students do about as well as those before, unless the layer below them lacks a neuron: with three layers of ten, on one of
    which nine were found, their loss was some thousands of times as large, else 80 times at most. The doubtful clusters then join that
    layer, half as many as count and at last as many, which found the tenth neuron of g in the second of three layers, and six in excess.

    Args:
        students: trained.
        losses: theirs, on the queries.
        desc: the hyperparameters.
        loaders: the queries and answers for training, and others for test.
        location: what the folders of shallower students begin with.
        attempt: "generous" takes doubtful clusters as well, and settles signs that matter before the next layer is looked for; "sharpened"
            improves on recovered layers before the next, too.
        verbose: whether to show how training goes.

    Returns:
        What was recovered of each hidden layer, the incoming vectors `[width, D]` of all layers, the output layer last, and whether there
        may be neurons in excess.

    Raises:
        ConfigError: the students share too little.
    """
    symmetry, act_fun, queries = symmetries[students.act_fun], students.activation, loaders[0].examples
    here = Imitation(students, losses, loaders, (torch.zeros_like(queries[0]), torch.ones_like(queries[0])), location)
    recovered, below, depth, surplus = [], [], len(students.fc_layers), attempt != ""
    for _ in range(1, depth):
        shares = DOUBTFUL[1 if attempt and below else 0 :]  # the first of several layers is the easiest
        layer, vectors, above, doubtful = recover_until_imitated(here, below, desc, loaders, shares, verbose)
        if symmetry.slope != 0 and attempt:
            vectors, above = with_settled_signs(vectors, here, above, desc, loaders, verbose)
        if symmetry.slope == 0 or attempt:
            vectors, above = train_together(vectors, above, desc, loaders, verbose)
        above = polished(above, desc.training_hparams, paths.polish(above.location, "model"), verbose)
        if attempt == "sharpened":
            vectors, above = sharpen(vectors, above, desc, loaders, verbose)
        recovered, below, here, surplus = [*recovered, layer], vectors, above, surplus or doubtful > 0
    recovered.append(recover_layer(here, desc, not below, DOUBTFUL[1] if attempt else 0.0))
    *below, last = stacked(below, recovered[-1].incoming, here.scale, symmetry)
    known = activations_of(queries, below, act_fun)
    last, _ = layers.resolve_signs(last, act_fun, symmetry, known, loaders[0].labels)
    outputs = layers.fit_outputs(activations_of(known, [last], act_fun), loaders[0].labels)
    return recovered, [*below, last, outputs.T], surplus


def recover_until_imitated(
    here: Imitation,
    below: list[torch.Tensor],
    desc: ExtractionDesc,
    loaders: tuple[DataLoader, DataLoader],
    shares: Sequence[float],
    verbose: bool,
) -> tuple[layers.RecoveredLayer, list[torch.Tensor], Imitation, float]:
    """The next hidden layer, with ever more clusters in doubt until students above it do about as well as those before.

    Args:
        here: the students before.
        below: the recovered layers, `[width, D]` each.
        desc: the hyperparameters.
        loaders: the queries and answers for training, and others for test.
        shares: of clusters in doubt, for each that counts, to try in turn.
        verbose: whether to show how it goes.

    Returns:
        The layer, the vectors of all layers up to it, the students above it, and the last share that was tried.

    Raises:
        ConfigError: the students share too little.
    """
    number, layer = len(below) + 1, None
    for doubtful in shares:
        found = recover_layer(here, desc, not below, doubtful)
        if layer is not None and len(found.incoming) == len(layer.incoming):
            break  # nothing else is in doubt
        layer = found
        vectors = stacked(below, layer.incoming, here.scale, symmetries[here.students.act_fun])
        folder = f"{here.location}_layer_{number + 1}{f'_doubtful_{doubtful:g}' if doubtful else ''}"
        above = imitate_above(vectors, here.students, desc, loaders, folder, verbose)
        if above.least <= LACKING * here.least:
            break
        if verbose and doubtful < shares[-1]:
            print(f"Hidden layer {number} seems to lack a neuron: adding those that were in doubt", flush=True)
    return layer, vectors, above, doubtful


def with_settled_signs(
    vectors: list[torch.Tensor],
    here: Imitation,
    above: Imitation,
    desc: ExtractionDesc,
    loaders: tuple[DataLoader, DataLoader],
    verbose: bool,
) -> tuple[list[torch.Tensor], Imitation]:
    """Recovered layers with the signs of the last as the students above it show them, and other students on its activations with these.

    They have half as many inputs, which are a layer of a network now, and can be trained with it. With softplus and three layers of ten,
    one of which had nine of its neurons and two others, that made the first layer more exact, and the second had all ten.

    Args:
        vectors: of the recovered layers, `[width, D]`.
        here: the students before.
        above: students that were trained while the signs were open.
        desc: the hyperparameters.
        loaders: the queries and answers for training, and others for test.
        verbose: whether to show how training goes.

    Raises:
        ConfigError: the students share too little.
    """
    following = recover_layer(above, desc, False, 0.0).incoming
    *vectors, _ = stacked(vectors, following, above.scale, symmetries[here.students.act_fun])
    return vectors, imitate_above(vectors, here.students, desc, loaders, f"{above.location}_settled", verbose, settled=True)


def stacked(
    below: list[torch.Tensor], incoming: torch.Tensor, scale: tuple[torch.Tensor, torch.Tensor], symmetry: Symmetry
) -> list[torch.Tensor]:
    """Recovered layers with one more, `[width, D]` each, whose inputs were standardised; it settles the signs of the layer below it."""
    incoming = layers.unstandardised(incoming, *scale)
    if not below:
        return [incoming]
    settled, incoming = layers.settle_signs(below[-1], incoming, scale[1], symmetry)
    return [*below[:-1], settled, incoming]


def recover_layer(imitation: Imitation, desc: ExtractionDesc, first: bool, doubtful: float) -> layers.RecoveredLayer:
    """The neurons that the students' first hidden layers share; `first` says whether it is the network's first as well.

    Raises:
        ConfigError: there are none, or the students have diverged.
    """
    h, students, location = desc.extraction_hparams, imitation.students, imitation.location
    if sum(map(math.isfinite, imitation.losses)) < 2:
        raise ConfigError(f"fewer than two of the {students.networks} students have a finite loss; try a smaller --lr")
    incoming, loader = students.layer_vectors()[0], imitation.asked[0]
    contribution = contributions(students, 1, loader.examples)
    residual = (torch.tensor(imitation.losses, dtype=torch.float64) * loader.labels.shape[1]).sqrt()
    neurons = layers.Neurons(incoming.cpu(), contribution.cpu(), residual)
    informative = boruta.mask(h.boruta) if h.boruta and first else None
    recovered = layers.recover(neurons, symmetries[students.act_fun], h.gamma, h.beta, h.linkage, informative, doubtful)
    if recovered is None:
        raise ConfigError(
            f"no cluster holds neurons of {h.gamma:.0%} of the {students.networks} students within an angle of pi/{h.beta:g}; the students "
            f"are kept in {os.path.dirname(os.path.dirname(os.path.dirname(location)))}: "
            "train them longer (--further_training), or try another --gamma or --beta"
        )
    return recovered
