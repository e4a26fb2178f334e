"""Students: of the whole network, and of the part of it that is above recovered layers.

Axes: N students, K neurons of a layer, D inputs of a layer with the bias last, Q queries.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from datasets.base import DataLoader, Loaders
from extraction.fitting import EXACT, Training, train_network
from extraction.network import Layers, new_students, stack_name, unknowns_of_one
from extraction.session import Session, float64_training, in_float64
from extraction.signs import sign_invariant_features
from foundations import paths
from foundations.seeds import derive
from foundations.step import Step
from foundations.training_hparams import TrainingHparams
from models import registry as models
from models.base import Model
from models.students import Model as Students
from training.evaluation import evaluate
from training.metric_logger import MetricLogger
from training.plan import StandardPlan
from training.second_order import DENSE_PARAMETERS
from training.train import standard_train

POLISH_EQUATIONS = 5  # for each unknown of a student, in a step of Levenberg-Marquardt
POLISH_QUERIES = 200  # at least
EXACT_STUDENTS = 2  # students at the solution, which agree, before polishing stops early
SWARM = 50  # so many students are a swarm of narrow ones, of which one at the solution is enough
SWARM_QUERIES = 400  # at least, for a swarm, whose steps cost little
EXACTNESS_CHECK = 5  # steps of polishing between two looks for such students
SHARPENING_STEPS = "30it"
SMALL, SMALL_STEPS = 2000, "10000it"  # unknowns of a deep student up to which its training on the answers of a file is that short
BRIEF, BRIEF_STEPS = 2500, "4000it"  # unknowns of a deep student up to which steps of Levenberg-Marquardt are cheap, and its training then
PENALTY, PENALISED = 0.5, {"training_steps": "3000it", "lr": 0.01}  # of large students where answers are scarce, and their training
SCARCE_START, SCARCE_STEPS = "1it", "15it"  # of training and of Levenberg-Marquardt, where answers are scarce
FASTER = 2.0  # the learning rate of shallower students, as a multiple of that of the students before
TOGETHER_RATE, TOGETHER_SHARE = 0.3, 0.1  # learning rate and steps with the recovered layers, as multiples of those of the students


@dataclass(frozen=True)
class Standardisation:
    """The mean and the standard deviation of each input of a layer, `[D - 1]` each."""

    mean: torch.Tensor
    spread: torch.Tensor

    @classmethod
    def of(cls, inputs: torch.Tensor) -> Standardisation:
        """That of some inputs `[Q, D - 1]`; the spread of a constant input is 1."""
        spread = inputs.std(0)
        return cls(inputs.mean(0), torch.where(spread > 0, spread, 1.0))

    @classmethod
    def identity(cls, inputs: torch.Tensor) -> Standardisation:
        """The one that leaves inputs `[Q, D - 1]` as they are."""
        return cls(torch.zeros_like(inputs[0]), torch.ones_like(inputs[0]))

    def apply(self, inputs: torch.Tensor) -> torch.Tensor:
        """Standardised inputs `[Q, D - 1]`."""
        return (inputs - self.mean) / self.spread

    def undo(self, incoming: torch.Tensor) -> torch.Tensor:
        """Incoming vectors `[..., D]` over standardised inputs as vectors over the inputs themselves."""
        weights = incoming[..., :-1] / self.spread
        return torch.cat([weights, (incoming[..., -1] - weights @ self.mean)[..., None]], -1)

    def redo(self, incoming: torch.Tensor) -> torch.Tensor:
        """Incoming vectors `[..., D]` over inputs as vectors over the standardised inputs: the inverse of `undo`."""
        weights = incoming[..., :-1]
        return torch.cat([weights * self.spread, (incoming[..., -1] + weights @ self.mean)[..., None]], -1)


@dataclass(frozen=True)
class Imitation:
    """Students of the layers that are not recovered yet.

    Attributes:
        students: trained.
        losses: the loss of each student on the queries.
        loaders: the inputs and answers that they were trained and tested on, in float64.
        scale: the standardisation of the activations below, which are their inputs.
        location: the path that the folders of the next, shallower students begin with.
    """

    students: Students
    losses: list[float]
    loaders: Loaders
    scale: Standardisation
    location: str

    @property
    def best(self) -> int:
        """The number of the student with the smallest loss; a loss that has diverged does not count."""
        return min(range(len(self.losses)), key=lambda place: self.losses[place] if math.isfinite(self.losses[place]) else math.inf)

    @property
    def best_loss(self) -> float:
        """The loss of the best student."""
        return self.losses[self.best]

    @property
    def layers(self) -> Layers:
        """The layers of the students as a stack."""
        return Layers.of(self.students)

    def evaluated(self) -> Imitation:
        """The same students with the losses that they have now."""
        return dataclasses.replace(self, losses=individual_losses(self.students.double(), self.loaders.train))


def individual_losses(students: Model, loader: DataLoader) -> list[float]:
    """The loss of each student of a stack on all examples of a loader, in the number format of the students."""
    losses = evaluate(students, loader)["individual_losses"]
    assert isinstance(losses, list)
    return losses


def students_training(session: Session) -> TrainingHparams:
    """The training of students: that of the hyperparameters, but shorter for small, deep students of answers that are given.

    The default of 20,000 steps is made for images of 64 pixels, of which students have 4,000 unknowns. Students 6-60-9-2 (1,000 unknowns)
    of a network 6-20-3-2 need less: with 10,000 steps it was recovered as exactly, in half of the time.
    """
    hparams = session.desc.training_hparams
    students = models.meta_model(session.students_hparams, session.answers.shape[1])
    is_small = unknowns_of_one(students) <= SMALL
    is_short = session.rows is not None and _is_default(session, hparams) and hparams.centred and is_small  # deep students are centred
    return dataclasses.replace(hparams, training_steps=SMALL_STEPS) if is_short else hparams


def _is_default(session: Session, hparams: TrainingHparams) -> bool:
    """Whether a training of students is that which their name says."""
    return hparams == type(session.desc).default_for(session.desc.model_hparams.model_name).training_hparams


def is_brief(session: Session) -> bool:
    """Whether students are first trained for a short time only, because Levenberg-Marquardt takes deep, small ones to exact answers.

    Students of units with kinks stall: 64-16-16-16-10 relu at 5e-4 of the variance, leaky_relu at 3e-6.
    """
    if session.symmetry.positive_scaling:
        return False
    students = models.meta_model(session.students_hparams, session.answers.shape[1])
    assert isinstance(students, Students)
    is_deep_and_small = len(students.fc_layers) > 1 and unknowns_of_one(students) <= BRIEF
    return is_deep_and_small and _is_default(session, session.desc.training_hparams) and session.known.is_exact


def train_longer(session: Session, start: Imitation, location: str) -> Imitation:
    """Students that were trained in full, where a short training has not led to the solution; else those that there are.

    Args:
        session: the extraction.
        start: the students of the whole network.
        location: the folder that they are trained in.
    """
    if not is_brief(session):
        return start
    session.say("None of the students comes to the solution: training them longer")
    students = new_students(session.students_hparams, session.answers.shape[1], session.seed)
    train_quickly(session, students, session.loaders, location, {})
    return dataclasses.replace(start, students=students.double()).evaluated()


def train_students(session: Session, loaders: Loaders, plan: StandardPlan) -> Students:
    """Trains the students of the whole network, or finds them trained, and polishes them where that is asked for.

    Where answers are scarce, but enough for narrower students, Levenberg-Marquardt with a penalty on the weights (`Session.penalised`)
    takes the place of the default training, and follows any other. On the images of scikit-learn's digits (1,596 queries, three outputs),
    15 such steps took a student of 15 neurons from its first weights to a loss of 7e-6 of the variance (held out 2e-5); 30 steps without
    the penalty to 4e-5 (1e-4). From the weights after the default training (16 neurons, loss 1e-4), 15 steps led to 2e-5 (7e-5).
    Steps of Levenberg-Marquardt are dear for students of more than DENSE_PARAMETERS: one of four students of 784-27-10 took longer than 500
    steps of Adam. These have the same penalty, half of the loss, and a shorter default training. Of 64 neurons of 784-64-10 tanh (10,800
    queries, 2.1 numbers for each weight of the teacher), two students of 80 neurons then had all within 1,500 steps and 8 s, with
    correlations above 0.999 for 58, a loss of 1e-4 of the variance, held out 7e-4; gelu and relu alike. With a penalty of 0.1 they had
    none: 4e-2, held out 0.26. With one of 0.9 their weights vanished.

    Args:
        session: the extraction.
        loaders: the queries and answers in the batches, the order and the number format of the students' training.
        plan: of their training, see `training.train.standard_train`.
    """
    location, hparams = session.students_location, students_training(session)
    students = new_students(session.students_hparams, session.answers.shape[1], session.seed)
    is_small = unknowns_of_one(students) <= DENSE_PARAMETERS
    if session.is_scarce and is_small and hparams.polish_optimizer is None:
        start = SCARCE_START if _is_default(session, hparams) else hparams.training_steps
        polishing = {"polish_optimizer": "levenberg_marquardt", "polish_steps": SCARCE_STEPS}
        hparams = dataclasses.replace(hparams, training_steps=start, **polishing)
    if session.is_penalised:
        students.ridge = PENALTY
        session.say("The answers are few for such large students: training them with a penalty on their weights")
        if _is_default(session, hparams):
            hparams = dataclasses.replace(hparams, **PENALISED)
    if is_brief(session):
        hparams = dataclasses.replace(hparams, training_steps=BRIEF_STEPS)
    elif hparams.training_steps == SMALL_STEPS != session.desc.training_hparams.training_steps:
        session.say(f"Students are small: training them for {SMALL_STEPS} instead of {session.desc.training_hparams.training_steps}")
    standard_train(hparams, students, loaders, location, plan)
    students.ridge = 0.0
    weights = os.path.basename(models.latest_weights_file(location)).removesuffix(".pth")
    polish(session, students, loaders, hparams, paths.polish(location, weights))
    return students


def polish(session: Session, students: Students, loaders: Loaders, hparams: TrainingHparams, location: str) -> None:
    """Takes trained students towards their solutions with a second-order optimizer in float64, in place, where that is asked for.

    Every step sees the same queries: all, or for Levenberg-Marquardt, whose cost grows with them, a few for each unknown.

    Args:
        session: the extraction.
        students: trained.
        loaders: the queries and answers that they are trained and tested on.
        hparams: of their training, which say whether and how long to polish.
        location: the folder of the polishing.
    """
    if hparams.polish_optimizer is None:
        return
    data, seed = loaders.train.dataset, loaders.train.seed
    count, is_swarm = len(data), students.networks >= SWARM
    if hparams.polish_optimizer == "levenberg_marquardt":
        unknowns = unknowns_of_one(students)
        count = min(count, max(SWARM_QUERIES if is_swarm else POLISH_QUERIES, -(-POLISH_EQUATIONS * unknowns // data.labels.shape[1])))
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(derive(seed, "polish")))[:count]
    loader = DataLoader(type(data)(data.examples[chosen], data.labels[chosen]), count, seed, torch.float64)
    exact_loss = float(EXACT**2 * loader.labels.var(0).mean())

    def are_exact(step: Step, model: Model, logger: MetricLogger) -> bool:
        """Whether enough students are at the solution; more of them prove no more."""
        if step.iteration % EXACTNESS_CHECK:
            return False
        return sum(loss <= exact_loss for loss in individual_losses(model, loader)) >= (1 if is_swarm else EXACT_STUDENTS)

    session.say("Polishing the students")
    plan = StandardPlan(stop_when=[are_exact], verbose=session.verbose, epoch_lines=False, has_curves=False)
    polishing = session.penalised(float64_training(hparams.polish_optimizer, hparams.polish_steps))
    standard_train(polishing, students, Loaders(loader, in_float64(loaders.test)), location, plan)


def polished(session: Session, above: Imitation, hparams: TrainingHparams, location: str) -> Imitation:
    """Students after they were polished in place, where `hparams` ask for it; arguments are those of `polish`."""
    if hparams.polish_optimizer is None:
        return above
    polish(session, above.students, above.loaders, hparams, location)
    return above.evaluated()


def imitate_above(session: Session, layers: Layers, before: Students, location: str, settled: bool = False) -> Imitation:
    """Trains fresh students with one hidden layer less on the activations of recovered layers.

    Their problem is easier than that of the students before, and they take twice the learning rate: of the second of three layers of g they
    then had all ten neurons and one in excess, rather than seven in excess and one missing, and sigmoid students a third of the loss. With
    five times the rate some students of g diverged.

    Args:
        session: the extraction.
        layers: the recovered layers.
        before: the students before.
        location: the folder that they are trained in.
        settled: whether the signs of the last of these layers are known.
    """
    loaders, scale = standardised(session, layers, settled)
    sizes = [loaders.train.examples.shape[1], *before.sizes[2:]]
    name = stack_name(before.networks, sizes)
    hparams = dataclasses.replace(session.students_hparams, model_name=name)
    students = new_students(hparams, seed=derive(session.seed, "layers left", len(sizes)))
    session.say(f"Training students of the layers above the recovered ones: {name}")
    train_quickly(session, students, loaders, location, {"lr": FASTER * session.desc.training_hparams.lr})
    return Imitation(students.double(), [], loaders, scale, location).evaluated()


def train_together(session: Session, layers: Layers, above: Imitation) -> tuple[Layers, Imitation]:
    """Recovered layers, and the students above them, after they were trained together for a while.

    A recovered layer is as exact as students could be that were too wide in that layer, and what is built on it can be no better: students
    on the first of three layers of ten tanh neurons came to a loss of 1e-3, however long they were trained. Of the right width it becomes
    exact as fast as the students above learn, which then came to 2e-6 (sigmoid 2e-4 to 9e-6, g 3e-4 to 7e-5). The layers of the best of
    these networks are kept. Signs that matter have to be settled before: with open ones, a recovered layer is no layer of a network yet.

    Args:
        session: the extraction.
        layers: the recovered layers.
        above: students that were trained on their activations.
    """
    students, training = above.students, students_training(session)
    first, *rest = above.layers.vectors
    depth = len(layers)
    expanded = (layer.expand(students.networks, -1, -1) for layer in layers.vectors)
    together = layers.replace(*expanded, above.scale.undo(first), *rest)
    whole = together.to_students(session.students_hparams, students.networks)
    steps = math.ceil(TOGETHER_SHARE * Step.from_str(training.training_steps, len(above.loaders.train)).iteration)
    session.say(f"Training the recovered layers and the students above them: {stack_name(students.networks, together.sizes)}")
    changes = {"lr": TOGETHER_RATE * training.lr, "training_steps": f"{steps}it"}
    train_quickly(session, whole, session.loaders, f"{above.location}_together", changes)
    trained = Imitation(whole.double(), [], session.loaders, above.scale, above.location).evaluated()
    stack = trained.layers
    layers = layers.replace(*stack.student(trained.best).vectors[:depth])
    loaders, scale = standardised(session, layers, settled=True)
    first, *rest = stack.vectors[depth:]
    students.load_layer_vectors([scale.redo(first), *rest])
    return layers, Imitation(students, [], loaders, scale, above.location).evaluated()


def sharpen(session: Session, layers: Layers, above: Imitation) -> tuple[Layers, Imitation]:
    """Recovered layers, after they were fitted to the answers together with the best student above them, and the students after that.

    Students above a layer can be no better than that layer. The recovered layers with a student on top are a network that is too wide above
    and just right below. Fitting all of it by Levenberg-Marquardt makes the layers below exact long before those above settle: 1 - |cos| of
    2e-4 became 4e-10 in 35 steps for the first of two layers of twelve sigmoid neurons. Where signs matter and are open, the last of the
    layers would be there in both signs, with so much freedom that this makes it worse.

    Args:
        session: the extraction.
        layers: the recovered layers.
        above: students that were trained on their activations.
    """
    first, *rest = above.layers.student(above.best).vectors
    network, model_hparams = layers.followed_by(above.scale.undo(first), *rest).to_network(session.students_hparams)
    location = f"{above.location}_sharpened"
    hparams = float64_training("levenberg_marquardt", SHARPENING_STEPS)
    train_network(session, network, model_hparams, Training(hparams, location, POLISH_EQUATIONS))
    layers = layers.replace(*network.layer_vectors()[: len(layers)])
    loaders, _ = standardised(session, layers, settled=True, scale=above.scale)
    hparams = dataclasses.replace(session.desc.training_hparams, polish_optimizer="levenberg_marquardt", polish_steps=SHARPENING_STEPS)
    sharper = dataclasses.replace(above, loaders=loaders, location=location)
    return layers, polished(session, sharper, hparams, f"{above.location}_polished")


def train_quickly(session: Session, students: Students, loaders: Loaders, location: str, changes: Mapping[str, object]) -> None:
    """Trains students as the first ones were, in their batches and number format, with changes to some training hyperparameters."""
    hparams = dataclasses.replace(students_training(session), further_training=None, extra_training=None, **changes)
    plan = StandardPlan(verbose=session.verbose, epoch_lines=False, has_curves=False)
    standard_train(hparams, students, session.students_batches(loaders), location, plan)


def standardised(session: Session, layers: Layers, settled: bool, scale: Standardisation | None = None) -> tuple[Loaders, Standardisation]:
    """Loaders in float64 of the standardised activations of recovered layers, with the answers to the queries behind them.

    Where the signs of the last layer are not settled, its sign-invariant features stand for its activations.

    Args:
        session: the extraction.
        layers: the recovered layers.
        settled: whether the signs of the last of these layers are known.
        scale: the standardisation; that of the queries for training when left out.

    Returns:
        The loaders, and the standardisation.
    """

    def features(loader: DataLoader) -> torch.Tensor:
        pre_activations = layers.pre_activations(loader.examples)
        return layers.activation(pre_activations) if settled else sign_invariant_features(layers.act_fun, pre_activations)

    inputs = [features(loader) for loader in session.loaders]
    scale = scale or Standardisation.of(inputs[0])
    batch_size, loaders = session.desc.dataset_hparams.batch_size, []
    for loader, values in zip(session.loaders, inputs, strict=True):
        dataset = type(loader.dataset)(scale.apply(values), loader.labels)
        loaders.append(DataLoader(dataset, batch_size, loader.seed, torch.float64))
    return Loaders(*loaders), scale
