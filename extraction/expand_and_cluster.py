"""Expand-and-Cluster (Martinelli et al. 2024): imitate a network with many wider ones, and read it off what their neurons share.

`train_students` expands, `reconstruct` clusters, layer by layer, and brings the network that comes out to the precision of its numbers.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence

import torch

from datasets import boruta
from datasets.base import DataLoader
from extraction import layer_reconstruction as layers
from extraction.desc import ExtractionDesc
from extraction.finetuning import EXACT, assemble, contributions, fit, fit_together, is_exact, layer_vectors, relative_loss, trim
from extraction.symmetry import Symmetry, symmetries
from foundations import paths
from foundations.errors import ConfigError
from foundations.hparams import ModelHparams, TrainingHparams
from foundations.seeds import derive
from foundations.step import Step
from models import registry as models
from models.activation_functions import ActivationFunction
from models.mlp import FullyConnected
from models.students import Model as Students
from platforms.platform import get_platform
from training.evaluation import evaluate
from training.train import standard_train

POLISH_EQUATIONS = 5  # for each unknown of a student, in a step of Levenberg-Marquardt
POLISH_QUERIES = 200  # at least
EXACT_STUDENTS = 2  # that must have found the solution, and agree, before polishing stops early
EXACTNESS_CHECK = 5  # steps of polishing between looks for such students
SHARPENING_STEPS = "30it"
RETRIES = {
    "generous": "The answers are not met exactly: adding neurons that were in doubt, to take away again what is not needed",
    "sharpened": "The answers are not met exactly: recovering deeper layers from students that are trained more exactly",
}
DOUBTFUL = (0.0, 0.5, 1.0)  # clusters added in doubt for each that counts, one after the other while a layer lacks a neuron
LACKING = 100.0  # times the loss of students, at least, what those above a recovered layer have that lacks a neuron
FASTER = 2.0  # the learning rate of shallower students, as a multiple of that of the students before
TOGETHER_RATE, TOGETHER_SHARE = 0.3, 0.1  # learning rate and steps with the recovered layers, as multiples of those of students
AS_GOOD = 2.0  # times the least loss, at most, of a network that gives the answers as well


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
    desc: ExtractionDesc, outputs: int, train_loader: DataLoader, test_loader: DataLoader, location: str, seed: int, **options: object
) -> Students:
    """Trains the students, or finds them trained, and returns them; `options` are those of `standard_train`."""
    students = models.get(desc.model_hparams, outputs, seed)
    standard_train(desc.training_hparams, students, train_loader, test_loader, location, **options)
    weights = os.path.basename(models.last_file(location)).removesuffix(".pth")
    polish(students, desc.training_hparams, train_loader, test_loader, paths.polish(location, weights), options.get("verbose", True))
    return students


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

    def stop_when_exact(output_location, step, model, optimizer, logger):
        """Students that have found the solution are proofs; more of them prove no more."""
        if step.iteration % EXACTNESS_CHECK == 0:
            losses = evaluate(model, loader)["individual_losses"]
            optimizer.spent = optimizer.spent or sum(loss <= enough for loss in losses) >= EXACT_STUDENTS

    if verbose:
        print("Polishing the students", flush=True)
    polishing = TrainingHparams(h.polish_optimizer, 1.0, h.polish_steps, precision="float64")
    standard_train(polishing, students, loader, test_loader, location, more_callbacks=[stop_when_exact], verbose=verbose, epoch_lines=False)


def reconstruct(
    students: Students, desc: ExtractionDesc, train_loader: DataLoader, test_loader: DataLoader, location: str, verbose: bool = True
) -> Reconstruction:
    """Recovers the network that the students imitate.

    A network that misses the answers lacks a neuron, while one that has too many shows which. So where the clusters that count do not lead
    to the rounding floor, the doubtful ones join them, and what is needed least goes again; and where that does not do either, the students
    of deeper layers are trained more exactly. If nothing helps, as with answers that were rounded, it is the smallest network of those that
    give the answers about as well as the best.

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
    loaders, found, failures = (train_loader, test_loader), [], []
    for attempt in ("", *RETRIES):
        if attempt == "sharpened" and (len(students.fc_layers) == 1 or symmetries[students.act_fun].slope != 0):
            continue
        folder = f"{work}_{attempt}" if attempt else work
        if verbose and attempt:
            print(RETRIES[attempt], flush=True)
        try:
            recovered, vectors, surplus = peel(students, losses, desc, loaders, work, attempt, verbose)
            fits = trim(vectors, desc, loaders, folder, verbose) if surplus else [fit(vectors, desc, loaders, folder, verbose)]
        except ConfigError as error:
            failures.append(error)
            continue
        found += [(recovered, each) for each in fits]
        if is_exact(fits[-1].network, train_loader):
            found = found[-1:]
            break
    if not found:
        raise failures[0]
    least = min(relative_loss(each.network, train_loader) for _, each in found)
    as_good = [pair for pair in found if relative_loss(pair[1].network, train_loader) <= AS_GOOD * least]
    recovered, fitted = min(as_good, key=lambda pair: sum(pair[1].network.sizes[1:-1]))
    final = paths.reconstructed_model(location)
    get_platform().move(fitted.location, final)
    return Reconstruction(recovered, fitted.model_hparams, fitted.before, fitted.network, final, losses, students_file)


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


