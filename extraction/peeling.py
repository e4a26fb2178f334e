"""Recovery of one hidden layer after the other, from students of what is above the layers that are known.

Axes: K neurons of a layer, D inputs with the bias last, Q queries.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from datasets import boruta
from extraction.linear import between
from extraction.linear import settled as settled_last
from extraction.network import Layers, contributions, fit_outputs
from extraction.recovery import Neurons, RecoveredLayer, recover
from extraction.reporting.diagnosis import advice
from extraction.reporting.facts import of_students
from extraction.session import Session
from extraction.signs import settle_signs, sign_invariant_features
from extraction.students import Imitation, Standardisation, imitate_above, individual_losses, polished, sharpen, train_together
from foundations import paths
from foundations.errors import ConfigError
from models.mlp import with_ones
from models.students import Model as Students

LACKING = 100.0  # a layer lacks a neuron where students above it have more than this many times the loss of those before


@dataclass(frozen=True)
class Attempt:
    """One way to search.

    Attributes:
        name: a part of the names of its folders; empty for the first attempt.
        message: what is printed when it begins.
        doubtful: the numbers of doubtful clusters, for each cluster that counts, to try in turn while a layer lacks a neuron.
        settles_signs: whether signs that matter are settled, and the layer is trained further, before the next layer is recovered.
        sharpens: whether recovered layers are fitted to the answers before the next layer is recovered.
        grows: whether a network that is nearly complete grows the neurons that it lacks before the next attempt.
    """

    name: str = ""
    message: str = ""
    doubtful: tuple[float, ...] = (0.0, 0.5, 1.0)
    settles_signs: bool = False
    sharpens: bool = False
    grows: bool = False

    @property
    def is_generous(self) -> bool:
        """Whether doubtful clusters are added from the start."""
        return self.doubtful[0] > 0

    def shares(self, is_first: bool) -> Sequence[float]:
        """The numbers of doubtful clusters to try for a layer.

        The first of several layers is the easiest, and is always tried without doubtful clusters first.
        """
        return (0.0, *self.doubtful) if is_first and self.is_generous else self.doubtful

    def suits(self, students: Students, session: Session) -> bool:
        """Whether the attempt differs from the attempts before it for such students."""
        return not self.sharpens or (len(students.fc_layers) > 1 and session.symmetry.slope == 0)


@dataclass(frozen=True)
class Peeled:
    """The layers of a network before they are fitted to the answers as a whole.

    Attributes:
        recovered: what was recovered of each hidden layer.
        layers: the layers, the output layer last.
        may_have_excess: whether there may be neurons in excess.
    """

    recovered: list[RecoveredLayer]
    layers: Layers
    may_have_excess: bool


def peel(session: Session, start: Imitation, attempt: Attempt) -> Peeled:
    """Recovers one hidden layer after the other, and fits the output layer.

    Once a layer is known, its standardised activations are the inputs of fresh, shallower students that imitate the rest of the network.
    Without standardisation they vary little around a mean that has nothing to do with the next layer, and the second layer of twelve
    sigmoid neurons was lost. Where a neuron's sign is open and matters, students get the sign-invariant features of its activation, and
    show by their weights over them which sign is right.

    Shallower students reach about the loss of the students before, unless the layer below them lacks a neuron. With three layers of ten
    neurons, one of them with nine recovered, their loss was thousands of times as large; with complete layers it was 80 times as large at
    most. Doubtful clusters are then added to that layer: half as many as count, and at last as many. This recovered the tenth neuron of g
    in the second of three layers, with six neurons in excess.

    Args:
        session: the extraction.
        start: the students of the whole network.
        attempt: the way to search.

    Raises:
        ConfigError: the students share too little.
    """
    here, below, recovered = start, Layers((), session.act_fun), []
    may_have_excess, settled = attempt.is_generous, session.symmetry.slope == 0
    for _ in range(1, len(start.students.fc_layers)):
        step = recover_until_imitated(session, here, below, attempt)
        layers, above = step.layers, step.above
        if not settled and attempt.settles_signs:
            layers, above = with_settled_signs(session, layers, here, above)
        if settled or attempt.settles_signs:
            layers, above = train_together(session, layers, above)
        above = polished(session, above, session.desc.training_hparams, paths.polish(above.location, "model"))
        if attempt.sharpens:
            layers, above = sharpen(session, layers, above)
        recovered.append(step.recovered)
        may_have_excess = may_have_excess or step.doubtful > 0
        here, below = above, layers
    recovered.append(recover_layer(session, here, len(below) == 0, attempt.doubtful[0]))
    layers = stacked(session, below, recovered[-1].incoming, here.scale)
    inputs = layers.all_but_last.activations(session.queries)
    last = settled_last(layers.vectors[-1], session.act_fun, inputs, session.answers, session.seed)
    layers = layers.all_but_last.followed_by(last)
    outputs = fit_outputs(layers.replace(last).activations(inputs), session.answers)
    return Peeled(recovered, layers.followed_by(outputs.T), may_have_excess)


@dataclass(frozen=True)
class NextLayer:
    """One hidden layer more.

    Attributes:
        recovered: the neurons that the students share.
        layers: the recovered layers up to this one.
        above: students of what is above them.
        doubtful: the number of doubtful clusters, for each that counts, that were added.
    """

    recovered: RecoveredLayer
    layers: Layers
    above: Imitation
    doubtful: float


def recover_until_imitated(session: Session, here: Imitation, below: Layers, attempt: Attempt) -> NextLayer:
    """The next hidden layer, with more and more doubtful clusters until students above it reach about the loss of those before.

    Args:
        session: the extraction.
        here: the students before.
        below: the recovered layers.
        attempt: the way to search.

    Raises:
        ConfigError: the students share too little.
    """
    step, shares = None, attempt.shares(is_first=len(below) == 0)
    for doubtful in shares:
        recovered = recover_layer(session, here, len(below) == 0, doubtful)
        if step is not None and len(recovered.incoming) == len(step.recovered.incoming):
            return dataclasses.replace(step, doubtful=doubtful)  # there are no more doubtful clusters
        layers = stacked(session, below, recovered.incoming, here.scale)
        location = f"{here.location}_layer_{len(layers) + 1}{f'_doubtful_{doubtful:g}' if doubtful else ''}"
        step = NextLayer(recovered, layers, imitate_above(session, layers, here.students, location), doubtful)
        if step.above.best_loss <= LACKING * here.best_loss:
            break
        if doubtful < shares[-1]:
            session.say(f"Hidden layer {len(layers)} may lack a neuron: adding doubtful clusters")
    assert step is not None
    return step


def with_settled_signs(session: Session, layers: Layers, here: Imitation, above: Imitation) -> tuple[Layers, Imitation]:
    """Recovered layers with the signs that the students above them indicate, and new students on the activations with these signs.

    The new students have half as many inputs, and the recovered layers can be trained together with them. With softplus and three layers of
    ten, one of which had nine of its neurons and two others, this made the first layer more exact, and the second layer had all ten
    neurons.

    Args:
        session: the extraction.
        layers: the recovered layers.
        here: the students before.
        above: students that were trained while the signs were open.

    Raises:
        ConfigError: the students share too little.
    """
    following = recover_layer(session, above, False, 0.0).incoming
    layers = stacked(session, layers, following, above.scale).all_but_last
    return layers, imitate_above(session, layers, here.students, f"{above.location}_settled", settled=True)


def stacked(session: Session, below: Layers, incoming: torch.Tensor, scale: Standardisation) -> Layers:
    """Recovered layers with one more layer on top, which also settles the signs of the layer below it, and its units that never switch.

    Args:
        session: the extraction.
        below: the recovered layers.
        incoming: of the next layer, over standardised inputs, `[K, D]`.
        scale: the standardisation of its inputs.
    """
    incoming = scale.undo(incoming)
    if not below.vectors:
        return below.followed_by(incoming)
    settled, following = settle_signs(below.vectors[-1], incoming, scale.spread, below.symmetry)
    if len(incoming[0]) > len(settled) + 1:
        features = sign_invariant_features(below.act_fun, below.pre_activations(session.queries))
        inputs, sums = below.all_but_last.activations(session.queries), with_ones(features) @ incoming.T
        changed = between(settled, below.act_fun, inputs, sums, session.seed)
        if changed is not None:
            settled, following = changed, fit_outputs(below.replace(changed).activations(inputs), sums).T
    return below.all_but_last.followed_by(settled, following)


def recover_layer(session: Session, imitation: Imitation, is_first: bool, doubtful: float) -> RecoveredLayer:
    """The neurons that the first hidden layers of the students share.

    Args:
        session: the extraction.
        imitation: the students.
        is_first: whether that layer is the first of the network as well.
        doubtful: the number of doubtful clusters that are added, for each cluster that counts.

    Raises:
        ConfigError: there are none, or the students have diverged or collapsed to constants.
    """
    h, students, loader = session.desc.extraction_hparams, imitation.students, imitation.loaders.train
    if sum(map(math.isfinite, imitation.losses)) < 2:
        raise ConfigError(f"fewer than two of the {students.networks} students have a finite loss; try a smaller --lr")
    contribution = contributions(students, 1, loader.examples)
    losses = torch.tensor(imitation.losses, dtype=torch.float64, device=contribution.device)
    residual = (losses * loader.labels.shape[1]).sqrt()
    neurons = Neurons(imitation.layers.vectors[0], contribution, residual)
    informative = boruta.mask(h.boruta).to(contribution.device) if h.boruta and is_first else None
    if informative is not None and session.scaling is not None:
        informative = session.scaling.inputs.selected(informative)
    recovered = recover(neurons, session.symmetry, session.criteria(doubtful), informative)
    if recovered is None:
        facts = of_students(session, imitation.losses, individual_losses(students, imitation.loaders.test))
        raise ConfigError(
            f"no cluster contains neurons of {h.gamma:.0%} of the {students.networks} students within an angle of pi/{h.beta:g}; "
            f"the students are in {session.students_location}. {' '.join(map(str, advice(facts)))}"
        )
    if not recovered.incoming.isfinite().all():
        raise ConfigError(f"neurons of the {students.networks} students contribute nothing to their outputs; try a smaller --lr")
    return recovered
