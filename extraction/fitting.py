"""A network that is nearly right is fitted to the answers, down to the rounding floor.

Axes: K neurons of a layer, D inputs with the bias last, Q queries.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from datasets.base import DataLoader, Loaders
from extraction import descent
from extraction.answers import spreads
from extraction.network import Layers, unknowns_of
from extraction.session import Session, in_float64
from extraction.simplify import removals, simplified
from foundations.errors import ConfigError
from foundations.model_hparams import ModelHparams
from foundations.step import Step
from foundations.training_hparams import TrainingHparams
from models import registry as models
from models.base import Model, to_bytes
from models.mlp import FullyConnected
from platforms.platform import get_platform
from training.desc import TrainingDesc
from training.metric_logger import MetricLogger
from training.optimizers import LEAST_SQUARES
from training.plan import StandardPlan, StopRule
from training.run_records import record
from training.second_order import DENSE_PARAMETERS
from training.train import standard_train

EQUATIONS_PER_UNKNOWN = 20  # in a step of fine-tuning
LARGE_EQUATIONS = 5  # at most, for networks that are solved by conjugate gradients: fewer take more iterations, more make each one dearer
EXACT = 1e-10  # the residual of a network that has found the solution, as a share of the spread of each output
DISPENSABLE = 1e-8  # a neuron of an exact network is in excess without which the next layer loses no more than this share of its spread
REDUNDANCY_CHECK = 4  # steps of fine-tuning between two looks for twins
STALL = 16  # steps of fine-tuning in which the loss should at least halve; with 8, three layers of g with two neurons in excess got stuck
LARGE_STALL = 5  # the same for networks that are solved by conjugate gradients, whose steps are dear
SCARCE_STEPS = "200it"  # of fine-tuning where answers are scarce: after 60, ten neurons on images still halved their loss in ten
OVERSTATED = 5.0  # times smaller than stated are errors that contradict the statement
SETTLED, SETTLED_STEPS = 1e-7, 3  # relative change of the loss over so many steps of a fit to all answers that has come to rest


@dataclass(frozen=True)
class Fit:
    """A fitted network.

    Attributes:
        model_hparams: its hyperparameters.
        before: the network as it was put together.
        network: the network after fine-tuning.
        location: the folder that it is saved in.
    """

    model_hparams: ModelHparams
    before: FullyConnected
    network: FullyConnected
    location: str

    @property
    def neurons(self) -> int:
        """The number of hidden neurons."""
        return sum(self.network.sizes[1:-1])


@dataclass(frozen=True)
class Training:
    """How a network is fitted to the answers.

    Attributes:
        hparams: the hyperparameters of the training.
        location: the folder of the run.
        equations: for each unknown in a batch, None for all queries; the extraction's hyperparameters may give the size of the batch.
        stop_when: the rules that end training early.
    """

    hparams: TrainingHparams
    location: str
    equations: int | None
    stop_when: Sequence[StopRule] = ()


@torch.no_grad()
def relative_loss(network: FullyConnected, loader: DataLoader) -> float:
    """The mean squared error of each output over its variance, averaged over the outputs."""
    return float(_relative_losses(network, loader).mean())


def is_exact(network: FullyConnected, loader: DataLoader) -> bool:
    """Whether a network gives the answers, to rounding, output by output."""
    return float(_relative_losses(network, loader).max()) <= EXACT**2


def gives_answers(session: Session, network: FullyConnected) -> bool:
    """Whether a network gives the training answers as exactly as they are known, output by output."""
    loader = session.loaders.train
    if is_exact(network, loader):
        return True
    errors = _relative_losses(network, loader).sqrt().tolist()
    return all(error <= allowed for error, allowed in zip(errors, session.known.allowed(len(loader.labels)), strict=True))


def overstated(session: Session, network: FullyConnected) -> list[str]:
    """A remark where the errors of a network are far smaller than `--answers` states; else nothing."""
    known = session.known
    if not known.is_given or known.is_exact:
        return []
    errors = _relative_losses(network, session.loaders.train).sqrt().tolist()
    ratio = min(share / max(error, EXACT) for share, error in zip(known.shares, errors, strict=True))
    if ratio < OVERSTATED:
        return []
    times = f"{float(f'{ratio:.1g}'):,.0f} times smaller"
    return [f"the network leaves errors that are {times} than --answers {known.name} states, which contradicts it"]


def information_loss(network: FullyConnected, loader: DataLoader) -> float:
    """The Bayesian information criterion (Schwarz 1978): smaller networks win unless larger ones fit noisy answers much better.

    Each output has errors of its own size.
    """
    count, least = loader.labels.numel(), torch.finfo(torch.float64).tiny
    losses = _relative_losses(network, loader).clamp_min(least)
    return len(loader.labels) * float(losses.log().sum()) + unknowns_of(network) * math.log(count)


def _dispensable(session: Session, network: FullyConnected) -> float:
    """The loss up to which a neuron is in excess in a network that gives the answers.

    A neuron in excess fits errors of the answers. Taking it away costs no more than its k weights are worth by the information criterion:
    `s sqrt(k ln(E) / E)` for E numbers with errors s.
    """
    if is_exact(network, session.loaders.train):
        return DISPENSABLE
    equations, weights = session.answers.numel(), session.queries.shape[1] + 1 + session.answers.shape[1]
    return max(DISPENSABLE, min(session.known.shares) * math.sqrt(weights * math.log(equations) / equations))


@torch.no_grad()
def _relative_losses(network: FullyConnected, loader: DataLoader) -> torch.Tensor:
    """The mean squared error of each output over its variance, `[outputs]`."""
    return ((network(loader.examples) - loader.labels) / spreads(loader.labels)).square().mean(0)


def fit(session: Session, layers: Layers, location: str, equations: int | None = EQUATIONS_PER_UNKNOWN) -> Fit:
    """Fits the network with the given layers to the answers, without the neurons that turn out to be twins, dead or replaceable.

    Args:
        session: the extraction.
        layers: of the network, the output layer last.
        location: the path that the folder of the run begins with; the name of the model is added.
        equations: for each unknown in a step; None for all queries in every step.

    Raises:
        ConfigError: there are fewer answers than unknowns.
    """
    before = None
    while True:
        network, model_hparams = layers.to_network(session.students_hparams)
        answers, unknowns = session.answers.numel(), unknowns_of(network)
        if answers < unknowns:
            raise ConfigError(
                f"{answers} numbers in the answers are too few for the {unknowns} unknowns of {model_hparams.model_name}, the network that "
                "the students share; use more queries (--datagen, --samples)"
            )
        before = before or copy.deepcopy(network)
        folder = f"{location}_{model_hparams.model_name}"
        _fine_tune(session, network, model_hparams, folder, equations)
        smaller = simplified(network, session.queries)
        _check_convergence(session, before, network, smaller)
        if smaller is None and gives_answers(session, network):
            first = next(iter(removals(network, session.queries)), None)
            smaller = first.layers if first is not None and first.loss <= _dispensable(session, network) else None
        if smaller is None:
            fitted = Fit(model_hparams, before, network, folder)
            return fitted if session.output_weights is None else stored(session, fitted, f"{folder}_unweighted")
        layers = smaller


def fit_or_none(session: Session, layers: Layers, location: str, equations: int | None = EQUATIONS_PER_UNKNOWN) -> Fit | None:
    """As `fit`; None where there are fewer answers than unknowns, or where the fit diverges."""
    try:
        return fit(session, layers, location, equations)
    except ConfigError:
        return None


def folded(session: Session, fitted: Fit) -> Fit:
    """A fitted network as one of the user's inputs and outputs, saved in a run folder of its own; the same one without a scaling."""
    scaling, desc = session.scaling, session.desc
    if scaling is None:
        return fitted
    before, _ = scaling.fold(Layers.of(fitted.before)).to_network(desc.model_hparams)
    network, model_hparams = scaling.fold(Layers.of(fitted.network)).to_network(desc.model_hparams)
    return stored(session, Fit(model_hparams, before, network, fitted.location), f"{fitted.location}_folded")