def stacked(
    below: list[torch.Tensor], incoming: torch.Tensor, scale: tuple[torch.Tensor, torch.Tensor], symmetry: Symmetry
) -> list[torch.Tensor]:
    """Recovered layers with one more, `[width, D]` each, whose inputs were standardised; it settles the signs of the layer below it."""
    incoming = layers.unstandardised(incoming, *scale)
    if not below:
        return [incoming]
    settled, incoming = layers.settle_signs(below[-1], incoming, scale[1], symmetry)
    return [*below[:-1], settled, incoming]


def activations_of(inputs: torch.Tensor, vectors: list[torch.Tensor], act_fun: ActivationFunction) -> torch.Tensor:
    """What hidden layers, each `[width, D]` with the bias last, make of inputs `[Q, D - 1]`."""
    for layer in vectors:
        inputs = act_fun(layers.with_ones(inputs) @ layer.T)
    return inputs


def standardised(
    loaders: tuple[DataLoader, DataLoader],
    vectors: list[torch.Tensor],
    students: Students,
    desc: ExtractionDesc,
    settled: bool,
    scale: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[tuple[DataLoader, DataLoader], tuple[torch.Tensor, torch.Tensor]]:
    """Loaders in float64 of the same answers to the activations of the last of recovered layers, less their mean, over their spread.

    Where the signs of that layer are not settled, they are of what its activations with either sign are made of. The mean and the spread are
    those of the first loader's, where no other `scale` is given; they are returned as well.
    """
    found, act_fun = [], students.activation
    for loader in loaders:
        inputs = layers.with_ones(activations_of(loader.examples, vectors[:-1], act_fun)) @ vectors[-1].T
        inputs = act_fun(inputs) if settled else layers.signless(act_fun, symmetries[students.act_fun], inputs)
        scale = scale or layers.standardisation(inputs)
        dataset = type(loader.dataset)((inputs - scale[0]) / scale[1], loader.labels)
        found.append(DataLoader(dataset, desc.dataset_hparams.batch_size, loader.seed, torch.float64))
    return tuple(found), scale


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
    name = f"students_mlp({students.networks})_{'_'.join(map(str, sizes))}"
    h = dataclasses.replace(desc.training_hparams, lr=FASTER * desc.training_hparams.lr, further_training=None)
    shallower = models.get(
        dataclasses.replace(desc.model_hparams, model_name=name), seed=derive(loaders[0].seed, "layers left", len(sizes))
    )
    quick = [DataLoader(loader.dataset, loader.batch_size, loader.seed, getattr(torch, h.stored_precision)) for loader in asked]
    if verbose:
        print(f"Students of what is above the recovered layers: {name}", flush=True)
    standard_train(h, shallower, *quick, location, verbose=verbose, epoch_lines=False)
    return Imitation(shallower.double(), evaluate(shallower, asked[0])["individual_losses"], asked, scale, location)


def polished(above: Imitation, training_hparams: TrainingHparams, location: str, verbose: bool) -> Imitation:
    """Students after they were polished in place, where that is asked for."""
    if training_hparams.polish_optimizer is None:
        return above
    polish(above.students, training_hparams, *above.asked, location, verbose)
    return dataclasses.replace(above, losses=evaluate(above.students.double(), above.asked[0])["individual_losses"])


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
    name = f"students_mlp({students.networks})_{'_'.join(map(str, sizes))}"
    first, *rest = students.layer_vectors()
    whole = models.get(dataclasses.replace(desc.model_hparams, model_name=name))
    whole.load_layer_vectors([*vectors, layers.unstandardised(first, *above.scale), *rest])
    steps = f"{math.ceil(TOGETHER_SHARE * Step.from_str(training.training_steps, len(above.asked[0])).iteration)}it"
    h = dataclasses.replace(training, lr=TOGETHER_RATE * training.lr, training_steps=steps, further_training=None)
    batch_size, dtype = above.asked[0].batch_size, getattr(torch, h.stored_precision)
    quick = [DataLoader(loader.dataset, batch_size, loader.seed, dtype) for loader in loaders]
    if verbose:
        print(f"Recovered layers and the students above them: {name}", flush=True)
    location = f"{above.location}_together"
    standard_train(h, whole, *quick, location, verbose=verbose, epoch_lines=False)
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
    best = above.students.select(place_of_least(above.losses))
    rest = [layer[0] for layer in best.layer_vectors()]
    rest[0] = layers.unstandardised(rest[0], *above.scale)
    network, model_hparams = assemble([*vectors, *rest], desc.model_hparams)
    h = TrainingHparams("levenberg_marquardt", 1.0, SHARPENING_STEPS, precision="float64")
    location = f"{above.location}_sharpened"
    fit_together(network, model_hparams, desc, h, loaders, location, verbose, POLISH_EQUATIONS, ())
    vectors = layer_vectors(network)[: len(vectors)]
    asked, _ = standardised(loaders, vectors, above.students, desc, True, above.scale)
    h = dataclasses.replace(desc.training_hparams, polish_optimizer="levenberg_marquardt", polish_steps=SHARPENING_STEPS)
    return vectors, polished(dataclasses.replace(above, asked=asked, location=location), h, f"{above.location}_polished", verbose)


def place_of_least(losses: list[float]) -> int:
    """Which loss is the least; one that has diverged is none."""
    return min(range(len(losses)), key=lambda place: losses[place] if math.isfinite(losses[place]) else math.inf)


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
