"""Fits to probabilities with few digits: in the space of the probabilities, where all have errors of the same size.

An error e of a probability p moves log p by e / p. Least squares over logits would need a weight for each of them, and the mean that is
taken from all logits of a row mixes their errors. Least squares over the probabilities have the right weights by themselves.

Axes: Q queries, O outputs, C coordinates of the outputs, K neurons of the last hidden layer.
"""

from __future__ import annotations

import copy
import dataclasses

import torch

from datasets.base import DataLoader, Loaders
from extraction.answers import Answers, spreads
from extraction.descent import descend, has_settled
from extraction.fitting import SETTLED, SETTLED_STEPS, Fit, stored
from extraction.network import unknowns_of
from extraction.preparation.probabilities import Probabilities, probabilities
from extraction.session import Session
from models.mlp import FullyConnected
from training.second_order import DENSE_PARAMETERS

STEPS = 60


def is_linked(session: Session) -> bool:
    """Whether answers are fitted as probabilities."""
    return session.probability_errors > 0


def as_probabilities(session: Session, networks: list[FullyConnected]) -> tuple[Session, list[Probabilities]]:
    """The session with probabilities for answers, and networks with their link.

    Args:
        session: the extraction.
        networks: give logits.
    """
    outputs, is_softmax = session.scaling and session.scaling.outputs, session.desc.dataset_hparams.link != "sigmoid"
    loaders = []
    for loader in session.loaders:
        answers = probabilities(loader.labels, outputs, is_softmax)
        loaders.append(DataLoader(type(loader.dataset)(loader.examples, answers), loader.batch_size, loader.seed, torch.float64))
    answers = loaders[0].labels
    shares = tuple(session.probability_errors / spread for spread in spreads(answers).tolist())
    known = Answers((session.rows.errors.name if session.rows and session.rows.errors else "",) * answers.shape[1], shares)
    linked = [Probabilities(copy.deepcopy(network), outputs, is_softmax) for network in networks]
    return dataclasses.replace(session, loaders=Loaders(*loaders), precision=known, rows=None, own_rows=None), linked


def fit_probabilities(session: Session, fitted: Fit, location: str) -> Fit:
    """A network after a fit of its probabilities to those of the training answers; the mean of its logits is zero where that is open.

    Args:
        session: the extraction.
        fitted: to the logits.
        location: the folder of the network.
    """
    if unknowns_of(fitted.network) > DENSE_PARAMETERS:
        return fitted
    inside, (model,) = as_probabilities(session, [fitted.network])
    loader = inside.loaders.train
    descend(model, loader.examples, loader.labels, STEPS, has_settled(SETTLED_STEPS, SETTLED))
    shift = model.shift()
    if shift is not None:
        *hidden, last = model.layer_vectors()
        direction, functional = shift
        sums = functional @ last  # of the logits, as vectors over the neurons
        sums[-1] += 0.0 if model.outputs is None else model.outputs.mean.sum()
        model.network.load_layer_vectors([*hidden, last - direction[:, None] * sums / (functional @ direction)])
    return stored(session, dataclasses.replace(fitted, network=model.network), location)
