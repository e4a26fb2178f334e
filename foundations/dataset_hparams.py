"""The hyperparameters of a dataset."""

from __future__ import annotations

from dataclasses import dataclass

from foundations import limits
from foundations.errors import ConfigError, unknown
from foundations.hparams import Hparams, unhashed
from foundations.seeds import LARGEST, NOT_CHOSEN

UNSUPERVISED_LABELS = ("rotation",)
LINKS = ("softmax", "log_softmax", "sigmoid", "raw")  # what the answers in a file are; raw: the outputs of a plain network


@dataclass
class DatasetHparams(Hparams):
    """The dataset, its transformations and the batch size."""

    dataset_name: str
    batch_size: int
    teacher_name: str | None = None
    teacher_seed: int = NOT_CHOSEN
    datagen: str | None = None
    samples: int | None = unhashed(None)
    d_in: int | None = unhashed(None)
    arrays: str | None = unhashed(None)
    outputs: int | None = unhashed(None)
    link: str | None = unhashed(None)
    teacher_file: str | None = unhashed(None)
    teacher_folder: str | None = unhashed(None)
    teacher_digest: str | None = None
    query_budget: int | None = None
    oracle_batch_size: int | None = unhashed(None)
    do_not_augment: bool = False
    transformation_seed: int | None = None
    subsample_fraction: float | None = None
    random_labels_fraction: float | None = None
    unsupervised_labels: str | None = None
    blur_factor: int | None = None

    _name = "Dataset Hyperparameters"
    _description = "The examples to train on. For the dataset 'teacher': the teacher and its queries."
    _dataset_name = "The dataset. The targets of 'teacher' are the outputs of a trained network."
    _batch_size = "Examples per batch."
    _teacher_name = (
        "The teacher of the dataset 'teacher': the hash of a train run or a unique prefix of it, the name of a model (its default run, "
        "which is trained first if it does not exist); a file of queries and answers: a .npz file with arrays X and y, a table (.csv, "
        ".tsv or .npy) with --outputs, or two tables joined by +, such as inputs.npy+answers.npy; or a black box, which is asked: a Python "
        "function oracle.py:predict, an .onnx file, a TorchScript program (.pt) or an exported program (.pt2)."
    )
    _teacher_seed = "The seed of the teacher's run."
    _datagen = (
        "The queries: policies joined by +, each with an optional count, such as digits+random:4000. A file contains its own queries."
    )
    _query_budget = "The largest number of queries that a black box is asked. No limit by default."
    _oracle_batch_size = "The number of queries in a call of a black box (1024 by default)."
    _samples = "The number of queries in total. Policies without a count share them. Inferred by default."
    _d_in = (
        "The number of inputs of the teacher. Inferred by default, for a black box that does not say it from the model; a value that is "
        "set is checked."
    )
    _arrays = "The names of the arrays of queries and answers in a .npz file, such as inputs,targets. X,y by default."
    _outputs = "The number of columns that are answers in a table of queries and answers, counted from the last column."
    _link = (
        "What the answers in a file or of a black box are: probabilities of softmax, their logarithms, probabilities of a sigmoid, or raw "
        "outputs. Probabilities are converted to logits. Noticed by default: softmax if every row sums to one, sigmoid if some values in "
        "(0, 1) are near 0 and others near 1. If all are from 0 to 1 but not near both, extract tries raw and sigmoid."
    )
    _teacher_file = "The name of the file of answers or of the black box in lists of runs and on the page. Inferred by default."
    _teacher_folder = (
        "The folder of the teacher's weights inside its run, such as replicate_1. Inferred by default. It matters only where a run has the "
        "folders seed_1 and replicate_1."
    )
    _teacher_digest = (
        "The digest of the teacher's weights, or its first digits. Inferred by default; a value that is set is checked. The name of a run "
        "contains it only if the teacher has changed since the first run of that name."
    )
    _do_not_augment = "Train without random crops and mirroring."
    _transformation_seed = "The seed of subsampling, random labels, rotation and augmentation (0 by default)."
    _subsample_fraction = "The fraction of the training examples that is kept. It is drawn at random."
    _random_labels_fraction = "The fraction of the training examples whose class is replaced by a random one."
    _unsupervised_labels = "Replace the labels, in training and test. 'rotation': the number of quarter turns by which an image is rotated."
    _blur_factor = "Blur training images: shrink them by this factor, then enlarge them again."

    def __post_init__(self):
        in_memory = f"1 to {limits.EXAMPLES:,}, because they are in memory as a whole"
        self.require("batch_size", 1 <= self.batch_size <= limits.EXAMPLES, in_memory)
        self.require("samples", self.samples is None or 1 <= self.samples <= limits.EXAMPLES, in_memory)
        self.require("query_budget", self.query_budget is None or self.query_budget >= 1, "1 or more")
        self.require("oracle_batch_size", self.oracle_batch_size is None or 1 <= self.oracle_batch_size <= limits.EXAMPLES, in_memory)
        self.require("d_in", self.d_in is None or self.d_in >= 1, "1 or more")
        self.require("outputs", self.outputs is None or self.outputs >= 1, "1 or more")
        self.require("teacher_seed", NOT_CHOSEN <= self.teacher_seed <= LARGEST, f"-1 (not chosen) to {LARGEST}")
        for name in ("subsample_fraction", "random_labels_fraction"):
            self.require(name, getattr(self, name) is None or 0 < getattr(self, name) <= 1, "more than 0 and at most 1")
        self.require("blur_factor", self.blur_factor is None or self.blur_factor >= 1, "1 or more")
        if self.link not in (None, *LINKS):
            raise unknown("--link", self.link, LINKS)
        if self.unsupervised_labels not in (None, *UNSUPERVISED_LABELS):
            raise unknown("--unsupervised_labels", self.unsupervised_labels, UNSUPERVISED_LABELS)
        if self.unsupervised_labels is not None and self.random_labels_fraction is not None:
            raise ConfigError("--random_labels_fraction: cannot be combined with --unsupervised_labels, which replaces all labels")