def stored(session: Session, fitted: Fit, location: str) -> Fit:
    """A fit whose network is saved in a run folder of its own, with the metrics of the folder before."""
    desc, logger = session.desc, MetricLogger.load(fitted.location)
    run, (inputs, *_, outputs) = TrainingDesc(desc.dataset_hparams, fitted.model_hparams, _finetune_hparams(session)), fitted.network.sizes
    weights = os.path.basename(models.latest_weights_file(fitted.location))

    def write() -> None:
        record(run, location, session.seed, (inputs, outputs))
        get_platform().write(os.path.join(location, weights), to_bytes(fitted.network.state_dict()))
        logger.save(location)

    get_platform().on_primary(write)
    return dataclasses.replace(fitted, location=location)


def _fine_tune(session: Session, network: FullyConnected, model_hparams: ModelHparams, location: str, equations: int | None) -> None:
    """Takes a network that is nearly right to the rounding floor, in place, in float64."""
    h = session.desc.extraction_hparams
    stall, rests = STALL if unknowns_of(network) <= DENSE_PARAMETERS else LARGE_STALL, descent.has_settled(SETTLED_STEPS, SETTLED)

    def has_twins(step: Step, model: Model, logger: MetricLogger) -> bool:
        """Whether some neurons are twins or dead, which makes the problem singular and convergence slow."""
        due = step.iteration > 0 and step.iteration % REDUNDANCY_CHECK == 0
        return due and simplified(network, session.queries) is not None

    def has_stalled(step: Step, model: Model, logger: MetricLogger) -> bool:
        """Whether the loss no longer halves: a network of the right size falls to the floor in a few steps, others never do."""
        losses = logger.numbers("test_loss")
        before = [loss for iteration, loss in losses if iteration <= step.iteration - stall]
        return bool(before) and losses[-1][1] > before[-1] / 2

    def has_settled(step: Step, model: Model, logger: MetricLogger) -> bool:
        """Whether a fit to all answers has come to rest, at a loss that their errors keep above the rounding floor."""
        return equations is None and rests([loss for _, loss in logger.numbers("test_loss")])

    stop_when = [has_twins, has_stalled, has_settled] if h.finetune_optimizer in LEAST_SQUARES else []
    hparams = _finetune_hparams(session)
    if session.is_scarce and stop_when and h.finetune_training_steps == type(h)().finetune_training_steps:
        hparams = dataclasses.replace(hparams, training_steps=SCARCE_STEPS)
    training, factors = Training(hparams, location, equations, stop_when), session.output_weights
    if factors is None:
        train_network(session, network, model_hparams, training)
        return
    factors = factors.to(session.answers)
    weight_outputs(network, factors)
    loaders = Loaders(*(weighted(loader, factors) for loader in session.loaders))
    train_network(dataclasses.replace(session, loaders=loaders), network, model_hparams, training)
    weight_outputs(network, 1 / factors)


