"""Selects the inputs of an image dataset that are informative about the classes: Boruta (Kursa & Rudnicki 2010, J. Stat. Softw. 36(11)).

In each round, a random forest learns the classes from all inputs and their *shadows*, which are the same columns in random order. An input
scores a hit if it is more important than every shadow. It is informative if it scores significantly more hits than fair coin tosses. The
mask of a dataset is computed once, from its training set, and stored under the `boruta_root` of the platform.

Importance is the mean decrease in impurity. (The paper uses permutation importance on out-of-bag examples, which needs one more pass over
them for every pixel.)
"""

from __future__ import annotations

import os

import numpy as np
import torch

from datasets.base import ImageDataset
from datasets.image_registry import registered_images
from foundations import json_text
from foundations.errors import ConfigError, unknown
from platforms.platform import get_platform
from platforms.system import files

SEED = 0
MAX_EXAMPLES = 5000  # a larger training set is subsampled
TREES = 50  # in a forest
ITERATIONS = 50  # the maximum number of forests
LEVEL = 0.01  # the significance level of all tests together
MIN_SHADOWS = 5  # as in the paper: the maximum of fewer shadows is too easy to exceed
MIN_PARALLEL_SIZE = 10**6  # values; with fewer, one core is faster than several


def mask(dataset_name: str) -> torch.Tensor:
    """The informative inputs of an image dataset. The mask is read from its file, or computed and written to it.

    The computation takes seconds for `digits` and minutes for images of 28x28 pixels.

    Args:
        dataset_name: the name of an image dataset, such as `digits`.

    Returns:
        `[inputs]` on the CPU, True for informative inputs.

    Raises:
        ConfigError: no image dataset has this name, the file of the mask is damaged, or the images cannot be read.
    """
    stored = _read_mask(dataset_name)
    if stored is not None:
        return stored
    images, labels = _image_dataset(dataset_name).load(train=True)
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(SEED))[:MAX_EXAMPLES]
    informative = select_features(images[chosen].flatten(1), labels[chosen], SEED)
    get_platform().write(_path(dataset_name), json_text.dumps(informative.tolist()) + "\n")
    return informative


def check(dataset_name: str, inputs: int) -> None:
    """Checks that a dataset can mask the inputs of a network, without computing the mask.

    Raises:
        ConfigError: no image dataset has this name, its images have another number of values, or the file of the mask is damaged.
    """
    size, _ = _image_dataset(dataset_name).shape()
    if size != inputs:
        raise ConfigError(f"--boruta: the images of {dataset_name} have {size} values; the network takes {inputs}")
    _read_mask(dataset_name)


def select_features(
    examples: torch.Tensor, labels: torch.Tensor, seed: int, trees: int = TREES, iterations: int = ITERATIONS
) -> torch.Tensor:
    """Selects the informative columns of examples. The result depends on the seed, but not on the number of cores.

    After each forest, two binomial tests compare the number of hits of an input with fair coin tosses: an input with too many hits is
    confirmed; an input with too few is rejected and removed from the next forests together with its shadow. The level of a test is
    `LEVEL / (2 * inputs * iterations)`, Bonferroni's correction for both sides, all inputs that vary and all rounds. It controls chance in
    shadows and forests, not in the choice of examples. Constant inputs are rejected before the first forest. An input that is undecided
    after the last forest is informative if it scored a hit in at least half of the rounds.

    Args:
        examples: `[n, inputs]`.
        labels: classes, `[n]`.
        seed: the seed of shadows and forests, from 0 to 2^32 - 1.
        trees: the number of trees in a forest.
        iterations: the maximum number of forests; with fewer than about 20, no test is significant.

    Returns:
        `[inputs]` on the CPU, True for informative inputs.
    """
    from scipy.stats import binom

    columns, classes = examples.cpu().numpy(), labels.cpu().numpy()
    random = np.random.RandomState(seed)
    rejected = np.ptp(columns, axis=0) == 0
    confirmed = np.zeros_like(rejected)
    hits = np.zeros(len(rejected), dtype=int)
    threshold = LEVEL / (2 * max(1, np.sum(~rejected)) * iterations)
    for rounds in range(1, iterations + 1):
        if np.all(confirmed | rejected):
            break
        remaining = np.flatnonzero(~rejected)
        hits[remaining] += _beats_shadows(columns[:, remaining], classes, trees, random)
        confirmed |= ~rejected & (binom.sf(hits - 1, rounds, 0.5) < threshold)
        rejected |= ~confirmed & (binom.cdf(hits, rounds, 0.5) < threshold)
    return torch.from_numpy(confirmed | (~rejected & (2 * hits >= iterations)))


def _beats_shadows(columns: np.ndarray, classes: np.ndarray, trees: int, random: np.random.RandomState) -> np.ndarray:
    """For each of the columns `[n, c]`, whether it is more important in a random forest than every shadow: `[c]`."""
    from sklearn.ensemble import RandomForestClassifier

    count = columns.shape[1]
    originals = np.tile(columns, -(-MIN_SHADOWS // count))
    shadows = np.stack([random.permutation(column) for column in originals.T], axis=1)
    # scikit-learn draws the seeds of all trees first and sums importances in order, so the number of cores does not change the result.
    cores = -1 if columns.size >= MIN_PARALLEL_SIZE else 1
    forest = RandomForestClassifier(trees, n_jobs=cores, random_state=random.randint(2**31 - 1))
    importances = forest.fit(np.hstack([columns, shadows]), classes).feature_importances_
    return importances[:count] > importances[count:].max()


def _image_dataset(name: str) -> type[ImageDataset]:
    """The image dataset with this name; a ConfigError if it does not exist."""
    if name not in registered_images:
        raise unknown("--boruta", name, registered_images)
    return registered_images[name].Dataset


def _path(dataset_name: str) -> str:
    """The path of the mask of a dataset: a JSON list of true and false."""
    return os.path.join(get_platform().boruta_root, f"{dataset_name}.json")


def _read_mask(dataset_name: str) -> torch.Tensor | None:
    """Reads the mask of a dataset; None if there is no file, a ConfigError if the file is damaged."""
    size, _ = _image_dataset(dataset_name).shape()
    path = _path(dataset_name)
    if not get_platform().exists(path):
        return None
    remedy = "delete it to compute the mask again"
    content = files.read_json(path, remedy)
    if not isinstance(content, list) or len(content) != size or not all(isinstance(value, bool) for value in content):
        found = f"a list of {len(content)} values" if isinstance(content, list) else type(content).__name__
        raise ConfigError(f"{path} does not fit the dataset: expected a list of {size} values true or false, found {found}; {remedy}")
    return torch.tensor(content)
