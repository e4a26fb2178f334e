"""Columns of the inputs whose weights the answers leave open, and the judgement of a network without them.

Axes: Q queries, D columns of the user's inputs, C coordinates inside, K neurons of the first layer, P parameters, F open combinations.
"""

from __future__ import annotations

import dataclasses

import torch

from datasets.base import DataLoader, Loaders
from extraction.answers import spreads
from extraction.certificate import certify, error_bars
from extraction.certification.checks import PRECISE, Certificate
from extraction.certification.determination import Determined, in_units
from extraction.certification.uncertainty import quantile_of, relative_errors
from extraction.network import Layers
from extraction.preparation.coordinates import Coordinates
from extraction.preparation.scaling import Scaling
from extraction.search import Reconstruction
from extraction.session import Session, in_float64
from extraction.symmetry import symmetries
from models.mlp import FullyConnected
from training.least_squares import unit_curvature

SHARE = 1e-2  # squared share of a weight in the combinations that are open, from which it takes part; the certificate of the rest decides


def certified(session: Session, result: Reconstruction) -> tuple[Session, Reconstruction, Certificate]:
    """The certificate of a recovered network; where the answers leave only weights from certain columns open, that of the rest.

    A query that alone differs in a column tells only what the weights from that column do together. So the network without these weights,
    examined with the other queries, is determined.

    Returns:
        The extraction and the reconstruction that were examined, without these columns where there are any, and the certificate.
    """
    certificate = certify(session, result)
    rank, unknowns = (next(getattr(check, part) for check in certificate.checks if check.name == "rank") for part in ("value", "limit"))
    if rank is not None and rank < unknowns and certificate.fits:
        rest = without_open_columns(session, result)
        other = certify(*rest) if rest else None
        if rest and other and next(check.met for check in other.checks if check.name == "rank"):
            session, result, certificate = *rest, other
    columns = uncertain_columns(session, result) if certificate.fits and certificate.open else []
    if columns:
        certificate = dataclasses.replace(certificate, open=[f"column {column} of X" for column in columns])
    return session, result, certificate


def uncertain_columns(session: Session, result: Reconstruction) -> list[int]:
    """The columns of the user's inputs whose weights may be off by more than PRECISE; none where other weights may be, or most columns.

    Weights count in units of the columns' standard deviations, as shares of the largest in the layer.
    """
    network, unscaled = result.network, result.unscaled.network
    first, *others = relative_errors(network, error_bars(session, result)[1])
    if any(bool((shares > PRECISE).any()) for shares in (first[:, -1], *others)):
        return []
    own, errors = session.unscaled, error_bars(session.unscaled, result.unscaled)[1]
    spread = own.queries.std(0)
    varying = spread > 0
    sizes = (unscaled.layer_vectors()[0][:, :-1] * spread)[:, varying].abs().max()
    quantile = quantile_of(errors)
    uncertain = (quantile * errors[0][:, :-1] * spread / sizes > PRECISE).any(0) & varying
    return uncertain.nonzero().flatten().tolist() if 2 * int(uncertain.sum()) <= int(varying.sum()) else []


def without_open_columns(session: Session, result: Reconstruction) -> tuple[Session, Reconstruction] | None:
    """An extraction without the columns whose weights the answers leave open; None where there are none, or other weights are open too.

    Answers that an examination leaves out because they cannot test the weights that they tell (`Telling.is_plenty`) tell nothing.
    """
    own, scaling = session.own or session.loaders, session.scaling
    identity = Coordinates.identity(session.answers)
    inputs = scaling.inputs if scaling else Coordinates.identity(session.queries)
    network, loader = in_units(result.network, session.loaders.train, spreads(session.answers))
    determined = Determined.of(network, session.symmetry, loader, session.asked, result.determined)
    columns = open_columns(network, loader.at(determined.places), inputs, own.train.examples.mode(0).values)
    rest = inputs.without(columns, own.train.examples) if columns else None
    if rest is None:
        return None
    scaling = Scaling(rest, scaling.outputs if scaling else identity)
    own = scaling.without_rare_rows(own)
    loaders = Loaders(*(in_float64(each) for each in scaling.apply(own)))
    first, *others = result.network.layer_vectors()
    first = rest.unfold_inputs(inputs.fold_inputs(first))
    layers = Layers((first, *others), session.act_fun)
    session = dataclasses.replace(session, scaling=scaling, own=own, loaders=loaders)
    smaller, model_hparams = layers.to_network(session.students_hparams)
    fit = dataclasses.replace(result.fit, network=smaller, model_hparams=model_hparams)
    return session, dataclasses.replace(result, fit=fit, own=result.unscaled)


def open_columns(network: FullyConnected, loader: DataLoader, inputs: Coordinates, usual: torch.Tensor) -> list[int]:
    """The columns of the user's inputs that all combinations of weights lie in which the answers leave open; none where some lie elsewhere.

    The combinations are the null space of the curvature `J'J`. Biases are those at a usual query: a weight from a column that is 5 in all
    queries but one is open together with the bias at 0, which is no matter of that column's weights. Where neurons can be scaled, the
    largest weight behind each neuron stays as it is.

    Args:
        network: of the coordinates, in float64.
        loader: its queries and answers.
        inputs: the coordinates.
        usual: the most frequent value of each column, `[D]`.
    """
    unit, lengths = unit_curvature(network, loader.examples, loader.labels)
    unit.diagonal()[_scales(network)] += len(unit)
    values, vectors = torch.linalg.eigh(unit)
    combinations = vectors[:, values <= len(unit) * torch.finfo(values.dtype).eps * values.max()] / lengths[:, None]
    weights, biases, others = combinations.tensor_split([(size := network.affine_layers[0].weight.numel()), size + network.sizes[1]])
    weights = weights.unflatten(0, (network.sizes[1], -1))
    biases = biases + torch.einsum("kcf,c->kf", weights, inputs.apply(usual[None])[0])
    weights = torch.einsum("kcf,dc->dkf", weights, inputs.inward)
    rows = torch.cat([weights.flatten(0, 1), biases, others])
    shares = torch.linalg.qr(rows).Q.square().sum(1)
    involved = shares > SHARE
    first = involved[: weights.shape[0] * weights.shape[1]].view(len(weights), -1)
    return [] if involved[first.numel() :].any() else first.any(1).nonzero().flatten().tolist()


def _scales(network: FullyConnected) -> torch.Tensor:
    """The places of the largest weight behind every hidden neuron among the parameters; none where neurons cannot be scaled."""
    places: list[torch.Tensor] = []
    if symmetries[network.act_fun].positive_scaling:
        offset = network.affine_layers[0].weight.numel() + network.affine_layers[0].bias.numel()
        for layer in network.affine_layers[1:]:
            outputs, neurons = layer.weight.shape
            places.append(offset + layer.weight.abs().argmax(0) * neurons + torch.arange(neurons).to(layer.weight.device))
            offset += layer.weight.numel() + outputs
    return torch.cat(places) if places else torch.empty(0, dtype=torch.long)