def weight_outputs(network: FullyConnected, factors: torch.Tensor) -> None:
    """Multiplies the outputs of a network by factors `[O]`, in place."""
    *hidden, last = network.layer_vectors()
    network.load_layer_vectors([*hidden, last * factors[:, None]])


def weighted(loader: DataLoader, factors: torch.Tensor) -> DataLoader:
    """The same queries with answers times factors `[O]`, in float64."""
    dataset = type(loader.dataset)(loader.examples, loader.labels * factors)
    return DataLoader(dataset, loader.batch_size, loader.seed, torch.float64)


def _finetune_hparams(session: Session) -> TrainingHparams:
    """The hyperparameters of fine-tuning."""
    h = session.desc.extraction_hparams
    return TrainingHparams(h.finetune_optimizer, h.finetune_lr, h.finetune_training_steps, precision="float64")


def _check_convergence(session: Session, before: FullyConnected, network: FullyConnected, smaller: Layers | None) -> None:
    """Raises a ConfigError if fine-tuning has diverged: the network is worse than before and than a constant, or all its neurons are dead.

    Args:
        session: the extraction.
        before: the network before fine-tuning.
        network: the network after fine-tuning.
        smaller: the layers of the network without dead neurons; None if it has none.
    """
    loss = relative_loss(network, session.loaders.train)
    is_empty = smaller is not None and not all(len(vectors) for vectors in smaller.vectors)
    if is_empty or not loss <= max(1.0, relative_loss(before, session.loaders.train)):
        h = session.desc.extraction_hparams
        raise ConfigError(
            f"--finetune_lr: fine-tuning with {h.finetune_optimizer} at the learning rate {h.finetune_lr:g} has diverged (loss {loss:.1e} "
            "of the variance of the answers); valid: a smaller learning rate, or another --finetune_optimizer"
        )


def train_network(session: Session, network: FullyConnected, model_hparams: ModelHparams, training: Training) -> None:
    """Trains all layers of a network on the answers, in place, as a run of its own.

    Args:
        session: the extraction.
        network: the network.
        model_hparams: its hyperparameters.
        training: how, and where.
    """
    desc = session.desc
    unknowns = unknowns_of(network)
    queries, outputs = session.answers.shape
    equations = training.equations
    if equations is not None and unknowns > DENSE_PARAMETERS:
        equations = min(equations, LARGE_EQUATIONS)
    some = queries if equations is None else -(-equations * unknowns // outputs)
    wanted = desc.extraction_hparams.finetune_batch_size or some
    batch_size = -(-queries // max(1, queries // wanted))
    run = TrainingDesc(dataclasses.replace(desc.dataset_hparams, batch_size=batch_size), model_hparams, training.hparams)
    record(run, training.location, session.seed, (session.queries.shape[1], outputs))
    loaders = Loaders(in_float64(session.loaders.train, batch_size), session.loaders.test)
    session.say(f"Fitting {model_hparams.model_name} to the answers")
    plan = StandardPlan(stop_when=training.stop_when, verbose=session.verbose, epoch_lines=False, has_curves=False)
    standard_train(training.hparams, network, loaders, training.location, plan)
