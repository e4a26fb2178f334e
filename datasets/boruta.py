"""Which inputs of an image dataset say anything about its classes: the Boruta procedure (Kursa & Rudnicki 2010, J. Stat. Softw. 36(11)).

A random forest learns the classes from every input and from its *shadow*, the same column in a random order. An input scores a hit in each
round in which it matters more than the best of all shadows, and is informative when it does so more often than a coin shows heads. The
mask of a dataset is computed once, from its training set, and kept under the platform's `boruta_root`.

Importance is the forest's mean decrease in impurity. (The paper permutes the inputs of examples that a tree has not seen, which takes one
more pass over them for every pixel.)
"""

from __future__ import annotations

import json
import os

import numpy as np
import torch

from datasets.base import ImageDataset
from datasets.image_registry import registered_images
from foundations.errors import ConfigError, unknown
from platforms.platform import get_platform
from platforms.system import files

SEED = 0
EXAMPLES = 5000  # a larger training set is sampled down to so many
TREES = 50  # in a forest
ITERATIONS = 50  # forests at most
LEVEL = 0.01  # of significance, of all tests together
LEAST_SHADOWS = 5  # the paper's: the best of fewer is no obstacle
LARGE = 10**6  # values; a forest on fewer is grown faster than it is shared out among the cores


def mask(dataset_name: str) -> torch.Tensor:
    """The informative inputs of an image dataset, from its file or, where there is none, computed and kept in one.

    Computing takes seconds for `digits` and minutes for images of 28x28 pixels.

    Args:
        dataset_name: such as `digits`.

    Returns:
        `[inputs]` on the CPU, True where an input is informative.

    Raises:
        ConfigError: no image dataset has this name, its file is damaged, or the images are not to be had.
    """
    kept = _read(dataset_name)
    if kept is not None:
        return kept
    images, labels = _image_dataset(dataset_name).load(train=True)
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(SEED))[:EXAMPLES]
    informative = select(images[chosen].flatten(1), labels[chosen], SEED)
    get_platform().write(_path(dataset_name), json.dumps(informative.tolist()) + "\n")
    return informative


def check(dataset_name: str, inputs: int) -> None:
    """Sees whether a dataset can mask the inputs of a network, without computing the mask.

    Raises:
        ConfigError: no image dataset has this name, its images have another number of values, or the file of its mask is damaged.
    """
    size, _ = _image_dataset(dataset_name).shape()
    if size != inputs:
        raise ConfigError(f"--boruta: the images of {dataset_name} have {size} values; the network takes {inputs}")
    _read(dataset_name)


def select(
    examples: torch.Tensor, labels: torch.Tensor, seed: int, trees: int = TREES, iterations: int = ITERATIONS, level: float = LEVEL
) -> torch.Tensor:
    """The informative columns of some examples, the same for a seed whatever the number of cores.

    After each forest, an input's hits so far are held against fair coin tosses, once for too many (it is confirmed) and once for too few
    (it is rejected, and leaves the forests with its shadow). Every test has the level `level / (2 * inputs * iterations)`, Bonferroni's
    correction for both sides, all inputs that vary and all rounds. Inputs that never vary are rejected before the first forest. An input
    that is undecided after the last one counts as informative when it scored in at least half of the rounds.

    Args:
        examples: `[n, inputs]`.
        labels: classes, `[n]`.
        seed: of shadows and forests, from 0 to 2^32 - 1.
        trees: in each forest.
        iterations: forests at most; after fewer than some 20 no test is decided.
        level: of significance, of all tests together. It guards against luck in shadows and forests, not in the choice of examples.

    Returns:
        `[inputs]` on the CPU, True where an input is informative.
    """
    from scipy.stats import binom

    columns, classes = examples.cpu().numpy(), labels.cpu().numpy()
    random = np.random.RandomState(seed)
    rejected = np.ptp(columns, axis=0) == 0
    confirmed = np.zeros_like(rejected)
    hits = np.zeros(len(rejected), dtype=int)
    threshold = level / (2 * max(1, np.sum(~rejected)) * iterations)
    for rounds in range(1, iterations + 1):
        if np.all(confirmed | rejected):
            break
        remaining = np.flatnonzero(~rejected)
        hits[remaining] += _beats_shadows(columns[:, remaining], classes, trees, random)
        confirmed |= ~rejected & (binom.sf(hits - 1, rounds, 0.5) < threshold)
        rejected |= ~confirmed & (binom.cdf(hits, rounds, 0.5) < threshold)
    return torch.from_numpy(confirmed | (~rejected & (2 * hits >= iterations)))


def _beats_shadows(columns: np.ndarray, classes: np.ndarray, trees: int, random: np.random.RandomState) -> np.ndarray:
    """Whether each of the columns `[n, c]` matters more in one forest than the best shadow: `[c]`."""
    from sklearn.ensemble import RandomForestClassifier

    count = columns.shape[1]
    originals = np.tile(columns, -(-LEAST_SHADOWS // count))
    shadows = np.stack([random.permutation(column) for column in originals.T], axis=1)
    # The trees' seeds are drawn before the trees are shared out, and their importances are summed in order, so cores change nothing.
    cores = -1 if columns.size >= LARGE else 1
    forest = RandomForestClassifier(trees, n_jobs=cores, random_state=random.randint(2**31 - 1))
    importances = forest.fit(np.hstack([columns, shadows]), classes).feature_importances_
    return importances[:count] > importances[count:].max()


def _image_dataset(name: str) -> type[ImageDataset]:
    """The image dataset of this name; a ConfigError where there is none."""
    if name not in registered_images:
        raise unknown("--boruta", name, registered_images)
    return registered_images[name].Dataset


def _path(dataset_name: str) -> str:
    """The file of a dataset's mask: a JSON list of true and false."""
    return os.path.join(get_platform().boruta_root, f"{dataset_name}.json")


def _read(dataset_name: str) -> torch.Tensor | None:
    """The mask of a dataset from its file; None where there is no file, a ConfigError where it holds anything else."""
    size, _ = _image_dataset(dataset_name).shape()
    path = _path(dataset_name)
    if not get_platform().exists(path):
        return None
    remedy = "delete it, and the mask is computed anew"
    content = files.read_json(path, remedy)
    if not isinstance(content, list) or len(content) != size or not all(isinstance(value, bool) for value in content):
        raise ConfigError(f"{path} is not a list of {size} times true or false; {remedy}")
    return torch.tensor(content)
