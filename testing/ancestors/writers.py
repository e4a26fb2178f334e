"""Writes run folders byte for byte as OpenLTH and the published Expand-and-Cluster code write them, with random weights.

The formats are stated here once more, independently of the code that reads them. Hyperparameters are dictionaries by bundle and field. A
run has the files of its kind and no others: OpenLTH records no hyperparameters for a branch, and the published code adds a pickle.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from unittest import mock

import numpy as np
import torch

import foundations.hparams

REQUIRED = object()
Values = Mapping[str, object]
Bundles = Mapping[str, Values]
Weights = Mapping[str, torch.Tensor]
Metrics = Mapping[tuple[str, int], object]  # by name and iteration, in the order of the log

_DATASET: dict[str, object] = {"dataset_name": REQUIRED, "batch_size": REQUIRED, "do_not_augment": False}
_DATASET |= dict.fromkeys(["transformation_seed", "subsample_fraction", "random_labels_fraction", "unsupervised_labels", "blur_factor"])
_MODEL: dict[str, object] = {"model_name": REQUIRED, "model_init": REQUIRED, "batchnorm_init": REQUIRED, "batchnorm_frozen": False}
_MODEL |= {"output_frozen": False, "others_frozen": False, "others_frozen_exceptions": None}
_TRAINING: dict[str, object] = {"optimizer_name": REQUIRED, "lr": REQUIRED, "training_steps": REQUIRED, "data_order_seed": None}
_TRAINING |= {"momentum": 0.0, "nesterov_momentum": 0.0, "milestone_steps": None}
_PRUNING = {"pruning_strategy": REQUIRED, "pruning_fraction": 0.2, "pruning_layers_to_ignore": None}
_EXTRACTION = {"gamma": REQUIRED, "beta": REQUIRED, "finetune_traning_steps": "5000ep", "finetune_lr": 1e-4}
_EXTRACTION |= {"boruta": None, "conv_level": None}

DATASET: Values = {"dataset_name": "mnist", "batch_size": 2}
MODEL: Values = {"model_name": "mnist_lenet_3", "model_init": "kaiming_normal", "batchnorm_init": "uniform"}
TRAINING: Values = {"optimizer_name": "sgd", "lr": 0.1, "training_steps": "2ep"}
PRUNING: Values = {"pruning_strategy": "sparse_global", "pruning_fraction": 0.2, "pruning_layers_to_ignore": "fc.weight"}
TRAIN: Bundles = {"dataset_hparams": DATASET, "model_hparams": MODEL, "training_hparams": TRAINING}
LOTTERY: Bundles = {**TRAIN, "pruning_hparams": PRUNING}


@dataclass(frozen=True)
class Program:
    """One of the two programs.

    Attributes:
        seed_folder: the prefix of the folder of a seed.
        digits: of the hash in the name of a folder.
        fields: for each bundle its fields with their defaults, in order.
        separator: between the fields of a record in the log.
        row_end: between two records.
        pickles: whether the hyperparameters are pickled as well.
    """

    seed_folder: str
    digits: int
    fields: Mapping[str, Values]
    separator: str
    row_end: str
    pickles: bool

    def name(self, kind: str, bundles: Bundles) -> str:
        """The name of the folder of an experiment."""
        text = ";".join(self._hashed(bundle, bundles[bundle]) for bundle in sorted(bundles)).encode("utf-8")
        md5 = self.digits == 32
        return f"{kind}_{hashlib.md5(text).hexdigest() if md5 else hashlib.blake2b(text, digest_size=5).hexdigest()}"

    def _complete(self, bundle: str, values: Values) -> dict[str, tuple[object, object]]:
        """Each field of a bundle with its value and its default, in order."""
        fields = self.fields[bundle.removeprefix("pretrain_")]
        return {name: (values.get(name, default), default) for name, default in fields.items()}

    def _hashed(self, bundle: str, values: Values) -> str:
        parts = {
            name: value for name, (value, default) in self._complete(bundle, values).items() if default is REQUIRED or value != default
        }
        quoted = (f"{name}='{value}'" if isinstance(value, str) else f"{name}={value}" for name, value in sorted(parts.items()))
        return "Hparams(" + ", ".join(quoted) + ")"

    def log(self, bundles: Bundles) -> str:
        """The text of `hparams.log`: required values, and others that are not zero, empty or false."""
        titles = {
            "dataset_hparams": "Dataset",
            "model_hparams": "Model",
            "training_hparams": "Training",
            "extraction_hparams": "Extraction",
        }
        texts = []
        for bundle in sorted(bundles):
            plain = bundle.removeprefix("pretrain_")
            title = f"{titles.get(plain)} Hyperparameters" if plain in titles else "Hyperparameters for Sparse Global Pruning"
            rows = self._complete(bundle, bundles[bundle]).items()
            lines = [f"    * {name} => {value}" for name, (value, default) in rows if default is REQUIRED or value]
            texts.append("\n".join([("Pretraining " if plain != bundle else "") + title, *lines]))
        return "\n".join(texts)

    def metrics_text(self, metrics: Metrics) -> str:
        """The text of a log."""
        records = (self.separator.join([name, str(iteration), str(value)]) for (name, iteration), value in metrics.items())
        return self.row_end.join(records)

    def save_hparams(self, folder: str, bundles: Bundles, prefix: str = "") -> None:
        """Writes the hyperparameters of a run."""
        write(os.path.join(folder, f"{prefix}hparams.log"), self.log(bundles))
        if self.pickles:
            content = pickled({bundle: dict(values) for bundle, values in bundles.items()})
            write(os.path.join(folder, f"{prefix}hparams_dict"), content)

    def checkpoint(self, weights: Weights, iterations_per_epoch: int, epoch: int, metrics: Metrics, mask: Weights | None = None) -> bytes:
        """A checkpoint of SGD, or for students of Adam, at the start of an epoch. Its step is of two numpy integers."""
        state = dict(weights)
        if mask is not None:
            state = {f"mask_{name.replace('.', '___')}": kept.float() for name, kept in mask.items()}
            state |= {f"model.{name}": values for name, values in weights.items()}
        parameters = [torch.nn.Parameter(values.clone()) for values in weights.values()]
        is_stack = "fc_layers.0.fc" in weights
        optimizer = torch.optim.Adam(parameters, lr=0.001) if is_stack else torch.optim.SGD(parameters, lr=0.1, momentum=0)
        if is_stack:
            sum((parameter**2).sum() for parameter in parameters).backward()
            optimizer.step()
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda it: np.prod([1.0]))  # which adds `initial_lr` to the optimizer's state
        step = np.int64(epoch * iterations_per_epoch)
        content = {"ep": step // np.int64(iterations_per_epoch), "it": step % np.int64(iterations_per_epoch)}
        content |= {"model_state_dict": state, "optimizer_state_dict": optimizer.state_dict(), "logger": self.metrics_text(metrics)}
        return saved(content)

    def run(self, folder: str, weights: Mapping[str, Weights], metrics: Metrics | None) -> str:
        """Writes the weights, by the name of their step, and the log; returns the folder."""
        for step, state in weights.items():
            write(os.path.join(folder, f"model_{step}.pth"), saved(dict(state)))
        if metrics is not None:
            write(os.path.join(folder, "logger"), self.metrics_text(metrics))
        return folder


_PUBLISHED_DATASET = _DATASET | dict.fromkeys(["teacher_name", "teacher_seed", "samples", "datagen", "d_in"])
_PUBLISHED_TRAINING = _TRAINING | {"delta": None, "plateau_opt": False, "patience": None, "cooldown": None}
_LAST: dict[str, object] = {"warmup_steps": None, "weight_decay": None, "apex_fp16": False}
OPENLTH = Program(
    "replicate",
    32,
    {
        "dataset_hparams": _DATASET,
        "model_hparams": _MODEL,
        "training_hparams": _TRAINING | {"gamma": None} | _LAST,
        "pruning_hparams": _PRUNING,
    },
    ",",
    "\n",
    False,
)
PUBLISHED = Program(
    "seed",
    10,
    {
        "dataset_hparams": _PUBLISHED_DATASET,
        "model_hparams": _MODEL | {"act_fun": "relu"},
        "training_hparams": _PUBLISHED_TRAINING | _LAST | {"further_training": None},
        "pruning_hparams": _PRUNING,
        "extraction_hparams": _EXTRACTION,
    },
    "$",
    "//\n",
    True,
)


def write(path: str, content: str | bytes) -> None:
    """Writes a file, and makes its folder."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)


