"""Expand-and-Cluster (Martinelli et al. 2024): imitate a network with many wider ones, and read it off what their neurons share.

`train_students` expands, `reconstruct` clusters, layer by layer, and brings the network that comes out to the precision of its numbers.
"""

from __future__ import annotations

import dataclasses
import os

from datasets.base import DataLoader
from extraction import layer_reconstruction as layers
from extraction.desc import ExtractionDesc
from extraction.finetuning import fit, is_exact, relative_loss, trim
from extraction.imitation import polish
from extraction.peeling import peel
from extraction.symmetry import symmetries
from foundations import paths
from foundations.errors import ConfigError
from foundations.hparams import ModelHparams
from models import registry as models
from models.mlp import FullyConnected
from models.students import Model as Students
from platforms.platform import get_platform
from training.evaluation import evaluate
from training.plan import StandardPlan
from training.train import standard_train

RETRIES = {
    "generous": "The answers are not met exactly: adding neurons that were in doubt, to take away again what is not needed",
    "sharpened": "The answers are not met exactly: recovering deeper layers from students that are trained more exactly",
}
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
    desc: ExtractionDesc, outputs: int, loaders: tuple[DataLoader, DataLoader], location: str, seed: int, plan: StandardPlan
) -> Students:
    """Trains the students, or finds them trained, and returns them; the plan is that of `standard_train`."""
    students = models.get(desc.model_hparams, outputs, seed)
    standard_train(desc.training_hparams, students, loaders, location, plan)
    weights = os.path.basename(models.last_file(location)).removesuffix(".pth")
    polish(students, desc.training_hparams, *loaders, paths.polish(location, weights), plan.verbose)
    return students


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
