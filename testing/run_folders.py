"""Run folders in the format of the workflows, for fast tests: the records are real, the weights are placeholders."""

from __future__ import annotations

import os

from extraction.desc import ExtractionDesc
from foundations import json_text, paths
from foundations.dataset_hparams import DatasetHparams
from foundations.desc import Desc
from foundations.extraction_hparams import ExtractionHparams
from foundations.model_hparams import ModelHparams
from foundations.training_hparams import TrainingHparams
from lottery.desc import LotteryDesc
from pruning.hparams import PruningHparams
from training.desc import TrainingDesc


def training(lr: float = 0.1, act_fun: str = "relu", **dataset: object) -> TrainingDesc:
    """The hyperparameters of a train run."""
    data = DatasetHparams("digits", 128, **dataset)
    model = ModelHparams("digits_lenet_16", "kaiming_normal", "uniform", act_fun)
    return TrainingDesc(data, model, TrainingHparams("sgd", lr, "40ep"))


def extraction(teacher: str, gamma: float = 0.7) -> ExtractionDesc:
    """The hyperparameters of an extraction."""
    data = DatasetHparams("teacher", 256, teacher, datagen="digits+random:4000")
    model = ModelHparams("students_digits_lenet(10)_64", "kaiming_normal", "uniform")
    return ExtractionDesc(data, model, TrainingHparams("adam", 0.02, "6000it"), ExtractionHparams(gamma=gamma))


def lottery(lr: float = 0.1) -> LotteryDesc:
    """The hyperparameters of a lottery ticket experiment."""
    return LotteryDesc(*vars(training(lr)).values(), PruningHparams("sparse_global"))


def write(path: str, content: str = "") -> str:
    """Writes a file, and makes its parent folders; returns its path."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)
    return path


def record(folder: str, desc: Desc, seed: int) -> str:
    """Writes the records that a run has from its start; returns its folder."""
    write(paths.hparams_log(folder), desc.log + "\n")
    write(paths.hparams_dict(folder), desc.to_json(seed=seed, shape=[64, 10]))
    return folder


def finish(folder: str, accuracy: float = 0.9) -> str:
    """Writes the files that a training run has at its end; returns its folder."""
    rounds = ((0, 0.1), (240, accuracy / 2), (480, accuracy))
    lines = (f"test_loss${step}${1 - value!r}\ntest_accuracy${step}${value!r}\n" for step, value in rounds)
    write(paths.logger(folder), "".join(lines))
    for name in ("checkpoint.pth", "model_ep0_it0.pth", "model_ep40_it0.pth"):
        write(os.path.join(folder, name), "weights")
    return folder


def train_run(root: str, desc: TrainingDesc, seed: int = 0, accuracy: float = 0.9) -> str:
    """A finished run of `train`; returns its folder."""
    return finish(record(desc.run_path(root, seed), desc, seed), accuracy)


def extract_run(root: str, desc: ExtractionDesc, seed: int = 0, identified: bool = True, error: float = 1e-15) -> str:
    """A finished run of `extract`; returns the folder of its clustering."""
    train_run(root, desc, seed)
    folder = desc.clustering_path(root, seed)
    write(paths.hparams_dict(folder, "extraction_"), json_text.dumps(desc.extraction_hparams.to_dict()))
    function = {"mse": error**2, "max_abs_error": error, "queries": 10}
    report = {"identified": identified, "max_relative_error": error, "certificate": {"accepted": identified}, "function": function}
    write(paths.report(folder), json_text.dumps(report | {"seconds": {"students": 1.5, "pictures": 0.5}}))
    return folder


def lottery_run(root: str, desc: LotteryDesc, seed: int = 0, levels: int = 2) -> str:
    """A finished run of `lottery`, which keeps four fifths of the weights at each level; returns the folder of its levels."""
    for level in range(levels + 1):
        folder = finish(desc.run_path(root, seed, level), 0.9 - level / 100)
        write(paths.sparsity_report(folder), json_text.dumps({"unpruned": round(1000 * 0.8**level), "total": 1000}))
    record(desc.run_path(root, seed), desc, seed)
    write(paths.levels(desc.seed_path(root, seed), levels))
    return desc.seed_path(root, seed)