def saved(content: object) -> bytes:
    """The bytes that `torch.save` writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def as_numpy_1(content: bytes) -> bytes:
    """A file of torch with the module names of numpy 1, with which both programs were published."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    return buffer.getvalue()


def pickled(bundles: Bundles) -> bytes:
    """Bundles of hyperparameters as objects of the classes in `foundations.hparams`, pickled by torch."""
    classes, objects = {}, {}
    for bundle, values in bundles.items():
        name = "".join(part.capitalize() for part in bundle.removeprefix("pretrain_").split("_"))
        kind = dataclasses.make_dataclass(name, list(values))
        kind.__module__ = foundations.hparams.__name__
        classes[name], objects[bundle] = kind, kind(**values)
    with mock.patch.multiple(foundations.hparams, create=True, **classes):
        return saved(objects)


def perceptron(seed: int, widths: Sequence[int] = (784, 3, 10)) -> dict[str, torch.Tensor]:
    """Random weights of a fully connected network, by the names of both programs."""
    generator = torch.Generator().manual_seed(seed)
    names = [*(f"fc_layers.{depth}" for depth in range(len(widths) - 2)), "fc"]
    weights = {}
    for name, inputs, outputs in zip(names, widths, widths[1:], strict=False):
        weights[f"{name}.weight"] = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
        weights[f"{name}.bias"] = torch.randn(outputs, generator=generator)
    return weights


