"""Students of what is above recovered layers, and making students and recovered layers more exact."""

from __future__ import annotations

import dataclasses
import math

import torch

from datasets.base import DataLoader
from extraction import layer_reconstruction as layers
from extraction.desc import ExtractionDesc
from extraction.finetuning import EXACT, assemble, fit_together, layer_vectors
from extraction.symmetry import symmetries
from foundations.hparams import TrainingHparams
from foundations.seeds import derive
from foundations.step import Step
from models import registry as models
from models.activation_functions import ActivationFunction
from models.students import Model as Students
from training.evaluation import evaluate
from training.metric_logger import MetricLogger
from training.plan import StandardPlan
from training.train import standard_train

POLISH_EQUATIONS = 5  # for each unknown of a student, in a step of Levenberg-Marquardt
POLISH_QUERIES = 200  # at least
EXACT_STUDENTS = 2  # that must have found the solution, and agree, before polishing stops early
EXACTNESS_CHECK = 5  # steps of polishing between looks for such students
SHARPENING_STEPS = "30it"
FASTER = 2.0  # the learning rate of shallower students, as a multiple of that of the students before
TOGETHER_RATE, TOGETHER_SHARE = 0.3, 0.1  # learning rate and steps with the recovered layers, as multiples of those of students


def polish(
    students: Students, training_hparams: TrainingHparams, train_loader: DataLoader, test_loader: DataLoader, location: str, verbose: bool
) -> None:
    """Takes trained students towards their solutions with a second-order optimizer in float64, in place, where that is asked for.

    Every step sees the same queries: all, or for Levenberg-Marquardt, whose cost grows with them, a few for each unknown.
    """
    h = training_hparams
    if h.polish_optimizer is None:
        return
    data, seed = train_loader.dataset, train_loader.seed
    count = len(data)
    if h.polish_optimizer == "levenberg_marquardt":
        unknowns = sum(parameter[0].numel() for parameter in students.parameters())
        count = min(count, max(POLISH_QUERIES, -(-POLISH_EQUATIONS * unknowns // data.labels.shape[1])))
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(derive(seed, "polish")))[:count]
    dataset = type(data)(data.examples[chosen], data.labels[chosen])
    loader = DataLoader(dataset, count, seed, torch.float64)
    test_loader = DataLoader(test_loader.dataset, test_loader.batch_size, seed, torch.float64)
    enough = EXACT**2 * loader.labels.var(0).mean()

    def is_exact(step: Step, model: Students, logger: MetricLogger) -> bool:
        """Students that have found the solution are proofs; more of them prove no more."""
        if step.iteration % EXACTNESS_CHECK:
            return False
        losses = evaluate(model, loader)["individual_losses"]
        return sum(loss <= enough for loss in losses) >= EXACT_STUDENTS

    if verbose:
        print("Polishing the students", flush=True)
    polishing = TrainingHparams(h.polish_optimizer, 1.0, h.polish_steps, precision="float64")
    plan = StandardPlan(stop_when=[is_exact], verbose=verbose, epoch_lines=False)
    standard_train(polishing, students, (loader, test_loader), location, plan)


@dataclasses.dataclass(frozen=True)
class Imitation:
    """Students of the layers that are not recovered yet.

    Attributes:
        students: trained.
        losses: theirs, on the queries.
        asked: what they were trained and tested on, in float64.
        scale: mean and spread by which the activations below were standardised to be their inputs.
        location: what the folders of the next, shallower ones begin with.
    """

    students: Students
    losses: list[float]
    asked: tuple[DataLoader, DataLoader]
    scale: tuple[torch.Tensor, torch.Tensor]
    location: str

    @property
    def least(self) -> float:
        """The loss of the best student."""
        return self.losses[place_of_least(self.losses)]


def imitate_above(
    vectors: list[torch.Tensor],
    students: Students,
    desc: ExtractionDesc,
    loaders: tuple[DataLoader, DataLoader],
    location: str,
    verbose: bool,
    settled: bool = False,
) -> Imitation:
    """Trains fresh students with one hidden layer less on the activations of recovered layers.

    Their problem is easier than that of the students before, and they take twice the learning rate: of the second of three layers of g they
    then had all ten neurons and one in excess, rather than seven in excess and one missing, and sigmoid students a third of the loss. With
    five times the rate some students of g diverged.

    Args:
        vectors: of the recovered layers, `[width, D]`.
        students: the ones before.
        desc: the hyperparameters.
        loaders: the queries and answers for training, and others for test.
        location: where they are trained.
        verbose: whether to show how training goes.
        settled: whether the signs of the last of these layers are known.
    """
    asked, scale = standardised(loaders, vectors, students, desc, settled)
    sizes = [asked[0].examples.shape[1], *students.sizes[2:]]
    name = stack_name(students.networks, sizes)
    shallower = models.get(
        dataclasses.replace(desc.model_hparams, model_name=name), seed=derive(loaders[0].seed, "layers left", len(sizes))
    )
    if verbose:
        print(f"Students of what is above the recovered layers: {name}", flush=True)
    train_quickly(shallower, desc, asked, location, verbose, lr=FASTER * desc.training_hparams.lr)
    return Imitation(shallower.double(), evaluate(shallower, asked[0])["individual_losses"], asked, scale, location)


def polished(above: Imitation, training_hparams: TrainingHparams, location: str, verbose: bool) -> Imitation:
    """Students after they were polished in place, where that is asked for."""
    if training_hparams.polish_optimizer is None:
        return above
    polish(above.students, training_hparams, *above.asked, location, verbose)
    return dataclasses.replace(above, losses=evaluate(above.students.double(), above.asked[0])["individual_losses"])


def train_together(
    vectors: list[torch.Tensor], above: Imitation, desc: ExtractionDesc, loaders: tuple[DataLoader, DataLoader], verbose: bool
) -> tuple[list[torch.Tensor], Imitation]:
    """Recovered layers, and the students above them, after they were trained with one another for a while.

    A recovered layer is as exact as students could be that were too wide in that layer, and what is built on it can be no better: students
    on the first of three layers of ten tanh neurons came to a loss of 1e-3, however long they were trained. Of the right width it becomes
    exact as fast as the students above learn, which then came to 2e-6 (sigmoid 2e-4 to 9e-6, g 3e-4 to 7e-5). The layers of the best of
    these networks are kept. Signs that matter have to be settled before: with open ones, a recovered layer is no layer of a network yet.

    Args:
        vectors: of the recovered layers, `[width, D]`.
        above: students that were trained on their activations.
        desc: the hyperparameters.
        loaders: the queries and answers for training, and others for test.
        verbose: whether to show how it goes.
    """
    students, training = above.students, desc.training_hparams
    sizes = [vectors[0].shape[1] - 1, *map(len, vectors), *students.sizes[1:]]
    name = stack_name(students.networks, sizes)
    first, *rest = students.layer_vectors()
    whole = models.get(dataclasses.replace(desc.model_hparams, model_name=name))
    whole.load_layer_vectors([*vectors, layers.unstandardised(first, *above.scale), *rest])
    steps = f"{math.ceil(TOGETHER_SHARE * Step.from_str(training.training_steps, len(above.asked[0])).iteration)}it"
    if verbose:
        print(f"Recovered layers and the students above them: {name}", flush=True)
    train_quickly(whole, desc, loaders, f"{above.location}_together", verbose, lr=TOGETHER_RATE * training.lr, training_steps=steps)
    best = place_of_least(evaluate(whole.double(), loaders[0])["individual_losses"])
    together = whole.layer_vectors()
    vectors = [layer[best] for layer in together[: len(vectors)]]
    asked, scale = standardised(loaders, vectors, students, desc, True)
    first, *rest = together[len(vectors) :]
    students.load_layer_vectors([layers.over_standardised(first, *scale), *rest])
    return vectors, Imitation(students, evaluate(students, asked[0])["individual_losses"], asked, scale, above.location)


def sharpen(
    vectors: list[torch.Tensor], above: Imitation, desc: ExtractionDesc, loaders: tuple[DataLoader, DataLoader], verbose: bool
) -> tuple[list[torch.Tensor], Imitation]:
    """Recovered layers, after they were fitted to the answers together with the best student above them, and the students after that.

    Peeled students can be no better than what they are built on. The recovered layers with a student on top are a network that is too wide
    above and just right below, and fitting all of it by Levenberg-Marquardt makes what is below exact long before what is above settles:
    1 - |cos| of 2e-4 became 4e-10 in 35 steps for the first of two layers of twelve sigmoid neurons. Where signs matter and are open, the
    last of the layers would be there in both signs, with so much freedom that this makes it worse.

    Args:
        vectors: of the recovered layers, `[width, D]`.
        above: students that were trained on their activations.
        desc: the hyperparameters.
        loaders: the queries and answers for training, and others for test.
        verbose: whether to show how it goes.
    """
    best = place_of_least(above.losses)
    rest = [layer[best] for layer in above.students.layer_vectors()]
    rest[0] = layers.unstandardised(rest[0], *above.scale)
    network, model_hparams = assemble([*vectors, *rest], desc.model_hparams)
    h = TrainingHparams("levenberg_marquardt", 1.0, SHARPENING_STEPS, precision="float64")
    location = f"{above.location}_sharpened"
    fit_together(network, model_hparams, desc, h, loaders, location, verbose, POLISH_EQUATIONS, ())
    vectors = layer_vectors(network)[: len(vectors)]
    asked, _ = standardised(loaders, vectors, above.students, desc, True, above.scale)
    h = dataclasses.replace(desc.training_hparams, polish_optimizer="levenberg_marquardt", polish_steps=SHARPENING_STEPS)
    return vectors, polished(dataclasses.replace(above, asked=asked, location=location), h, f"{above.location}_polished", verbose)


def stack_name(networks: int, sizes: list[int]) -> str:
    """The name of students of some sizes, the inputs first."""
    return f"students_mlp({networks})_{'_'.join(map(str, sizes))}"


def train_quickly(
    students: Students, desc: ExtractionDesc, loaders: tuple[DataLoader, DataLoader], location: str, verbose: bool, **changes: object
) -> None:
    """Trains students as the first ones were, in their batches and number format, but for some hyperparameters."""
    h = dataclasses.replace(desc.training_hparams, further_training=None, **changes)
    batch_size, dtype = desc.dataset_hparams.batch_size, getattr(torch, h.stored_precision)
    train_loader, test_loader = (DataLoader(loader.dataset, batch_size, loader.seed, dtype) for loader in loaders)
    standard_train(h, students, (train_loader, test_loader), location, StandardPlan(verbose=verbose, epoch_lines=False))


def standardised(
    loaders: tuple[DataLoader, DataLoader],
    vectors: list[torch.Tensor],
    students: Students,
    desc: ExtractionDesc,
    settled: bool,
    scale: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[tuple[DataLoader, DataLoader], tuple[torch.Tensor, torch.Tensor]]:
    """Loaders in float64 of the same answers to the activations of the last of recovered layers, less their mean, over their spread.

    Where the signs of that layer are not settled, they are of what its activations with either sign are made of. Mean and spread are those
    of the first loader's, where no other `scale` is given; they are returned as well.
    """
    found, act_fun = [], students.activation
    for loader in loaders:
        inputs = layers.with_ones(activations_of(loader.examples, vectors[:-1], act_fun)) @ vectors[-1].T
        inputs = act_fun(inputs) if settled else layers.signless(act_fun, symmetries[students.act_fun], inputs)
        scale = scale or layers.standardisation(inputs)
        dataset = type(loader.dataset)((inputs - scale[0]) / scale[1], loader.labels)
        found.append(DataLoader(dataset, desc.dataset_hparams.batch_size, loader.seed, torch.float64))
    return tuple(found), scale


def activations_of(inputs: torch.Tensor, vectors: list[torch.Tensor], act_fun: ActivationFunction) -> torch.Tensor:
    """What hidden layers, each `[width, D]` with the bias last, make of inputs `[Q, D - 1]`."""
    for layer in vectors:
        inputs = act_fun(layers.with_ones(inputs) @ layer.T)
    return inputs


def place_of_least(losses: list[float]) -> int:
    """Which loss is the least; one that has diverged is none."""
    return min(range(len(losses)), key=lambda place: losses[place] if math.isfinite(losses[place]) else math.inf)