def students(seed: int, count: int, widths: Sequence[int] = (784, 5, 10)) -> dict[str, torch.Tensor]:
    """Random weights of a stack of students in the layout of the published code, whose last axis is that of the students."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for depth, (inputs, outputs) in enumerate(zip(widths, widths[1:], strict=False)):
        weights[f"fc_layers.{depth}.fc"] = torch.randn(inputs, outputs, count, generator=generator) / inputs**0.5
        weights[f"fc_layers.{depth}.b"] = torch.randn(outputs, count, generator=generator)
    return weights


def evaluations(epochs: int, iterations_per_epoch: int, sets: Sequence[str] = ("test",)) -> dict[tuple[str, int], float]:
    """The records of one evaluation at the start of every epoch."""
    records: dict[tuple[str, int], float] = {}
    for epoch in range(epochs + 1):
        for name in sets:
            step = epoch * iterations_per_epoch
            figures = {"loss": 2.3 / (epoch + 1), "accuracy": 1 - 0.9 / (epoch + 1), "examples": 3.0}
            records |= {(f"{name}_{metric}", step): value for metric, value in figures.items()}
    return records


def train(root: str, program: Program, seed: int, iterations: int, bundles: Bundles = TRAIN, epochs: int = 2) -> str:
    """A finished run of `train`, or an unfinished one if `epochs` is less than those of the hyperparameters; returns its folder.

    Args:
        root: the results folder.
        program: the program that writes.
        seed: the number of the seed's folder.
        iterations: the number of iterations in an epoch.
        bundles: the hyperparameters.
        epochs: the number of epochs that were trained.
    """
    folder = os.path.join(root, program.name("train", bundles), f"{program.seed_folder}_{seed}", "main")
    program.save_hparams(folder, bundles)
    _training(folder, program, iterations, epochs, f"{epochs}ep" == bundles["training_hparams"]["training_steps"])
    return folder


def _training(folder: str, program: Program, iterations: int, epochs: int, finished: bool, mask: Weights | None = None) -> None:
    """The files that training leaves; pruned weights are 0."""
    kept = dict.fromkeys(perceptron(0), 1) | dict(mask or {})
    start, end = ({name: value * kept[name] for name, value in perceptron(seed).items()} for seed in (1, 2))
    metrics = evaluations(epochs, iterations, ("train", "test") if program.pickles else ("test",))
    program.run(folder, {"ep0_it0": start} | ({f"ep{epochs}_it0": end} if finished else {}), metrics if finished else None)
    write(os.path.join(folder, "checkpoint.pth"), program.checkpoint(end, iterations, epochs, metrics, mask))


def save_mask(folder: str, mask: Weights) -> None:
    """Writes a mask and its report."""
    write(os.path.join(folder, "mask.pth"), saved({name: kept.int() for name, kept in mask.items()}))
    counts = {
        "total": float(sum(kept.numel() for kept in mask.values())),
        "unpruned": float(sum(int(kept.sum()) for kept in mask.values())),
    }
    write(os.path.join(folder, "sparsity_report.json"), json.dumps(counts, indent=4))


def level_mask(level: int) -> dict[str, torch.Tensor]:
    """A mask of the weights of `perceptron`: each level prunes the next 500 weights of the first layer."""
    first = torch.ones(3 * 784)
    first[: 500 * level] = 0
    return {"fc_layers.0.weight": first.view(3, 784), "fc.weight": torch.ones(10, 3)}


def lottery(root: str, program: Program, seed: int, iterations: int, levels: int, bundles: Bundles = LOTTERY) -> str:
    """Finished levels of `lottery`; returns the folder of the seed."""
    everything = {**bundles, "extraction_hparams": {"gamma": None, "beta": None}} if program.pickles else bundles
    location = os.path.join(root, program.name("lottery", everything), f"{program.seed_folder}_{seed}")
    program.save_hparams(os.path.join(location, "level_0", "main"), everything)
    for level in range(levels + 1):
        folder, mask = os.path.join(location, f"level_{level}", "main"), level_mask(level)
        save_mask(folder, mask)
        _training(folder, program, iterations, 2, True, mask)
    return location


def retrain(location: str, iterations: int, levels: int, bundles: Bundles = TRAIN) -> str:
    """The branch `retrain` of OpenLTH on a number of levels, which has neither records nor a mask; returns the name of its folder."""
    dataset, training = (OPENLTH._hashed(bundle, bundles[bundle]) for bundle in ("dataset_hparams", "training_hparams"))
    text = f"Hparams(retrain_d={dataset}, retrain_t={training})"
    name = f"lottery_branch_retrain_{hashlib.md5(text.encode()).hexdigest()}"
    for level in range(levels + 1):
        _training(os.path.join(location, f"level_{level}", name), OPENLTH, iterations, 2, True, level_mask(level))
    return name


def extraction(root: str, seed: int, bundles: Bundles, count: int) -> str:
    """A finished run of students of the published code, with its clustering; returns the folder of the students."""
    training = {bundle: values for bundle, values in bundles.items() if bundle != "extraction_hparams"}
    folder = os.path.join(root, PUBLISHED.name("ec", training), f"seed_{seed}", "main")
    PUBLISHED.save_hparams(folder, training)
    weights = {step: students(number, count) for number, step in enumerate(("ep0_it0", "ep100_it0"))}
    losses = {0: torch.linspace(0.5, 1.5, count), 300: torch.linspace(1e-8, 2e-8, count)}
    metrics = {}
    for step, values in losses.items():
        metrics |= {("train_loss", step): float(values.mean()), ("train_individual_losses", step): values, ("train_examples", step): 5.0}
    PUBLISHED.run(folder, weights, metrics)
    write(os.path.join(folder, "checkpoint.pth"), PUBLISHED.checkpoint(weights["ep100_it0"], 3, 100, metrics))
    write(os.path.join(folder, "train_individual_losses.pdf"), "%PDF")
    own = {"extraction_hparams": bundles["extraction_hparams"]}
    clustering = os.path.join(folder, PUBLISHED.name("clustering", own))
    PUBLISHED.save_hparams(clustering, own, "extraction_")
    PUBLISHED.run(os.path.join(clustering, "reconstructed_model"), {"ep0_it0": students(3, 1), "ep5000_it0": students(4, 1)}, metrics)
    return folder
